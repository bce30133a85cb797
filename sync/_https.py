"""HTTPS to the hub's enrolment port, by the hub's own authority and nobody else's."""

from __future__ import annotations

import http.client
import logging
import ssl
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from cryptography import x509

from aidpost.errors import EnrolmentError

A = TypeVar("A", bound=msgspec.Struct)
Context = ssl.SSLContext

_log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_MOST_BYTES = 64 * 1024
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME."""


def context(authority: Path, *, synced: bool) -> Context:
    """TLS that believes this authority alone.

    Where nobody has set the clock, as on a board without a battery, the dates in certificates are not checked: all the
    rest is, and the caller must still hold the peer's against `require_recent`. It is logged each time.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(authority)
    if not synced:
        _log.warning("the clock was not set since the start: certificates are checked without their dates")
        made.verify_flags = ssl.VerifyFlags(int(made.verify_flags) | _NO_CHECK_TIME)
    return made


def require_recent(certificate: object, known_ms: int) -> None:
    """Refuses a peer's certificate, as `getpeercert` gives it, that had ended by `known_ms` of Unix time."""
    ends = certificate.get("notAfter") if isinstance(certificate, dict) else None
    if not isinstance(ends, str) or ssl.cert_time_to_seconds(ends) * 1000 < known_ms:
        raise _failed("the hub", f"its certificate ended on {ends}", "Renew it on the hub, or set this device's clock.")


def fetch_authority(url: str) -> x509.Certificate:
    """The certificate of whoever answers there: not to be believed before its fingerprint was compared.

    Raises
    ------
    EnrolmentError
        Nobody answers, or it is no hub.
    """
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    body = _exchange(url, "GET", "/authority", b"", unverified, None)
    try:
        return x509.load_pem_x509_certificate(body)
    except ValueError as error:
        raise _failed(url, str(error), "Check the code's address: this is no hub.") from None


def post(url: str, request: msgspec.Struct, authority: Path, kind: type[A], *, synced: bool, known_ms: int = 0) -> A:
    """Send a request as JSON and read the answer.

    Raises
    ------
    EnrolmentError
        With the hub's own words where it refuses.
    """
    split = urlsplit(url)
    origin = f"https://{split.netloc}"
    known = None if synced else known_ms
    body = _exchange(origin, "POST", split.path, msgspec.json.encode(request), context(authority, synced=synced), known)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise _failed(url, str(error), "Update this device, or the hub.") from None


def _exchange(url: str, method: str, path: str, body: bytes, tls: Context, known_ms: int | None) -> bytes:
    split = urlsplit(url)
    connection = http.client.HTTPSConnection(split.hostname or "", split.port or 443, context=tls, timeout=_TIMEOUT_S)
    try:
        connection.connect()
        if known_ms is not None:
            require_recent(connection.sock.getpeercert(), known_ms)
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        content = answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "verify_message", "") or str(error) or type(error).__name__
        raise _failed(url, cause, "Check the network and that the hub runs; then try again.") from None
    finally:
        connection.close()
    if answer.status != 200:
        cause = content.decode("utf-8", "replace")[:300] or f"HTTP {answer.status}"
        raise _failed(url, cause, "Ask whoever runs the hub, with this message.")
    return content


def _failed(target: str, cause: str, remedy: str) -> EnrolmentError:
    return EnrolmentError(operation="asking the hub for a certificate", target=target, cause=cause, remedy=remedy)
