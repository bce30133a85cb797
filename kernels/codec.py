"""Lossless compression of recorded waveforms, for the store and the wire.

An ECG is predicted sample by sample with eight adaptive taps (normalised LMS on first differences, integer), seven on
the lead's own past and one on another lead's present; the residuals are coded with range asymmetric numeral systems
(rANS; Duda 2013) under probability tables chosen by how large the last residuals were. Leads that follow from two
others (Einthoven's III = II - I, Goldberger's aVR, aVL, aVF) cost almost nothing. Integers throughout: every board
decodes what any other encoded; `reference_codec` says the same in plain Python.

A stream is a row of frames, each whole in itself, little-endian::

    0   3  magic "APW"         3  1  version, 1
    4   1  leads, 1..255       5  1  flags: bit 0, the last frame of its stream
    6   2  samples per lead    8  3  length of the body
    11  6  number of the frame's first sample in the recording
    17  .  body: for each lead
           1  derivation: 0, or 1 + 6 (sa + 1) + 2 (sb + 1) + h and two bytes a, b:
              (sa lead[a] + sb lead[b]) >> h is added
           1  form: 0 raw (int32 samples), 1 constant (int32), 2 predicted:
              reference lead (255: none), shift, rate, first sample of either half (4, 4), start weights (8),
              lengths of both streams (3, 3), the rANS stream and the stream of bits sent as they are
    .   4  CRC-32 of everything before it
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidpost.errors import UnreadableInputError
from aidpost.kernels import _codec

VERSION = 1
MAX_LEADS = 255
MAX_FRAME = 16384
"""Samples per lead in a frame, at most: with the smallest body, what a byte of input may make a decoder allocate."""

FRAME_SAMPLES = 8192

_MAGIC = b"APW\x01"
_HEADER = struct.Struct("<4sBBH3sHI")
_LAST = 1
_OPERATION = "decoding the waveform"


@dataclass(frozen=True, eq=False)
class DecodedStream:
    """What could be read of a stream.

    `samples`: int32 (leads, n), the whole frames one after another; `spans`: which samples of the recording these
    are, as (first, stop); `missing`: which are not there, in between or before; `error`: what was wrong, None if
    nothing.
    """

    samples: NDArray[np.int32]
    spans: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...]
    error: str | None


class _Frame(NamedTuple):
    leads: int
    last: bool
    first: int
    n: int
    body: memoryview
    stop: int


def encode(
    samples: ArrayLike, *, first_sample: int = 0, last: bool = True, frame_samples: int = FRAME_SAMPLES
) -> bytes:
    """Encode integer samples, (leads, n) or (n,), of int16, int32 or any integer type whose values fit int32.

    A recording that is still going on is encoded a piece at a time, the pieces' bytes appended to one another:
    `first_sample` is where the piece starts, `last` whether the recording ends with it. No samples is a frame of none.

    Raises
    ------
    ValueError
        Not integers that fit int32, more than 255 leads or none, or a frame size outside 1..16384.
    """
    data = _as_int32(samples)
    leads, n = data.shape
    if not (1 <= leads <= MAX_LEADS and 1 <= frame_samples <= MAX_FRAME and 0 <= first_sample < 1 << 48):
        raise ValueError(f"cannot encode {leads} leads in frames of {frame_samples} from sample {first_sample}")
    frames = max(1, round(n / frame_samples), -(-n // MAX_FRAME))
    bounds = [n * i // frames for i in range(frames + 1)]
    derivation = np.zeros((leads, 3), np.uint8)
    if n >= 32:
        _codec.derive(data, derivation)
    weights, rates = np.zeros((leads, 8), np.int8), np.zeros(leads, np.uint8)
    scratch = np.empty(leads * (4 * (bounds[1] + 1) + 64), np.uint8)
    parts: list[bytes] = []
    for i, (start, stop) in enumerate(pairwise(bounds)):
        size = 0
        if stop > start:
            size = _codec.encode_body(data, start, stop - start, derivation, i == 0, weights, rates, scratch)
        flags = _LAST if last and i == frames - 1 else 0
        number = first_sample + start
        header = _HEADER.pack(
            _MAGIC, leads, flags, stop - start, size.to_bytes(3, "little"), number & 0xFFFF, number >> 16
        )
        body = scratch[:size].tobytes()
        parts += [header, body, zlib.crc32(body, zlib.crc32(header)).to_bytes(4, "little")]
    return b"".join(parts)


def decode(data: bytes) -> NDArray[np.int32]:
    """All samples, int32 (leads, n), of a stream that must be whole.

    Raises
    ------
    UnreadableInputError
        Anything is missing or damaged. `decode_frames` gives what is left.
    """
    stream = decode_frames(data)
    if stream.error is not None:
        raise UnreadableInputError(
            operation=_OPERATION,
            target="recording",
            cause=stream.error,
            remedy="Ask for it again where it came from; what is whole of it can still be read.",
        )
    return stream.samples


def decode_frames(data: bytes) -> DecodedStream:
    """Every whole frame of a stream, however damaged; never raises on any bytes.

    Memory is at most 16384 samples for the smallest possible lead of a frame, seven bytes.
    """
    frames, error = _collect(data)
    total = sum(frame.n for frame in frames)
    samples = np.empty((frames[0].leads if frames else 0, total), np.int32)
    spans: list[tuple[int, int]] = []
    missing: list[tuple[int, int]] = []
    at, expected = 0, None
    for frame in frames:
        if frame.n and not _codec.decode_body(frame.body, samples, at, frame.n):
            error = error or f"the frame of sample {frame.first} has a good checksum but is not a frame of ours"
            continue
        if expected is not None and frame.first > expected:
            missing.append((expected, frame.first))
        if spans and spans[-1][1] == frame.first:
            spans[-1] = (spans[-1][0], frame.first + frame.n)
        elif frame.n:
            spans.append((frame.first, frame.first + frame.n))
        at += frame.n
        expected = frame.first + frame.n
    if missing and error is None:
        error = f"samples {missing[0][0]} to {missing[0][1]} are missing"
    return DecodedStream(samples[:, :at], tuple(spans), tuple(missing), error)


def _collect(data: bytes) -> tuple[list[_Frame], str | None]:
    """Frames with a good checksum, in order, of one recording; and the first thing that was wrong."""
    frames: list[_Frame] = []
    errors: list[str] = []
    stop = 0
    for frame in _scan(data):
        if frame.stop - frame.body.nbytes - _HEADER.size - 4 > stop:
            errors.append(f"bytes {stop} to {frame.stop - frame.body.nbytes - _HEADER.size - 4} are damaged")
        stop = frame.stop
        if frames and (frame.leads != frames[0].leads or frame.first < frames[-1].first + frames[-1].n):
            errors.append(f"the frame of sample {frame.first} belongs to another recording")
            continue
        frames.append(frame)
    if stop < len(data):
        errors.append(f"bytes {stop} to {len(data)} are cut off or damaged")
    if not data:
        errors.append("there are no bytes")
    elif not (frames and frames[-1].last):
        errors.append("the last frame is missing")
    return frames, errors[0] if errors else None


def _scan(data: bytes) -> Iterator[_Frame]:
    """Frames whose checksum is good, wherever they are. Bytes checked in vain are limited, so that time stays
    linear."""
    view, at, patience = memoryview(data), 0, 4 * len(data) + (1 << 20)
    while (at := data.find(_MAGIC, at)) >= 0 and patience > 0:
        if at + _HEADER.size + 4 > len(data):
            return
        _, leads, flags, n, length, low, high = _HEADER.unpack_from(data, at)
        body = at + _HEADER.size
        end = body + int.from_bytes(length, "little")
        plausible = leads >= 1 and n <= MAX_FRAME and end + 4 <= len(data) and end - body >= (6 * leads if n else 0)
        if plausible:
            if zlib.crc32(view[at:end]) == int.from_bytes(data[end : end + 4], "little"):
                yield _Frame(leads, bool(flags & _LAST), low | high << 16, n, view[body:end], end + 4)
                at = end + 4
                continue
            patience -= end - at
        at += 1


def _as_int32(samples: ArrayLike) -> NDArray[np.int32]:
    given = np.asarray(samples)
    if given.ndim not in (1, 2) or given.dtype.kind not in "iu":
        raise ValueError(f"expected integer samples (leads, n) or (n,), got {given.dtype} {given.shape}")
    data = np.ascontiguousarray(np.atleast_2d(given), np.int32)
    if not np.can_cast(given.dtype, np.int32) and not np.array_equal(data, np.atleast_2d(given)):
        raise ValueError("samples do not fit 32 bits")
    return data
