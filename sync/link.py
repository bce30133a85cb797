"""Which broker and which hub a device sends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from aidpost.sync.enrolment import Enrolled


@dataclass(frozen=True)
class Link:
    """The broker, and the hub behind it.

    `hub_key` is the hub's public key, by which receipts are known to be its; `tls` names (authority, certificate, key)
    files, the last two empty where the broker asks for none. A device that was enrolled has `enrolled` instead, which
    renews itself.
    """

    host: str
    port: int
    hub_name: str
    hub_key: Ed25519PublicKey
    username: str = ""
    password: str = ""
    tls: tuple[str, str, str] | None = None
    enrolled: Enrolled | None = None
    keepalive_s: int = 30
    window_records: int = 64
    window_bytes: int = 32 * 1024
    backlog_bytes_s: int = 512_000
