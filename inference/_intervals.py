"""PR, QRS, QT, QTc and ST from the delineated beats of a recording, and None where the signal does not allow them.

Each interval is the median over the beats that carry it. Its uncertainty is the standard error of that median, from the
beats' spread, with the rate's own resolution; an interval that rests on fewer than three beats, whose beats disagree,
or whose uncertainty is over the limit is None. QTc is Fridericia's, QT / RR^(1/3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aidpost.inference._delineation import Delineation, delineate
from aidpost.inference._ecg_signal import Lead

Signal = npt.NDArray[np.float64]

LOWEST_RATE_HZ = 180.0
"""Slower recordings give no intervals: at 130 Hz a sample is 8 ms, as long as what is looked for."""

_MOST_S = 60.0  # of a long recording, its first usable minute: intervals drift with the rate
_FEWEST_BEATS = 3
# largest standard error in ms, and largest spread of the beats (1.48 times the median deviation)
_LIMITS = {"pr": (10.0, 30.0), "qrs": (6.0, 24.0), "qt": (12.0, 40.0)}
_RANGES_MS = {"pr": (80.0, 400.0), "qrs": (50.0, 240.0), "qt": (200.0, 700.0)}
_ST_AFTER_J_S = 0.06
_ST_LIMIT_MV = 0.05
_QTC_RATES_BPM = (40.0, 120.0)  # beyond them no correction formula holds


@dataclass(frozen=True)
class Measured:
    """A value and its uncertainty, one standard error, in the same unit."""

    value: float
    uncertainty: float


@dataclass(frozen=True)
class Intervals:
    """PR, QRS, QT and QTc in milliseconds, the ST level 60 ms after the QRS's end against the PQ level in
    millivolts."""

    pr: Measured | None = None
    qrs: Measured | None = None
    qt: Measured | None = None
    qtcf: Measured | None = None
    st_mv: Measured | None = None


def measure_intervals(lead: Lead, peaks: npt.NDArray[np.int64], *, p_waves: bool) -> Intervals:
    """Measure one lead around its R-peaks (sample indices). `p_waves` False looks for none: in atrial fibrillation."""
    if lead.fs_hz < LOWEST_RATE_HZ:
        return Intervals()
    first, stop = _stretch(lead)
    chosen = peaks[(peaks >= first) & (peaks < stop)]
    if chosen.size < _FEWEST_BEATS + 2:
        return Intervals()
    found = delineate(lead.samples_mv[first:stop], lead.fs_hz, (chosen - first) / lead.fs_hz, p_waves=p_waves)
    clean = _clean_beats(lead, found, first)
    resolution = 1000.0 / lead.fs_hz
    qrs = _interval(found.qrs[:, 2] - found.qrs[:, 0], clean, "qrs", resolution)
    qt = _interval(found.t[:, 2] - found.qrs[:, 0], clean, "qt", resolution)
    rr_s = float(np.median(np.diff(chosen))) / lead.fs_hz
    return Intervals(
        pr=_interval(found.qrs[:, 0] - found.p[:, 0], clean, "pr", resolution),
        qrs=qrs,
        qt=qt,
        qtcf=_corrected(qt, rr_s),
        st_mv=_st_level(lead.samples_mv[first:stop], lead.fs_hz, found, clean),
    )


def _stretch(lead: Lead) -> tuple[int, int]:
    """The minute with the most usable signal, in samples."""
    size = round(_MOST_S * lead.fs_hz)
    if lead.usable.size <= size:
        return 0, lead.usable.size
    starts = np.arange(0, lead.usable.size - size + 1, size // 2)
    total = np.concatenate(([0], np.cumsum(lead.usable)))
    best = int(starts[np.argmax(total[starts + size] - total[starts])])
    return best, best + size


def _clean_beats(lead: Lead, found: Delineation, first: int) -> npt.NDArray[np.bool_]:
    """Beats whose whole extent is usable, without the first and the last, which may be cut."""
    start = np.where(np.isnan(found.p[:, 0]), found.qrs[:, 0], found.p[:, 0])
    stop = np.where(np.isnan(found.t[:, 2]), found.qrs[:, 2], found.t[:, 2])
    bad = np.concatenate(([0], np.cumsum(~lead.usable[first:])))
    low = np.clip((start * lead.fs_hz).astype(int), 0, bad.size - 1)
    high = np.clip((stop * lead.fs_hz).astype(int) + 1, 0, bad.size - 1)
    clean = np.asarray(bad[high] == bad[low])
    clean[[0, -1]] = False
    return clean


def _interval(length_s: Signal, clean: npt.NDArray[np.bool_], name: str, resolution_ms: float) -> Measured | None:
    ms = 1000.0 * length_s[clean & ~np.isnan(length_s)]
    if ms.size < max(_FEWEST_BEATS, clean.sum() / 2):
        return None
    value, spread = float(np.median(ms)), 1.4826 * float(np.median(np.abs(ms - np.median(ms))))
    # 1.253: the standard error of a median against that of a mean; a third of a sample is the rate's own part
    uncertainty = float(np.hypot(1.253 * spread / np.sqrt(ms.size), resolution_ms / 3))
    most, widest = _LIMITS[name]
    low, high = _RANGES_MS[name]
    if uncertainty > most or spread > widest or not low <= value <= high:
        return None
    return Measured(value, uncertainty)


def _corrected(qt: Measured | None, rr_s: float) -> Measured | None:
    if qt is None or not _QTC_RATES_BPM[0] <= 60.0 / rr_s <= _QTC_RATES_BPM[1]:
        return None
    root = rr_s ** (1 / 3)
    return Measured(qt.value / root, qt.uncertainty / root)


def _st_level(samples_mv: Signal, fs_hz: float, found: Delineation, clean: npt.NDArray[np.bool_]) -> Measured | None:
    """Median over beats of the level 60 ms after J against the 20 ms before the QRS, on the unfiltered signal: a
    high-pass would move it."""
    width = max(1, round(0.02 * fs_hz))
    levels = []
    for on, _, end in found.qrs[clean]:
        before, after = round(on * fs_hz), round((end + _ST_AFTER_J_S) * fs_hz)
        if before - width >= 0 and after + width <= samples_mv.size:
            pq = np.median(samples_mv[before - width : before])
            levels.append(np.median(samples_mv[after : after + width]) - pq)
    if len(levels) < _FEWEST_BEATS:
        return None
    spread = 1.4826 * float(np.median(np.abs(levels - np.median(levels))))
    uncertainty = 1.253 * spread / float(np.sqrt(len(levels)))
    return Measured(float(np.median(levels)), uncertainty) if uncertainty <= _ST_LIMIT_MV else None
