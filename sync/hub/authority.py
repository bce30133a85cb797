"""The hub's own certificate authority: for devices, for the broker, and for itself. Nobody else's is believed.

Keys are P-256: every TLS library and secure element has it. Certificates of devices name them in CN, which the broker
takes as the user's name. The hub's own is `hub:<name>`: no device's name has a colon.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aidpost.errors import KeyUnavailableError
from aidpost.sync._durable import make_folder, replace_file

_KEY, _CERTIFICATE = "authority.key", "authority.pem"
DEVICE_DAYS = 365
SERVER_DAYS = 5 * 365
_ALWAYS = datetime(2020, 1, 1, tzinfo=timezone.utc), datetime(2099, 1, 1, tzinfo=timezone.utc)
"""The authority's own dates: a hub that is set up with a wrong clock must not need a new one, nor its devices."""
_EARLIER = timedelta(days=1)
"""Certificates begin before now: the other end's clock may be behind."""


class Authority:
    """Opened, or made at the first use, in the hub's state folder.

    Raises
    ------
    KeyUnavailableError
        Its files are there and cannot be used.
    """

    def __init__(self, state: Path, name: str) -> None:
        key, certificate = state / _KEY, state / _CERTIFICATE
        try:
            if not certificate.exists():
                _make(state, name)
            self._key = load_pem_private_key(key.read_bytes(), None)
            self.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise KeyUnavailableError(
                operation="reading the hub's certificate authority",
                target=str(state),
                cause=str(error),
                remedy="Restore authority.key and authority.pem; without them each device must be enrolled again.",
            ) from None
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def device(self, name: str, key: ec.EllipticCurvePublicKey, now_ms: int) -> x509.Certificate:
        """A device's certificate, for a year."""
        return self._issue(name, key, now_ms, DEVICE_DAYS, ExtendedKeyUsageOID.CLIENT_AUTH)

    def write_pair(self, folder: Path, stem: str, common_name: str, now_ms: int, hosts: Sequence[str] = ()) -> None:
        """A new key and certificate as `stem.key` and `stem.pem`: of a server at `hosts`, or of a client without."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = self._issue(common_name, key.public_key(), now_ms, SERVER_DAYS, usage, hosts)
        replace_file(folder / f"{stem}.key", _pem(key))
        replace_file(folder / f"{stem}.pem", certificate.public_bytes(Encoding.PEM), mode=0o644)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether it is one of ours, whatever its dates."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, and libraries differ in what they raise: not ours
            return False
        return True

    def revocations(self, serials: Sequence[int], now_ms: int) -> bytes:
        """The list of revoked certificates, PEM. It does not expire: a broker must not shut everybody out because
        nobody wrote a new one."""
        now = _moment(now_ms)
        builder = x509.CertificateRevocationListBuilder(self.certificate.subject, now - _EARLIER, _ALWAYS[1])
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self._signer, SHA256()).public_bytes(Encoding.PEM)

    @property
    def _signer(self) -> ec.EllipticCurvePrivateKey:
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        return self._key

    def _issue(
        self,
        common_name: str,
        key: ec.EllipticCurvePublicKey,
        now_ms: int,
        days: int,
        usage: x509.ObjectIdentifier,
        hosts: Sequence[str] = (),
    ) -> x509.Certificate:
        now = _moment(now_ms)
        builder = _builder(common_name, self.certificate.subject, key, now - _EARLIER, now + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._signer.public_key())
        builder = builder.add_extension(ours, critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        return builder.sign(self._signer, SHA256())


def hub_user(name: str, worker: str = "") -> str:
    """The name of a hub's (or one of its workers') certificate, and so its user at the broker."""
    return f"hub:{name}:{worker}" if worker else f"hub:{name}"


def _make(state: Path, name: str) -> None:
    make_folder(state)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Aidpost hub {name}")])
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = dict.fromkeys((*unused, "encipher_only", "decipher_only"), False)
    certificate = (
        _builder(f"Aidpost hub {name}", subject, key.public_key(), *_ALWAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    replace_file(state / _KEY, _pem(key))
    # last: an authority with this file is whole
    replace_file(state / _CERTIFICATE, certificate.public_bytes(Encoding.PEM), mode=0o644)


def _builder(
    common_name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _moment(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms // 1000, timezone.utc)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
