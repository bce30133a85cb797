"""Sealing at rest: AES-256-GCM for record bodies, and for files in segments that can be opened one by one.

A sealed value is nonce (12 bytes) and ciphertext with tag. What it belongs to goes in as associated data, so that a
sealed body moved to another row, or a segment to another file or place, does not open.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
SEGMENT = 64 * 1024
"""Plain bytes of a file's segment."""

_NONCE = 12
_OVERHEAD = 16
_MAGIC = b"AIDSEAL1"
_HEADER = len(_MAGIC) + 8


class SealBrokenError(Exception):
    """Wrong key, wrong place, or damaged. Raised inside sync only; its callers say what it means there."""


def new_key() -> bytes:
    """A fresh 256-bit key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, plain: bytes, belongs_to: bytes) -> bytes:
    """`plain` under `key`, bound to `belongs_to`. A random nonce is safe for 2**32 values a key."""
    return sealer(key)(plain, belongs_to)


def sealer(key: bytes) -> Callable[[bytes, bytes], bytes]:
    """`seal` with one key for many values."""
    cipher = AESGCM(key)

    def sealed(plain: bytes, belongs_to: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + cipher.encrypt(nonce, plain, belongs_to)

    return sealed


def unseal(key: bytes, sealed: bytes, belongs_to: bytes) -> bytes:
    """The plain bytes again.

    Raises
    ------
    SealBrokenError
        They cannot be had.
    """
    return opener(key)(sealed, belongs_to)


def opener(key: bytes) -> Callable[[bytes, bytes], bytes]:
    """`unseal` with one key for many values."""
    cipher = AESGCM(key)

    def opened(sealed: bytes, belongs_to: bytes) -> bytes:
        try:
            return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], belongs_to)
        except (InvalidTag, ValueError):
            raise SealBrokenError from None

    return opened


def seal_file(key: bytes, plain: bytes, belongs_to: bytes) -> Iterator[bytes]:
    """The pieces of a sealed file: a header with 8 random bytes, then the segments, each with its tag."""
    prefix = os.urandom(8)
    yield _MAGIC + prefix
    cipher = AESGCM(key)
    for index, start in enumerate(range(0, len(plain), SEGMENT)):
        yield cipher.encrypt(_nonce(prefix, index), plain[start : start + SEGMENT], belongs_to)


def sealed_file_size(size: int) -> int:
    """Bytes on disk of a sealed file with `size` plain bytes."""
    return _HEADER + size + _OVERHEAD * -(-size // SEGMENT)


def unseal_segment(key: bytes, file: int, index: int, belongs_to: bytes) -> bytes:
    """Plain bytes of segment `index` of the open file descriptor `file`; b"" behind the end.

    Raises
    ------
    SealBrokenError
        The segment is cut off, damaged or not of this file.
    """
    header = os.pread(file, _HEADER, 0)
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise SealBrokenError
    step = SEGMENT + _OVERHEAD
    sealed = os.pread(file, step, _HEADER + index * step)
    if not sealed:
        return b""
    try:
        return AESGCM(key).decrypt(_nonce(header[len(_MAGIC) :], index), sealed, belongs_to)
    except (InvalidTag, ValueError):
        raise SealBrokenError from None


def _nonce(prefix: bytes, index: int) -> bytes:
    return prefix + struct.pack(">I", index)
