"""Devices come to the hub: one-time codes, certificates, and an HTTPS port of their own that takes nothing else."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, insert, select, update
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from aidpost.errors import EnrolmentError, UsageError
from aidpost.sync import enrolment as wire
from aidpost.sync.hub import audit, identity, index, schema, updates
from aidpost.sync.hub.authority import Authority
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.topics import is_device_name

_log = logging.getLogger(__name__)

_TOKEN_BYTES = 15
_MOST_BYTES = 16 * 1024
_PREVIOUS_KEY_MS = 90 * 86_400_000
"""A stick that was written before a device changed its key may lie in a drawer so long."""


def make_code(config: HubConfig, database: Database, device: str, *, clinic: str = "", hours: float = 24.0) -> str:
    """A code with which the device of that name may enrol once, within `hours`.

    Raises
    ------
    UsageError
        The name cannot stand in a topic, or the hub's address for devices is not configured.
    """
    if not is_device_name(device):
        raise _usage(repr(device), "a name has 1 to 64 of A-Z a-z 0-9 _ . -", "Choose another name.")
    if not config.public_host:
        raise _usage(
            device, "hub.public_host is not set", "Set it to the name or address by which devices reach the hub."
        )
    token = base64.b32encode(os.urandom(_TOKEN_BYTES)).decode()
    now = now_ms()
    row = {"token_hash": _hash(token), "device": device, "clinic": clinic, "created_by": "command-line"}
    with database.write() as connection:
        times = {"created_ms": now, "expires_ms": now + round(hours * 3_600_000)}
        connection.execute(insert(schema.enrolment_tokens).values(**row, **times))
        audit.append(connection, "command-line", "enrolment-code", device, f"{hours:g} h")
    authority = Authority(config.state, config.name)
    host = f"[{config.public_host}]" if ":" in config.public_host else config.public_host
    return str(wire.Code(f"https://{host}:{config.enrolment_port}", token, wire.fingerprint(authority.certificate)))


class Registrar:
    """Answers devices. Used by the HTTPS application, and by tests without it."""

    def __init__(self, config: HubConfig, database: Database) -> None:
        self._config, self._database = config, database
        self.authority = Authority(config.state, config.name)

    def enroll(self, request: wire.EnrolmentRequest) -> wire.EnrolmentAnswer:
        """Certify a device that brings a token.

        The same call again from the same keys is answered again: the first answer may have been lost on the way.

        Raises
        ------
        EnrolmentError
            The token is unknown, used by another key, too old or for another device; a signature is wrong.
        """
        public, key = _proven(request)
        tokens, devices = schema.enrolment_tokens, schema.devices
        now = now_ms()
        with self._database.write() as connection:
            chosen = select(tokens).where(tokens.c.token_hash == _hash(request.token)).with_for_update()
            token = connection.execute(chosen).one_or_none()
            if token is None or token.device != request.device:
                raise _refused(request.device, "the code is not for this device, or not of this hub")
            if token.used_by is not None and bytes(token.used_by) != _key_hash(key):
                raise _refused(request.device, "the code was used already")
            if token.used_by is None and token.expires_ms < now:
                raise _refused(request.device, "the code is too old")
            known = connection.execute(select(devices).where(devices.c.name == request.device)).one_or_none()
            if known is not None and (bytes(known.public_key) != public or known.revoked_ms) and token.used_by is None:
                audit.append(connection, "hub", "device-replaced", request.device, public.hex())
                self._revoke(connection, request.device, now)
            values = {"public_key": public, "clinic": token.clinic, "revoked_ms": None, "previous_key": None}
            if known is None:
                connection.execute(insert(devices).values(name=request.device, enrolled_ms=now, **values))
            elif token.used_by is None:
                index.enrolled_again(connection, known, public, token.clinic, now)
                connection.execute(update(devices).where(devices.c.name == request.device).values(**values))
            used = update(tokens).where(tokens.c.token_hash == token.token_hash)
            connection.execute(used.values(used_by=_key_hash(key), used_ms=now))
            return self._certify(connection, request.device, key, now, "enrolled")

    def renew(self, request: wire.EnrolmentRequest) -> wire.EnrolmentAnswer:
        """A new certificate for the key of an old one, which may have expired.

        Raises
        ------
        EnrolmentError
            It is not ours, was revoked, or is of another key or device; a signature is wrong.
        """
        public, key = _proven(request)
        try:
            old = x509.load_pem_x509_certificate(request.certificate.encode())
        except ValueError:
            raise _refused(request.device, "its old certificate cannot be read") from None
        if not self.authority.issued(old) or _common_name(old.subject) != request.device:
            raise _refused(request.device, "its old certificate is not of this hub, or of another device")
        if _spki(old.public_key()) != _spki(key):  # type: ignore[arg-type]
            raise _refused(request.device, "it does not hold the key of its old certificate")
        certificates, devices = schema.certificates, schema.devices
        with self._database.write() as connection:
            row = connection.execute(select(devices).where(devices.c.name == request.device)).one_or_none()
            known = row is not None and public in (bytes(row.public_key), identity.previous_key(row, now_ms()))
            if row is None or row.revoked_ms or not known:
                raise _refused(request.device, "this device was revoked")
            serial = format(old.serial_number, "x")
            found = connection.execute(select(certificates).where(certificates.c.serial == serial)).one_or_none()
            if found is None or found.revoked_ms:
                raise _refused(request.device, "its old certificate was revoked")
            return self._certify(connection, request.device, key, now_ms(), "certificate-renewed")

    def change_identity(self, request: wire.IdentityRequest) -> wire.IdentityAnswer:
        """From now on the device signs with another key. What it signed with the one before is taken for 90 days: it
        may be on its way, or on a stick. The same call again is answered again.

        Raises
        ------
        EnrolmentError
            A signature is wrong; the device was revoked, or has another key.
        """
        old, new = _proven_change(request)
        table, now = schema.devices, now_ms()
        with self._database.write() as connection:
            this = table.c.name == request.device
            row = connection.execute(select(table).where(this).with_for_update()).one_or_none()
            if row is None or row.revoked_ms:
                raise _refused(request.device, "this device was revoked")
            if bytes(row.public_key) == new and identity.previous_key(row, now) == old:
                return wire.IdentityAnswer(public_key=new.hex())
            if bytes(row.public_key) != old:
                raise _refused(request.device, "it has another key than the one that is to be changed")
            values = {"public_key": new, "previous_key": old, "previous_until_ms": now + _PREVIOUS_KEY_MS}
            connection.execute(update(table).where(this).values(**values))
            audit.append(connection, request.device, "key-changed", request.device, f"{old.hex()} to {new.hex()}")
        return wire.IdentityAnswer(public_key=new.hex())

    def halted_updates(self) -> list[tuple[str, str]]:
        """What devices must not take now."""
        with self._database.read() as connection:
            return updates.halted(connection)

    def note_refusal(self, error: EnrolmentError) -> None:
        """Writes a refusal to the audit log."""
        with self._database.write() as connection:
            audit.append(connection, "hub", "enrolment-refused", error.target[:64], error.cause)

    def _certify(
        self, connection: Connection, device: str, key: ec.EllipticCurvePublicKey, now: int, action: str
    ) -> wire.EnrolmentAnswer:
        made = self.authority.device(device, key, now)
        serial = format(made.serial_number, "x")
        ends = round(made.not_valid_after_utc.timestamp() * 1000)
        row = {"serial": serial, "device": device, "key_hash": _key_hash(key), "issued_ms": now, "not_after_ms": ends}
        connection.execute(insert(schema.certificates).values(**row))
        audit.append(connection, device, action, device, serial)
        config = self._config
        return wire.EnrolmentAnswer(
            certificate=made.public_bytes(Encoding.PEM).decode(),
            hub_name=config.name,
            hub_key=identity.public_key(config.state).hex(),
            broker_host=config.public_host,
            broker_port=config.public_broker_port,
            now_ms=now,
        )

    @staticmethod
    def _revoke(connection: Connection, device: str, now: int) -> None:
        table = schema.certificates
        connection.execute(
            update(table).where(table.c.device == device, table.c.revoked_ms.is_(None)).values(revoked_ms=now)
        )


def create_app(registrar: Registrar, updates_dir: str = "") -> Starlette:
    """The application of the enrolment port: its addresses, signed updates, and nothing of patients behind any."""

    async def authority(_: Request) -> Response:
        return Response(registrar.authority.pem, media_type="application/x-pem-file")

    async def halted(_: Request) -> Response:
        found = await run_in_threadpool(registrar.halted_updates)
        return Response(msgspec.json.encode({"halted": found}), media_type="application/json")

    async def answer(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                return PlainTextResponse("the request is too long", 413)
        kind, work = answers[request.url.path]
        try:
            asked = msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, RecursionError):
            return PlainTextResponse("the request cannot be read", 400)
        try:
            done = await run_in_threadpool(work, asked)
        except EnrolmentError as error:
            _log.warning("%s", error)
            await run_in_threadpool(registrar.note_refusal, error)
            return PlainTextResponse(error.cause, 403)
        return Response(msgspec.json.encode(done), media_type="application/json")

    answers: dict[str, tuple[type[msgspec.Struct], Callable[[Any], msgspec.Struct]]] = {
        "/enrolment/1": (wire.EnrolmentRequest, registrar.enroll),
        "/renewal/1": (wire.EnrolmentRequest, registrar.renew),
        "/identity/1": (wire.IdentityRequest, registrar.change_identity),
    }
    routes: list[BaseRoute] = [
        Route("/authority", authority),
        *(Route(path, answer, methods=["POST"]) for path in answers),
        Route("/updates/halted.json", halted),
    ]
    # the two folders that are for everybody: whatever else lies beside them, keys for one, is not served
    for part in ("metadata", "targets") if updates_dir else ():
        routes.append(Mount(f"/updates/{part}", StaticFiles(directory=Path(updates_dir) / part, check_dir=False)))
    return Starlette(routes=routes)


def server_pair(config: HubConfig, authority: Authority) -> tuple[Path, Path]:
    """Certificate and key of the HTTPS port, made anew at each start."""
    authority.write_pair(config.state, "enrolment", config.public_host, now_ms(), [config.public_host])
    return config.state / "enrolment.pem", config.state / "enrolment.key"


def revoked_serials(connection: Connection) -> list[int]:
    """Serial numbers that the broker must refuse: revoked, or of a device that was."""
    table, devices = schema.certificates, schema.devices
    query = select(table.c.serial).join(devices, devices.c.name == table.c.device)
    rows = connection.execute(query.where(table.c.revoked_ms.is_not(None) | devices.c.revoked_ms.is_not(None)))
    return [int(serial, 16) for serial in rows.scalars()]


def _proven(request: wire.EnrolmentRequest) -> tuple[bytes, ec.EllipticCurvePublicKey]:
    """The two keys of a request, both proven: the identity's signature stands over the request for the TLS key."""
    device = request.device if is_device_name(request.device) else "(no name)"
    try:
        public, signature = bytes.fromhex(request.public_key), bytes.fromhex(request.signature)
        csr = x509.load_pem_x509_csr(request.csr.encode())
        key = csr.public_key()
        identity.device_key(public, device).verify(signature, wire.signed_part(request.csr.encode(), request.token))
    except (ValueError, UsageError, InvalidSignature, UnsupportedAlgorithm):
        raise _refused(device, "its keys or signature cannot be read") from None
    if not csr.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise _refused(device, "its request is not signed by a P-256 key")
    if device != request.device or _common_name(csr.subject) != device:
        raise _refused(device, "its request names another device")
    return public, key


def _proven_change(request: wire.IdentityRequest) -> tuple[bytes, bytes]:
    """The two keys of a change, each proven by its own signature over both."""
    device = request.device if is_device_name(request.device) else "(no name)"
    try:
        old, new = bytes.fromhex(request.old_key), bytes.fromhex(request.new_key)
        said = wire.changed_part(request.device, old, new)
        identity.device_key(old, device).verify(bytes.fromhex(request.old_signature), said)
        identity.device_key(new, device).verify(bytes.fromhex(request.new_signature), said)
    except (ValueError, UsageError, InvalidSignature):
        raise _refused(device, "its keys or signatures cannot be read") from None
    if device != request.device or old == new:
        raise _refused(device, "that is no change of its key")
    return old, new


def _common_name(name: x509.Name) -> str:
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(values[0].value) if len(values) == 1 else ""


def _spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_hash(key: ec.EllipticCurvePublicKey) -> bytes:
    return hashlib.sha256(_spki(key)).digest()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _refused(device: str, cause: str) -> EnrolmentError:
    return EnrolmentError(operation="enrolling a device", target=device, cause=cause, remedy="Make a new code.")


def _usage(target: str, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="making an enrolment code", target=target, cause=cause, remedy=remedy)
