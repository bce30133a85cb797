"""Whether somebody we trust made this file: Ed25519, as minisign writes it (with BLAKE2b-512) or as `openssl pkeyutl
-rawin` does (64 bytes over the file itself). The format of minisign: https://jedisct1.github.io/minisign/."""

from __future__ import annotations

import base64
import binascii
import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from aidpost.errors import UnreadableInputError, UsageError

_PREHASHED, _LEGACY = b"ED", b"Ed"


@dataclass(frozen=True)
class TrustedKey:
    """A public key, and the minisign key number where it has one."""

    key: Ed25519PublicKey
    number: bytes = b""


def trusted_key(given: str) -> TrustedKey:
    """The key from a file (PEM, minisign's `.pub`), a minisign key line, or 64 hexadecimal digits.

    Raises
    ------
    UsageError
        It is none of these.
    """
    try:
        content = Path(given).read_text(encoding="utf-8") if Path(given).is_file() else given
        if "BEGIN PUBLIC KEY" in content:
            key = load_pem_public_key(content.encode())
            if isinstance(key, Ed25519PublicKey):
                return TrustedKey(key)
            raise ValueError("another kind of key than Ed25519")
        line = content.strip().splitlines()[-1].strip()
        if len(line) == 64:
            return TrustedKey(Ed25519PublicKey.from_public_bytes(bytes.fromhex(line)))
        raw = base64.b64decode(line, validate=True)
        if len(raw) != 42 or raw[:2] != _LEGACY:
            raise ValueError("not a minisign public key")
        return TrustedKey(Ed25519PublicKey.from_public_bytes(raw[10:]), raw[2:10])
    except (ValueError, IndexError, OSError) as error:
        raise UsageError(
            operation="reading the trusted key",
            target=given[:80],
            cause=str(error) or "it is empty",
            remedy="Give minisign's .pub file, an Ed25519 public key as PEM, or its 64 hexadecimal digits.",
        ) from None


def check_signature(path: Path, signature: Path, trusted: TrustedKey) -> None:
    """Return if `signature` is `trusted`'s for the file at `path`; the file is read once, and never held in memory.

    Raises
    ------
    UnreadableInputError
        The signature is another key's, damaged, or the file is not what was signed.
    """
    try:
        content = signature.read_bytes()
        if len(content) == 64:
            _verify_whole(path, content, trusted.key)
        else:
            _verify_minisign(path, content, trusted)
    except (InvalidSignature, ValueError, IndexError, OSError) as error:
        cause = "the file is not what was signed" if isinstance(error, InvalidSignature) else str(error)
        raise UnreadableInputError(
            operation="checking the signature",
            target=str(path),
            cause=cause,
            remedy="Do not use this file. Get it, its signature and the key again from where it is published.",
        ) from None


def _verify_minisign(path: Path, content: bytes, trusted: TrustedKey) -> None:
    lines = content.decode().splitlines()
    try:
        raw = base64.b64decode(lines[1], validate=True)
        trusted_comment, overall = lines[2].partition("trusted comment: ")[2], base64.b64decode(lines[3], validate=True)
    except (IndexError, binascii.Error):
        raise ValueError("the signature file is neither minisign's nor 64 bytes of Ed25519") from None
    method, number, made = raw[:2], raw[2:10], raw[10:]
    if trusted.number and number != trusted.number:
        raise ValueError(f"it was signed with key {number[::-1].hex()}, not with {trusted.number[::-1].hex()}")
    if method == _PREHASHED:
        trusted.key.verify(made, _blake2b(path))
    elif method == _LEGACY:
        _verify_whole(path, made, trusted.key)
    else:
        raise ValueError("a kind of minisign signature that is not known")
    trusted.key.verify(overall, made + trusted_comment.encode())


def _blake2b(path: Path) -> bytes:
    state = hashlib.blake2b()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.digest()


def _verify_whole(path: Path, made: bytes, key: Ed25519PublicKey) -> None:
    if path.stat().st_size == 0:
        key.verify(made, b"")
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
        memoryview(whole) as view,
    ):
        key.verify(made, view)
