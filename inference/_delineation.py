"""Onsets, peaks and ends of P, QRS and T around known R-peaks of one lead.

QRS: the slope's envelope is followed outwards from the complex until it stays low. T and P: the peak is where a triple
of samples a wave's half-width apart is most bent (insensitive to the baseline); onset and end are where a trapezium
under the wave's flank is largest (Vazquez-Seisdedos et al. 2011). A P wave counts only where the beats agree on it: in
atrial fibrillation they do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aidpost.kernels.filters import highpass, lowpass, sosfiltfilt
from aidpost.kernels.resample import resample

Signal = npt.NDArray[np.float64]

FS_HZ = 250.0
"""Rate at which all is measured; slower recordings are brought up to it, which makes nothing more exact."""

_BAND_HZ = (0.5, 40.0)
_FEWEST_BEATS = 3


@dataclass(frozen=True)
class Settings:
    """Lengths in seconds, levels relative to the largest slope or bend."""

    qrs_reach: float = 0.13
    qrs_core: float = 0.3
    qrs_on_level: float = 0.06
    qrs_off_level: float = 0.07
    qrs_quiet: float = 0.02
    t_gap: float = 0.07
    t_half_width: float = 0.08
    t_longest: float = 0.42
    t_on_reach: float = 0.13
    t_off_reach: float = 0.14
    p_half_width: float = 0.044
    p_longest: float = 0.24
    p_agreement: float = 0.6
    p_floor_mv: float = 0.004
    p_share: float = 0.2
    p_on_reach: float = 0.1
    p_off_reach: float = 0.06
    p_near: float = 0.03
    p_alone: float = 1.3
    p_irregular: float = 6.0


@dataclass(frozen=True)
class Delineation:
    """Positions in seconds from the recording's start, (beats, 3) of onset, peak, end; NaN where there is none."""

    p: Signal
    qrs: Signal
    t: Signal


def delineate(
    samples_mv: Signal, fs_hz: float, peaks_s: Signal, settings: Settings | None = None, *, p_waves: bool = True
) -> Delineation:
    """Delineate each beat of a finite signal (n,) in millivolts; `peaks_s` (beats,) are its R-peaks in seconds.

    `p_waves` False looks for none, where the rhythm is known to have none. With fewer than three beats nothing is
    found.
    """
    s = settings or Settings()
    if peaks_s.size < _FEWEST_BEATS:
        nothing = np.full((peaks_s.size, 3), np.nan)
        return Delineation(nothing, nothing.copy(), nothing.copy())
    wave = _clean(samples_mv, fs_hz)
    at = np.clip(np.rint(peaks_s * FS_HZ).astype(int), 1, wave.size - 2)
    rr = np.diff(at)
    middle = int(np.median(rr))
    before, after = np.concatenate(([middle], rr)), np.concatenate((rr, [middle]))
    qrs = np.stack([_qrs(wave, r, s) for r in at])
    rest = _without_qrs(wave, qrs)
    t = np.stack([_t(rest, r, int(end), n, s) for r, end, n in zip(at, qrs[:, 2], after, strict=True)])
    p = _p(rest, at, qrs, t, before, s) if p_waves else np.full_like(t, np.nan)
    return Delineation(p / FS_HZ, qrs / FS_HZ, t / FS_HZ)


def _clean(samples_mv: Signal, fs_hz: float) -> Signal:
    wave = sosfiltfilt(highpass(_BAND_HZ[0], FS_HZ), resample(samples_mv, fs_hz, FS_HZ))
    return sosfiltfilt(lowpass(_BAND_HZ[1], FS_HZ), wave)


def _qrs(wave: Signal, r: int, s: Settings) -> Signal:
    reach, quiet = round(s.qrs_reach * FS_HZ), round(s.qrs_quiet * FS_HZ)
    first, last = max(r - 2 * reach, 1), min(r + 2 * reach, wave.size - 2)
    slope = np.abs(wave[first + 1 : last + 2] - wave[first - 1 : last])
    slope = np.convolve(slope, np.ones(3) / 3, "same")
    centre = r - first
    core = slope[max(centre - reach, 0) : centre + reach + 1]
    top = core.max()
    steep = np.flatnonzero(core > s.qrs_core * top) + max(centre - reach, 0)
    on = _until_quiet(slope, int(steep[0]), -1, s.qrs_on_level * top, quiet)
    off = _until_quiet(slope, int(steep[-1]), 1, s.qrs_off_level * top, quiet)
    return np.array([first + on, r, first + off], dtype=np.float64)


def _without_qrs(wave: Signal, qrs: Signal) -> Signal:
    """The wave with each QRS complex bridged by a straight line, so that its flanks bend nothing beside it."""
    out: Signal = wave.copy()
    for on, _, end in qrs.astype(int):
        out[on : end + 1] = np.linspace(wave[on], wave[end], end - on + 1)
    return out


def _until_quiet(slope: Signal, start: int, step: int, level: float, quiet: int) -> int:
    """The first place from `start` on, going by `step`, from which the slope stays under `level` for `quiet`
    samples."""
    i = start
    while 0 < i < slope.size - 1:
        low, high = (i, i + quiet) if step > 0 else (i - quiet + 1, i + 1)
        if (slope[max(low, 0) : high] < level).all():
            break
        i += step
    return i


def _bend(wave: Signal, half_width: float) -> Signal:
    w = round(half_width * FS_HZ)
    padded = np.pad(wave, w, mode="edge")
    return wave - (padded[: wave.size] + padded[2 * w :]) / 2


def _t(wave: Signal, r: int, qrs_end: int, rr: int, s: Settings) -> Signal:
    rr_s = rr / FS_HZ
    w = round(s.t_half_width * FS_HZ)
    first = qrs_end + round(s.t_gap * FS_HZ)
    last = min(r + round(s.t_longest * np.sqrt(max(rr_s, 0.3)) * FS_HZ), r + round(0.75 * rr), wave.size - 1)
    if last - first < 2 * w // 2:
        return np.full(3, np.nan)
    bend = _bend(wave[max(first - w, 0) : last + w], s.t_half_width)
    inner = bend[first - max(first - w, 0) : last - max(first - w, 0)]
    peak = first + int(np.abs(inner).argmax())
    sign = np.sign(inner[peak - first])
    on = _flank(sign * wave, peak, -1, max(qrs_end, peak - round(s.t_on_reach * FS_HZ)))
    off = _flank(sign * wave, peak, 1, min(peak + round(s.t_off_reach * FS_HZ), wave.size - 1))
    return np.array([on, peak, off], dtype=np.float64)


def _flank(wave: Signal, peak: int, step: int, limit: int) -> int:
    """Where the flank from `peak` towards `limit` ends: the trapezium from its steepest place on is largest."""
    index = np.arange(peak, limit + step, step)
    if index.size < 5:
        return limit
    y = wave[index]
    steep = int(np.argmin(np.diff(y)))
    tail = y[steep:]
    n = np.arange(tail.size)
    area = (tail[0] - tail) * (2 * (tail.size - 1) - n) / 2
    return int(index[steep + int(area.argmax())])


def _p(
    wave: Signal, at: npt.NDArray[np.int_], qrs: Signal, t: Signal, before: npt.NDArray[np.int_], s: Settings
) -> Signal:
    out = np.full((at.size, 3), np.nan)
    w, longest = round(s.p_half_width * FS_HZ), round(s.p_longest * FS_HZ)
    bend = _bend(wave, s.p_half_width)
    onsets = qrs[:, 0].astype(int)
    rows = np.clip(onsets[:, None] - np.arange(longest, 0, -1), 0, wave.size - 1)
    seen = bend[rows]
    t_end = np.concatenate(([np.nan], t[:-1, 2]))
    allowed = rows > np.where(np.isnan(t_end), at - 0.6 * before, t_end)[:, None]
    allowed[:, -w:] = False  # nearer to the QRS it is the corner of its onset
    seen = np.where(allowed, seen, np.nan)
    enough = allowed.sum(axis=0) >= max(3, at.size // 2)
    if not enough.any():
        return out
    mean = np.where(enough, np.nanmean(np.where(enough, seen, 0.0), axis=0), 0.0)
    best = int(np.abs(mean).argmax())
    spread = np.nanstd(seen[:, best])
    needed = s.p_agreement + s.p_irregular * max(0.0, _irregularity(before) - 0.08)
    if abs(mean[best]) < max(s.p_floor_mv, needed * spread) or not _alone(bend, onsets, t_end, best, longest, mean, s):
        return out
    sign = np.sign(mean[best])
    near = round(s.p_near * FS_HZ)
    for i in range(at.size):
        low, high = max(best - near, 0), min(best + near + 1, longest)
        piece = np.where(allowed[i, low:high], sign * seen[i, low:high], -np.inf)
        k = int(piece.argmax())
        if piece[k] < s.p_share * abs(mean[best]):
            continue
        peak = int(rows[i, low + k])
        on = _flank(sign * wave, peak, -1, max(peak - round(s.p_on_reach * FS_HZ), 0))
        off = _flank(sign * wave, peak, 1, min(peak + round(s.p_off_reach * FS_HZ), onsets[i]))
        out[i] = on, peak, off
    return out


def _irregularity(before: npt.NDArray[np.int_]) -> float:
    """Median change from one RR interval to the next, relative to the median interval."""
    if before.size < 3:
        return 0.0
    return float(np.median(np.abs(np.diff(before))) / np.median(before))


def _alone(
    bend: Signal, onsets: npt.NDArray[np.int_], t_end: Signal, best: int, longest: int, mean: Signal, s: Settings
) -> bool:
    """Whether nothing as large as the P wave comes between it and the T wave before: flutter waves do."""
    ago = longest - best  # samples from the P wave's peak to the QRS
    apart = round(0.11 * FS_HZ)
    others = []
    for onset, end in zip(onsets, t_end, strict=True):
        low, high = (0 if np.isnan(end) else int(end) + round(0.05 * FS_HZ)), onset - ago - apart
        if not np.isnan(end) and high - low >= round(0.06 * FS_HZ):
            others.append(float((np.sign(mean[best]) * bend[low:high]).max()))
    return len(others) < 3 or float(np.median(others)) < s.p_alone * abs(float(mean[best]))
