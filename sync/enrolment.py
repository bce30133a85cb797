"""How a device becomes known to a hub, and stays so: a one-time code, a key made here, certificates that are renewed.

For whoever provisions a board, this is all of it::

    folder = state_dir / enrolment.FOLDER
    enrolled = enrolment.enroll(code, store.identity, store.key, folder, synced=clock.synced())
    # from then on, at each start:
    enrolled = enrolment.load(folder, store.key)      # None: not enrolled
    Publisher(store, enrolled.link()).start()         # renews by itself

`code` is the line that `aidpost hub enroll NAME` prints: `https://HOST:PORT/#TOKEN.FINGERPRINT`. It works once, for the
device of that name, within its hours. A call that was cut off may be repeated with the same code: the key made by the
first is still there, and the hub knows it again. `AidpostError` says what to do about anything else.

The fingerprint is that of the hub's own authority, by which the device knows the hub before it says the token. The TLS
key (P-256) is made here and lies in `folder` encrypted under the device key, so that a copied card cannot speak for the
device. Mosquitto refuses an expired client, so renewal goes to the hub's HTTPS port, which takes an expired certificate
that was not revoked, with proof of both keys. The old certificate stays until the new one has worked.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from aidpost.errors import EnrolmentError, KeyUnavailableError
from aidpost.sync import _https
from aidpost.sync._durable import make_folder, replace_file, sync_folder
from aidpost.sync.keys import DeviceKey, Identity, public_bytes, public_key
from aidpost.sync.link import Link
from aidpost.sync.store import Store

_log = logging.getLogger(__name__)

FOLDER = "enrolment"
"""Name of the folder below the state folder."""
RENEW_BELOW = 1 / 3
"""Of a certificate's life: less is left, and it is renewed."""

_AUTHORITY, _KEY, _CURRENT, _NEXT, _HUB = "authority.pem", "device.key", "device.pem", "device.next.pem", "hub.json"
_CODE = re.compile(r"(https://[^/#\s]+)/?#([A-Z2-7]{20,64})\.([A-Z2-7]{26})")
FINGERPRINT_BYTES = 16


class EnrolmentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a device sends, to enrol (with `token`) or to renew (with the `certificate` that it has)."""

    device: str
    public_key: str
    csr: str
    signature: str
    """Hexadecimal Ed25519 of `signed_part(csr, token)` by the device's identity."""
    token: str = ""
    certificate: str = ""


class IdentityRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a device sends to sign with another key from now on: both, and each one's signature of `changed_part`."""

    device: str
    old_key: str
    new_key: str
    old_signature: str
    new_signature: str


class IdentityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The key that counts now."""

    public_key: str


class EnrolmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub says: the device's certificate, and how to reach the hub from now on. Kept as `hub.json`."""

    certificate: str
    hub_name: str
    hub_key: str
    broker_host: str
    broker_port: int
    now_ms: int
    """The hub's time: no certificate that had ended by then is believed later, whatever this device's clock says."""


class _Hub(msgspec.Struct, frozen=True, kw_only=True):
    """`hub.json`."""

    url: str
    answer: EnrolmentAnswer


def signed_part(csr: bytes, token: str) -> bytes:
    """What the identity signs: that this TLS key is the device's too."""
    return b"aidpost enrolment 1\x00" + hashlib.sha256(csr).digest() + token.encode()


def changed_part(device: str, old: bytes, new: bytes) -> bytes:
    """What both keys sign of a change from the one to the other."""
    return b"aidpost identity 1\x00" + old + new + device.encode()


def fingerprint(authority: x509.Certificate) -> str:
    """The authority as it stands in a code: base32 of the first 16 bytes of SHA-256 of the certificate."""
    return base64.b32encode(authority.fingerprint(SHA256())[:FINGERPRINT_BYTES]).decode().rstrip("=")


class Code(NamedTuple):
    """What `aidpost hub enroll` prints, taken apart."""

    url: str
    token: str
    fingerprint: str

    @classmethod
    def parse(cls, text: str) -> Code:
        """Raises EnrolmentError where the text is not a whole code."""
        found = _CODE.fullmatch(text.strip())
        if found is None:
            raise _failed("the code", "it is not whole", "Copy the line that `aidpost hub enroll` prints.")
        return cls(*found.groups())

    def __str__(self) -> str:
        return f"{self.url}/#{self.token}.{self.fingerprint}"


def enroll(code: str, identity: Identity, device_key: DeviceKey, folder: Path, *, synced: bool) -> Enrolled:
    """Make a TLS key, have the hub certify it, and keep all that the sender needs in `folder`.

    Parameters
    ----------
    code
        The line that `aidpost hub enroll` printed.
    identity
        The store's: its name must be the one that the code was made for.
    synced
        Whether a trusted source has set the clock since boot. Where not, the dates of the hub's certificate are not
        checked: the fingerprint is.

    Raises
    ------
    EnrolmentError
        The code is damaged, used or too old; the hub cannot be reached, or is another one.
    """
    parsed = Code.parse(code)
    authority = _https.fetch_authority(parsed.url)
    if fingerprint(authority) != parsed.fingerprint:
        raise _failed(parsed.url, "it is another hub than the code's", "Check the address; make a new code on the hub.")
    make_folder(folder)
    replace_file(folder / _AUTHORITY, authority.public_bytes(Encoding.PEM))
    csr = _request(identity, _tls_key(folder, device_key, create=True))
    request = _signed(identity, csr, token=parsed.token)
    answer = _https.post(f"{parsed.url}/enrolment/1", request, folder / _AUTHORITY, EnrolmentAnswer, synced=synced)
    replace_file(folder / _CURRENT, answer.certificate.encode())
    # last: a device with this file is enrolled
    replace_file(folder / _HUB, msgspec.json.encode(_Hub(url=parsed.url, answer=answer)))
    _log.info("enrolled at %s as %s", answer.hub_name, identity.name)
    return Enrolled(folder, device_key)


def load(folder: Path, device_key: DeviceKey) -> Enrolled | None:
    """What `enroll` kept, or None.

    Raises
    ------
    EnrolmentError
        Its files cannot be read.
    """
    return Enrolled(folder, device_key) if (folder / _HUB).exists() else None


class Told(NamedTuple):
    """What anybody may know of an enrolment: where hub and broker are, whose certificates count, when our own ends."""

    host: str
    port: int
    certificate: x509.Certificate
    url: str
    authority: Path


def told(folder: Path) -> Told | None:
    """What `enroll` kept, as far as it needs no key, or None.

    Raises
    ------
    EnrolmentError
        Its files cannot be read.
    """
    if not (folder / _HUB).exists():
        return None
    hub, certificate = _kept(folder)
    return Told(hub.answer.broker_host, hub.answer.broker_port, certificate, hub.url, folder / _AUTHORITY)


def _kept(folder: Path) -> tuple[_Hub, x509.Certificate]:
    path = folder / _NEXT
    try:
        hub = msgspec.json.decode((folder / _HUB).read_bytes(), type=_Hub)
        return hub, x509.load_pem_x509_certificate((path if path.exists() else folder / _CURRENT).read_bytes())
    except (OSError, ValueError) as error:
        raise _failed(str(folder), str(error), "Enrol the device again: `aidpost hub enroll` on the hub.") from None


class Enrolled:
    """A device's certificate, its key, and the hub that gave it."""

    def __init__(self, folder: Path, device_key: DeviceKey) -> None:
        self._folder, self._device_key = folder, device_key
        self._renewed_at, self._trying = 0.0, ""
        hub, _ = _kept(folder)
        self.url, self._answer = hub.url, hub.answer

    def link(
        self,
        *,
        keepalive_s: int = 30,
        window_records: int = 64,
        window_bytes: int = 32 * 1024,
        backlog_bytes_s: int = 512_000,
    ) -> Link:
        """How the sender reaches the hub."""
        answer = self._answer
        return Link(
            host=answer.broker_host,
            port=answer.broker_port,
            hub_name=answer.hub_name,
            hub_key=public_key(bytes.fromhex(answer.hub_key)),
            enrolled=self,
            keepalive_s=keepalive_s,
            window_records=window_records,
            window_bytes=window_bytes,
            backlog_bytes_s=backlog_bytes_s,
        )

    @property
    def not_after(self) -> datetime:
        """When the certificate in use ends."""
        return self._certificate().not_valid_after_utc

    def context(self, *, synced: bool) -> _https.Context:
        """TLS to the broker: this hub's authority only; the newest certificate, and after a failure by turns the one
        before, which stays until the new one has worked."""
        context = _https.context(self._folder / _AUTHORITY, synced=synced)
        self._trying = _NEXT if (self._folder / _NEXT).exists() and self._trying != _NEXT else _CURRENT
        context.load_cert_chain(self._folder / self._trying, self._folder / _KEY, password=_password(self._device_key))
        return context

    def require_recent(self, certificate: object) -> None:
        """What a peer checked without dates must still show: that it had not ended when the hub last told the time.

        Raises
        ------
        EnrolmentError
            It had.
        """
        _https.require_recent(certificate, self._answer.now_ms)

    def worked(self) -> None:
        """A connection stands with the certificate of the last `context`."""
        if self._trying == _NEXT:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / _NEXT).replace(self._folder / _CURRENT)
                sync_folder(self._folder)
        self._trying = ""

    def due(self, now_ms: int, *, synced: bool) -> bool:
        """Whether it is time to renew, as far as this clock can tell. One that nobody has set cannot."""
        certificate = self._certificate()
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        return synced and now_ms / 1000 > end - (end - begin) * RENEW_BELOW

    def renew(self, identity: Identity, *, synced: bool, every_s: float = 600.0) -> bool:
        """Get a new certificate for the same key, at most once in `every_s`; False where it is too soon again.

        Raises
        ------
        EnrolmentError
            The hub cannot be reached, or has revoked this device.
        """
        now = time.monotonic()
        if self._renewed_at and now - self._renewed_at < every_s:
            return False
        self._renewed_at = now
        csr = _request(identity, _tls_key(self._folder, self._device_key))
        request = _signed(identity, csr, certificate=(self._folder / _CURRENT).read_text())
        answer = _https.post(
            f"{self.url}/renewal/1",
            request,
            self._folder / _AUTHORITY,
            EnrolmentAnswer,
            synced=synced,
            known_ms=self._answer.now_ms,
        )
        replace_file(self._folder / _NEXT, answer.certificate.encode())
        replace_file(self._folder / _HUB, msgspec.json.encode(_Hub(url=self.url, answer=answer)))
        self._answer = answer
        _log.info("the certificate was renewed, it now ends on %s", self.not_after.date())
        return True

    def change_identity(self, store: Store, *, synced: bool) -> None:
        """Sign with another key from now on, made here. What is on its way with the old one is still taken.

        The new key is on the disk before the hub hears of it, and takes the old one's place after the hub's word:
        killed or cut off in between, the next call asks for the same change again, which the hub answers again.

        Raises
        ------
        EnrolmentError
            The hub cannot be reached, or refuses: nothing has changed here.
        StoreError
            The disk failed.
        """
        old, new = store.identity, store.next_identity()
        keys = public_bytes(old.public), public_bytes(new.public)
        said = changed_part(old.name, *keys)
        request = IdentityRequest(
            device=old.name,
            old_key=keys[0].hex(),
            new_key=keys[1].hex(),
            old_signature=old.private.sign(said).hex(),
            new_signature=new.private.sign(said).hex(),
        )
        path, known_ms = self._folder / _AUTHORITY, self._answer.now_ms
        answer = _https.post(f"{self.url}/identity/1", request, path, IdentityAnswer, synced=synced, known_ms=known_ms)
        if answer.public_key != keys[1].hex():
            raise _failed(self.url, "the hub names another key than the new one", "Enrol the device again.")
        store.take_identity()
        _log.info("%s signs with another key", old.name)

    def _certificate(self) -> x509.Certificate:
        return _kept(self._folder)[1]


def _password(device_key: DeviceKey) -> bytes:
    return hashlib.sha256(b"aidpost tls key\x00" + device_key.secret).hexdigest().encode()


def _tls_key(folder: Path, device_key: DeviceKey, *, create: bool = False) -> ec.EllipticCurvePrivateKey:
    path, password = folder / _KEY, _password(device_key)
    if create and not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        replace_file(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)))
    try:
        key = load_pem_private_key(path.read_bytes(), password)
    except (OSError, ValueError) as error:
        raise KeyUnavailableError(
            operation="reading the device's TLS key",
            target=str(path),
            cause=str(error),
            remedy="Give the device key it was made under; or remove it and enrol the device again.",
        ) from None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def reseal(folder: Path, device_key: DeviceKey, other: DeviceKey) -> None:
    """The TLS key under `device_key`, where it is under `other` now. Nothing, where no device was enrolled.

    Raises
    ------
    KeyUnavailableError
        It opens under neither.
    """
    path = folder / _KEY
    if not path.exists():
        return
    try:
        _tls_key(folder, device_key)
    except KeyUnavailableError:
        key, password = _tls_key(folder, other), _password(device_key)
        replace_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)))


def _request(identity: Identity, key: ec.EllipticCurvePrivateKey) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)])
    return x509.CertificateSigningRequestBuilder(subject).sign(key, SHA256()).public_bytes(Encoding.PEM)


def _signed(identity: Identity, csr: bytes, *, token: str = "", certificate: str = "") -> EnrolmentRequest:
    return EnrolmentRequest(
        device=identity.name,
        public_key=public_bytes(identity.public).hex(),
        csr=csr.decode(),
        signature=identity.private.sign(signed_part(csr, token)).hex(),
        token=token,
        certificate=certificate,
    )


def _failed(target: str, cause: str, remedy: str) -> EnrolmentError:
    return EnrolmentError(operation="enrolling the device", target=target, cause=cause, remedy=remedy)
