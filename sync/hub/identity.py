"""The hub's own signing key: made at the first start, kept in the state folder, readable by its owner alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aidpost.errors import KeyUnavailableError, UsageError

_FILE = "hub.key"


def signing_key(state: Path) -> Ed25519PrivateKey:
    """The hub's Ed25519 key, made if there is none.

    Raises
    ------
    KeyUnavailableError
        The file is there and cannot be read, or is not a key.
    """
    path = state / _FILE
    try:
        if not path.exists():
            _make(path)
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyUnavailableError(
            operation="reading the hub's key",
            target=str(path),
            cause=str(error),
            remedy="Restore it from the backup; with another key, every device must be told the hub's new one.",
        ) from None


def public_key(state: Path) -> bytes:
    """The 32 bytes that devices are given when they are enrolled."""
    return signing_key(state).public_key().public_bytes_raw()


def device_key(raw: bytes, device: str) -> Ed25519PublicKey:
    """A device's public key from its 32 bytes.

    Raises
    ------
    UsageError
        They are not a key.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise UsageError(
            operation="reading a device's public key",
            target=device,
            cause=str(error),
            remedy="Copy the key again from the device: 32 bytes.",
        ) from None


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Ed25519PrivateKey.generate().private_bytes_raw())
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(temporary)  # unlike a rename, never replaces the key that another process has just made
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def previous_key(row: Any, now: int) -> bytes | None:
    """The key that a device had before its present one, while what it signed with that is taken."""
    return bytes(row.previous_key) if row.previous_key and row.previous_until_ms > now else None
