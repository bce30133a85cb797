"""An ECG as a clinician reads it: on paper, 25 mm a second and 10 mm a millivolt, in rows.

Geometry only, in millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aidpost.kernels import codec
from aidpost.records import EcgResult

MM_PER_S = 25.0
MM_PER_MV = 10.0
ROW_S = 10.0
ROWS = 3
_MARGIN_MM = 6.0
_TALLEST_MM = 60.0
_BUCKETS_PER_MM = 8
"""Where samples lie closer, the lowest and highest of each eighth of a millimetre are drawn: no peak is lost."""

Trace = npt.NDArray[np.float64]


class BeatMark(NamedTuple):
    """A beat above the trace: its place, its AAMI class, and whether it is other than normal."""

    x: float
    label: str
    abnormal: bool


class Row(NamedTuple):
    """Ten seconds of one lead. `paths` are SVG path data, one for each stretch without a gap; `gaps` are (x, width)."""

    start_s: float
    width: float
    height: float
    paths: tuple[str, ...]
    gaps: tuple[tuple[float, float], ...]
    beats: tuple[BeatMark, ...]


class Paper(NamedTuple):
    """The rows of a page of one lead, and where the page stands in the recording."""

    lead: str
    leads: tuple[str, ...]
    start_s: float
    stop_s: float
    duration_s: float
    rows: tuple[Row, ...]
    damage: str

    @property
    def previous_s(self) -> int | None:
        """Where the page before begins."""
        return max(0, int(self.start_s - ROWS * ROW_S)) if self.start_s > 0 else None

    @property
    def next_s(self) -> int | None:
        """Where the next page begins."""
        return int(self.stop_s) if self.stop_s < self.duration_s - 0.5 else None


def draw(ecg: EcgResult, body: bytes, *, lead: str = "", start_s: float = 0.0) -> Paper:
    """The page of a recording that begins at `start_s`.

    Parameters
    ----------
    ecg
        The device's result: rate, scale, beats.
    body
        The recording in the waveform codec. What is damaged is drawn as a gap and told in `damage`.
    lead
        A lead's name; any other: the one that was interpreted.
    """
    index = ecg.leads.index(lead) if lead in ecg.leads else ecg.leads.index(ecg.lead) if ecg.lead in ecg.leads else 0
    length = round(ecg.duration_s * ecg.fs_hz)
    counts, damage = _counts(body, index, length)
    millivolt = (counts - ecg.baseline[index]) * ecg.lsb_mv[index]
    for first, stop in (*ecg.missing, *((a, b) for number, a, b in ecg.lead_off if number == index)):
        millivolt[first:stop] = np.nan
    per_row = round(ROW_S * ecg.fs_hz)
    first = int(min(max(0.0, start_s), max(0.0, ecg.duration_s - 1)) * ecg.fs_hz)
    page = millivolt[first : first + ROWS * per_row]
    low, high = _extent(page)
    rows = [_row(page[i : i + per_row], first + i, ecg, low, high) for i in range(0, max(1, len(page)), per_row)]
    stop_s = (first + len(page)) / ecg.fs_hz
    return Paper(ecg.leads[index], ecg.leads, first / ecg.fs_hz, stop_s, ecg.duration_s, tuple(rows), damage)


def _counts(body: bytes, index: int, length: int) -> tuple[Trace, str]:
    stream = codec.decode_frames(body)
    counts = np.full(length, np.nan)
    at = 0
    for first, stop in stream.spans:
        n = stop - first
        if index < len(stream.samples):
            kept = max(0, min(n, length - first))
            counts[first : first + kept] = stream.samples[index, at : at + kept]
        at += n
    return counts, stream.error or ""


def _extent(trace: Trace) -> tuple[float, float]:
    """Lowest and highest millivolt of the page, whole half-centimetres of paper, at least 2 mV and at most 6."""
    seen = trace[~np.isnan(trace)]
    if len(seen) == 0:
        return -1.0, 1.0
    low, high = float(seen.min()), float(seen.max())
    middle = float(np.median(seen))
    low, high = min(low, middle - 0.8), max(high, middle + 1.2)
    if (high - low) * MM_PER_MV > _TALLEST_MM:
        half = _TALLEST_MM / MM_PER_MV / 2
        low, high = middle - half, middle + half
    return np.floor(low * 2) / 2, np.ceil(high * 2) / 2


def _row(trace: Trace, first: int, ecg: EcgResult, low: float, high: float) -> Row:
    height = (high - low) * MM_PER_MV + 2 * _MARGIN_MM
    scale = MM_PER_S / ecg.fs_hz

    def y_of(values: Trace) -> Trace:
        placed: Trace = np.clip(_MARGIN_MM + (high - values) * MM_PER_MV, 0.0, height)
        return placed

    known = ~np.isnan(trace)
    paths = [_path(start, y_of(trace[start:stop]), scale) for start, stop in _runs(known) if stop - start > 1]
    gaps = [(start * scale, (stop - start) * scale) for start, stop in _runs(~known)]
    beats = [
        BeatMark((sample - first) * scale, label, label != "N")
        for sample, label in zip(ecg.beats.sample, ecg.beats.label, strict=True)
        if first <= sample < first + len(trace)
    ]
    return Row(first / ecg.fs_hz, ROW_S * MM_PER_S, height, tuple(paths), tuple(gaps), tuple(beats))


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _path(start: int, y: Trace, scale: float) -> str:
    bucket = int(1 / (_BUCKETS_PER_MM * scale))
    if bucket >= 4:
        whole = len(y) // bucket * bucket
        groups = y[:whole].reshape(-1, bucket)
        y = np.stack((groups.min(axis=1), groups.max(axis=1)), axis=1).ravel()
        x = (
            start + np.repeat(np.arange(len(groups)) * bucket, 2) + np.tile((0.25, 0.75), len(groups)) * bucket
        ) * scale
    else:
        x = (start + np.arange(len(y))) * scale
    return "M" + "L".join(_points(x, y))


def _points(x: Trace, y: Trace) -> Sequence[str]:
    return [f"{a:.2f} {b:.2f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
