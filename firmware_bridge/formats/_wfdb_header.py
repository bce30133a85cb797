"""The text header of a WFDB record (header(5) of the WFDB Applications Guide)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from aidpost.errors import UnsupportedFormatError
from aidpost.firmware_bridge.formats.wave import unreadable

DEFAULT_FS_HZ = 250.0
DEFAULT_GAIN = 200.0  # header(5): the ADC gain where it is 0 or missing
MAX_SIGNALS = 256

_RECORD = re.compile(r"(?P<name>[^\s/]+)(?P<segments>/\d+)?\s+(?P<signals>\d+)(?P<rest>(\s.*)?)")
_FORMAT = re.compile(r"(?P<format>\d+)(x(?P<per_frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?")
_GAIN = re.compile(r"(?P<gain>[-+.\deE]+)?(\((?P<baseline>[-+\d]+)\))?(/(?P<unit>\S+))?")


@dataclass(frozen=True)
class SignalSpec:
    """One signal line: where its samples are, and their scale (`gain` in counts per `unit`)."""

    file: str
    format: int
    per_frame: int
    offset: int
    gain: float
    unit: str
    baseline: int
    initial: int
    name: str


@dataclass(frozen=True)
class Header:
    """The record line and its signals; `length` is samples per signal, or None where the header does not say."""

    fs_hz: float
    length: int | None
    signals: tuple[SignalSpec, ...]


def unsupported(path: Path, cause: str, remedy: str) -> UnsupportedFormatError:
    """The error for a record in a form that nobody here reads; the caller raises it."""
    return UnsupportedFormatError(operation="reading the recording", target=str(path), cause=cause, remedy=remedy)


def parse_header(path: Path, text: str) -> Header:
    """The header in `text`, which was read from `path`.

    Raises
    ------
    UnreadableInputError
        It is no WFDB header, or describes no signal.
    UnsupportedFormatError
        A record of several segments, or with skewed signals.
    """
    lines = [line for line in (raw.strip() for raw in text.splitlines()) if line and not line.startswith("#")]
    match = _RECORD.fullmatch(lines[0]) if lines else None
    if match is None:
        raise unreadable(path, "it is not a WFDB header: the record line is missing")
    if match["segments"]:
        raise unsupported(path, "it joins several segments", "Give the segments' own headers instead.")
    count = int(match["signals"])
    if count == 0:
        raise unreadable(path, "the header describes no signal (annotations only)")
    if count > MAX_SIGNALS or len(lines) - 1 < count:
        raise unreadable(path, f"the header announces {count} signals and describes {len(lines) - 1}")
    fs_hz, length = _rate_and_length(path, match["rest"].split())
    return Header(fs_hz, length, tuple(_parse_signal(path, line) for line in lines[1 : 1 + count]))


def _rate_and_length(path: Path, fields: list[str]) -> tuple[float, int | None]:
    try:
        fs_hz = float(re.split(r"[/(]", fields[0])[0]) if fields else DEFAULT_FS_HZ
        length = int(fields[1]) if len(fields) > 1 else 0
    except ValueError:
        raise unreadable(path, f"rate and length {' '.join(fields[:2])!r} are not numbers") from None
    if not (math.isfinite(fs_hz) and fs_hz > 0 and length >= 0):
        raise unreadable(path, f"the rate is {fs_hz} Hz and the length {length} samples")
    return fs_hz, length or None


def _parse_signal(path: Path, line: str) -> SignalSpec:
    fields = line.split(maxsplit=8)
    form = _FORMAT.fullmatch(fields[1]) if len(fields) > 1 else None
    gain = _GAIN.fullmatch(fields[2] if len(fields) > 2 else "")
    if form is None or gain is None:
        raise unreadable(path, f"the signal line {line!r} does not follow header(5)")
    if int(form["skew"] or 0):
        raise unsupported(path, "its signals are skewed", "Convert it with xform of the WFDB tools.")
    try:
        zero = _integer(fields, 4, 0)
        initial = _integer(fields, 5, zero)
        scale = float(gain["gain"] or 0) or DEFAULT_GAIN
        baseline = int(gain["baseline"]) if gain["baseline"] else zero
    except ValueError:
        raise unreadable(path, f"the signal line {line!r} has a field that is not a number") from None
    if not math.isfinite(scale) or max(abs(baseline), abs(initial)) >= 1 << 31:
        raise unreadable(path, f"the signal line {line!r} has a number out of range")
    return SignalSpec(
        file=fields[0],
        format=int(form["format"]),
        per_frame=int(form["per_frame"] or 1),
        offset=int(form["offset"] or 0),
        gain=scale,
        unit=gain["unit"] or "mV",
        baseline=baseline,
        initial=initial,
        name=fields[8] if len(fields) > 8 else "",
    )


def _integer(fields: list[str], index: int, default: int) -> int:
    return int(fields[index]) if index < len(fields) else default
