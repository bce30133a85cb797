"""Compression of a message's payload: zstd as it is, or with a dictionary that ships with this package."""

from __future__ import annotations

import functools
import importlib.resources
import threading

import zstandard

from aidpost.errors import EnvelopeError

PLAIN = 0
ZSTD = 1
ZSTD_WIRE = 2
"""With `wire.zdict`, made by training/wire_dictionary.py of simulated exams. Another dictionary is another codec."""

_LEVEL = 6
_WORTH_IT = 96
"""Bytes under which zstd's frame costs more than it saves."""


@functools.cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    data = importlib.resources.files("aidpost.sync").joinpath("wire.zdict").read_bytes()
    made = zstandard.ZstdCompressionDict(data)
    # digested once: else each small message would pay for the whole dictionary
    made.precompute_compress(level=_LEVEL)
    return made


_own = threading.local()


def _compressor(codec: int) -> zstandard.ZstdCompressor:
    """This thread's: making one costs more than compressing a small message, and two threads may not share one."""
    made: zstandard.ZstdCompressor | None = getattr(_own, str(codec), None)
    if made is None:
        # which dictionary it was, the codec says: the frame need not
        parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, write_checksum=False, write_dict_id=False)
        trained = _dictionary() if codec == ZSTD_WIRE else None
        made = zstandard.ZstdCompressor(compression_params=parameters, dict_data=trained)
        setattr(_own, str(codec), made)
    return made


def compress(plain: bytes, *, dictionary: bool = True) -> tuple[int, bytes]:
    """(codec, payload): the smaller of the plain and the compressed bytes.

    Parameters
    ----------
    dictionary
        With `wire.zdict`, which gains most where messages are small.
    """
    if len(plain) < _WORTH_IT:
        return PLAIN, plain
    codec = ZSTD_WIRE if dictionary else ZSTD
    packed = _compressor(codec).compress(plain)
    return (codec, packed) if len(packed) < len(plain) else (PLAIN, plain)


def decompress(codec: int, payload: bytes, limit: int, sender: str) -> bytes:
    """The plain bytes of a payload, at most `limit`.

    Raises
    ------
    EnvelopeError
        Unknown codec, damaged, or larger than `limit`: the size is read from the frame before any memory is taken.
    """
    if codec == PLAIN:
        return payload
    if codec not in (ZSTD, ZSTD_WIRE):
        raise _refused(sender, f"codec {codec} is not known", "Update this side.")
    try:
        size = zstandard.frame_content_size(payload)
        if not 0 <= size <= limit:
            raise _refused(sender, f"its content would have {size} bytes, the most is {limit}")
        dictionary = _dictionary() if codec == ZSTD_WIRE else None
        return zstandard.ZstdDecompressor(dict_data=dictionary).decompress(payload, max_output_size=size)
    except zstandard.ZstdError as error:
        raise _refused(sender, f"damaged: {error}") from None


def _refused(sender: str, cause: str, remedy: str = "") -> EnvelopeError:
    return EnvelopeError(operation="unpacking a message", target=f"message of {sender}", cause=cause, remedy=remedy)
