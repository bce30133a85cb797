"""WFDB records (PhysioNet's format): a text header `.hea` and binary signal files.

The sample formats are those of signal(5) in the WFDB Applications Guide, except the FLAC-compressed ones. A sample
that is the format's most negative number means "no sample was recorded", and is reported as such.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aidpost.errors import UnreadableInputError
from aidpost.firmware_bridge.formats._wfdb_header import Header, SignalSpec, parse_header, unsupported
from aidpost.firmware_bridge.formats.wave import MILLIVOLT, Counts, Wave, is_ecg_label, unique_names, unreadable

MAX_HEADER_BYTES = 1 << 20

Octets = npt.NDArray[np.uint8]
Samples = npt.NDArray[Any]  # of whatever integer type holds the format


def _format_8(raw: Octets, count: int) -> Samples:
    return raw[:count].view(np.int8)  # first differences: summed by the caller, signal by signal


def _format_16(raw: Octets, count: int) -> Samples:
    return raw[: 2 * count].view("<i2")


def _format_61(raw: Octets, count: int) -> Samples:
    return raw[: 2 * count].view(">i2")


def _format_24(raw: Octets, count: int) -> Samples:
    words = np.zeros((count, 4), np.uint8)
    words[:, 1:] = raw[: 3 * count].reshape(-1, 3)
    return words.view("<i4").reshape(-1) >> 8


def _format_32(raw: Octets, count: int) -> Samples:
    return raw[: 4 * count].view("<i4")


def _format_80(raw: Octets, count: int) -> Samples:
    return raw[:count].astype(np.int16) - 128


def _format_160(raw: Octets, count: int) -> Samples:
    return (raw[: 2 * count].view("<u2") ^ 0x8000).view("<i2")


def _format_212(raw: Octets, count: int) -> Samples:
    """Two 12-bit samples in three bytes, each put into the high bits of 16 and shifted down, sign and all."""
    pairs = -(-count // 2)
    octets = np.zeros(3 * pairs, np.uint8)  # an odd last sample has only two of its three bytes in the file
    octets[: min(len(raw), 3 * pairs)] = raw[: 3 * pairs]
    first, middle, last = octets[0::3], octets[1::3], octets[2::3]
    out = np.empty((pairs, 2, 2), np.uint8)
    out[:, 0, 0] = first << 4
    out[:, 0, 1] = middle << 4 | first >> 4
    out[:, 1, 0] = last << 4
    out[:, 1, 1] = middle & 0xF0 | last >> 4
    return out.view("<i2").reshape(-1)[:count] >> 4


def _padded_words(raw: Octets, count: int, dtype: str) -> Samples:
    """Groups of three samples in four bytes, as words of `dtype` in int32; a cut last group is filled with zeros."""
    octets = np.zeros(4 * -(-count // 3), np.uint8)
    octets[: min(len(raw), len(octets))] = raw[: len(octets)]
    return octets.view(dtype).astype(np.int32)


def _format_310(raw: Octets, count: int) -> Samples:
    words = _padded_words(raw, count, "<u2").reshape(-1, 2)
    third = words[:, 0] >> 11 | (words[:, 1] >> 11) << 5
    out = np.stack([words[:, 0] >> 1, words[:, 1] >> 1, third], axis=1)
    return out.reshape(-1)[:count] << 22 >> 22


def _format_311(raw: Octets, count: int) -> Samples:
    words = _padded_words(raw, count, "<i4")
    out = np.stack([words, words >> 10, words >> 20], axis=1)
    return out.reshape(-1)[:count] << 22 >> 22


# format: (decoder, bits in a sample, bytes that hold `n` samples)
_Decoder = tuple[Callable[[Octets, int], Samples], int, Callable[[int], int]]
_FORMATS: dict[int, _Decoder] = {
    8: (_format_8, 8, lambda n: n),
    16: (_format_16, 16, lambda n: 2 * n),
    24: (_format_24, 24, lambda n: 3 * n),
    32: (_format_32, 32, lambda n: 4 * n),
    61: (_format_61, 16, lambda n: 2 * n),
    80: (_format_80, 8, lambda n: n),
    160: (_format_160, 16, lambda n: 2 * n),
    212: (_format_212, 12, lambda n: 3 * (n // 2) + 2 * (n % 2)),
    310: (_format_310, 10, lambda n: 4 * (n // 3) + (0, 2, 4)[n % 3]),
    311: (_format_311, 10, lambda n: 4 * (n // 3) + (0, 2, 3)[n % 3]),
}


def header_of(path: Path) -> Path:
    """The header of the record that `path` (a header, a signal file, or a name without suffix) belongs to."""
    return path if path.suffix == ".hea" else path.with_name((path.stem if path.is_file() else path.name) + ".hea")


def read_wfdb(path: Path, fs_limit_hz: float = 100_000.0) -> Wave:
    """The ECG signals of a WFDB record. Signals in another unit than volts are left out.

    Raises
    ------
    UnreadableInputError
        The header or a signal file is missing, damaged, or shorter than the header says.
    UnsupportedFormatError
        Several segments, skew, signals of different rates, or a compressed format.
    """
    header_path = header_of(path)
    header = parse_header(header_path, _header_text(header_path))
    fs_hz = header.fs_hz * header.signals[0].per_frame
    if fs_hz > fs_limit_hz:
        raise unreadable(header_path, f"the rate is {fs_hz:g} Hz")
    chosen = [n for n, s in enumerate(header.signals) if s.unit.lower() in MILLIVOLT and is_ecg_label(s.name)]
    if not chosen:
        units = ", ".join(f"{s.name or '?'} in {s.unit}" for s in header.signals)
        raise unreadable(header_path, f"no signal is an ECG ({units})", "Give a record that holds an ECG.")
    counts = _read_signals(header_path, header)
    if len(chosen) < len(counts):
        counts = counts[chosen]
    signals = [header.signals[n] for n in chosen]
    lowest = np.array([[-(1 << (_FORMATS[s.format][1] - 1))] for s in signals])
    # format 8 stores differences: it has no number that could mean "no sample"
    invalid = None
    if (counts.min(axis=1, initial=0) <= lowest[:, 0]).any():
        invalid = (counts == lowest) & np.array([[s.format != 8] for s in signals])
    return Wave(
        counts=counts,
        fs_hz=fs_hz,
        names=unique_names([s.name for s in signals]),
        lsb_mv=tuple(MILLIVOLT[s.unit.lower()] / s.gain for s in signals),
        baseline=tuple(s.baseline for s in signals),
        invalid=invalid,
    )


def _header_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise unreadable(path, "it is too large for a WFDB header")
        return path.read_bytes().decode("latin-1")
    except OSError as error:
        remedy = "A WFDB record needs its .hea file beside the signal file: copy both."
        raise unreadable(path, f"the header cannot be read ({error.strerror})", remedy) from None


def _read_signals(path: Path, header: Header) -> Counts:
    if len({s.per_frame for s in header.signals}) > 1:
        raise unsupported(path, "its signals have different rates", "Convert it with xform of the WFDB tools.")
    groups = [list(group) for _, group in groupby(header.signals, key=lambda s: s.file)]
    read = [_read_file(path, signals, header.length) for signals in groups]
    lengths = {part.shape[1] for part in read}
    if len(lengths) > 1:
        raise unreadable(path, f"its signal files hold {sorted(lengths)} samples, which should be equal")
    return np.concatenate(read) if len(read) > 1 else read[0]


def _read_file(path: Path, signals: list[SignalSpec], length: int | None) -> Counts:
    """The signals of one file, int32 (signals, n): frames follow each other, each with every signal's samples."""
    first = signals[0]
    if any((s.format, s.offset) != (first.format, first.offset) for s in signals[1:]):
        raise unreadable(path, f"{first.file} is described with more than one format")
    if first.format not in _FORMATS:
        raise unsupported(path, f"no reader for signal format {first.format}", "Convert it with xform to format 16.")
    decoder, bits, size = _FORMATS[first.format]
    raw = _signal_bytes(path, first.file)[first.offset :]
    width, per_frame = len(signals), first.per_frame
    if length is None:
        frames = len(raw) * 8 // {212: 12, 310: 32 / 3, 311: 32 / 3}.get(first.format, bits) // (width * per_frame)
    else:
        frames = length
    total = int(frames) * width * per_frame
    if len(raw) < size(total):
        held = int(len(raw) / max(size(total), 1) * frames)
        raise unreadable(path, f"{first.file} is cut off: the header says {frames} samples, the file holds {held}")
    samples = decoder(raw, total).reshape(-1, width, per_frame)
    by_signal = np.empty((width, len(samples), per_frame), np.int32)
    by_signal[:] = samples.transpose(1, 0, 2)
    counts = by_signal.reshape(width, -1)
    if first.format == 8:
        counts = np.cumsum(counts, axis=1, dtype=np.int32) + np.array([[s.initial] for s in signals], np.int32)
    return counts


def _signal_bytes(path: Path, name: str) -> Octets:
    if "/" in name or "\0" in name or name in {"-", "~", ""}:
        raise unreadable(path, f"the header names the signal file {name!r}, which is not beside it")
    signal = path.with_name(name)
    try:
        return np.fromfile(signal, np.uint8)
    except OSError as error:
        remedy = f"Copy {name} to the folder of {path.name}: the header describes the signal, it does not hold it."
        raise UnreadableInputError(
            operation="reading the recording",
            target=str(path),
            cause=f"its signal file {name} cannot be read ({error.strerror})",
            remedy=remedy,
        ) from None
