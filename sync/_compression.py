"""Compression of a message's payload: zstd as it is, or with a dictionary that ships with this package."""

from __future__ import annotations

import zstandard

from aidpost.errors import EnvelopeError

PLAIN = 0
ZSTD = 1

_LEVEL = 6
_WORTH_IT = 96
"""Bytes under which zstd's frame costs more than it saves."""


def compress(plain: bytes) -> tuple[int, bytes]:
    """(codec, payload): the smaller of the plain and the compressed bytes."""
    if len(plain) < _WORTH_IT:
        return PLAIN, plain
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(plain)
    return (ZSTD, packed) if len(packed) < len(plain) else (PLAIN, plain)


def decompress(codec: int, payload: bytes, limit: int, sender: str) -> bytes:
    """The plain bytes of a payload, at most `limit`.

    Raises
    ------
    EnvelopeError
        Unknown codec, damaged, or larger than `limit`: the size is read from the frame before any memory is taken.
    """
    if codec == PLAIN:
        return payload
    if codec != ZSTD:
        raise _refused(sender, f"codec {codec} is not known", "Update this side.")
    try:
        size = zstandard.frame_content_size(payload)
        if not 0 <= size <= limit:
            raise _refused(sender, f"its content would have {size} bytes, the most is {limit}")
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=size)
    except zstandard.ZstdError as error:
        raise _refused(sender, f"damaged: {error}") from None


def _refused(sender: str, cause: str, remedy: str = "") -> EnvelopeError:
    return EnvelopeError(operation="unpacking a message", target=f"message of {sender}", cause=cause, remedy=remedy)
