"""A suspicion of ventricular fibrillation or flutter from the waveform alone.

The signal is near a sine wave: shifted by half its own period it cancels itself (the VF filter of Kuo and Dillman,
1978, as compared by Amann et al., 2005), and it never rests at the baseline as it does between QRS complexes. There is
hardly any fibrillation in the public recordings that this was tried on: it is a suspicion, with no sensitivity claimed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from aidpost.inference._ecg_signal import Lead
from aidpost.kernels.filters import butter_bandpass, sosfiltfilt

Signal = npt.NDArray[np.float64]

_BAND_HZ = (1.0, 20.0)
_WINDOW_S = 4.0
_STEP_S = 1.0
_LEAKAGE = 0.42
_PERIOD_HZ = (2.0, 9.0)
_RESTLESS = 0.50  # fraction of samples beyond a fifth of the window's extent from its middle
_SMALLEST_MV = 0.2


def suspected_spans(lead: Lead) -> list[tuple[float, float]]:
    """Stretches in seconds, of at least one window of 4 s, that look like ventricular fibrillation or flutter."""
    fs_hz = lead.fs_hz
    size, step = round(_WINDOW_S * fs_hz), round(_STEP_S * fs_hz)
    if not lead.present.any() or lead.samples_mv.size < size:
        return []
    wave = sosfiltfilt(butter_bandpass(*_BAND_HZ, fs_hz), lead.samples_mv)
    starts = np.arange(0, wave.size - size + 1, step)
    spans: list[tuple[float, float]] = []
    for start in starts:
        window = wave[start : start + size]
        if not lead.present[start : start + size].all() or not looks_like_fibrillation(window, fs_hz):
            continue
        begin, end = float(start / fs_hz), float((start + size) / fs_hz)
        if spans and begin <= spans[-1][1]:
            begin = spans.pop()[0]
        spans.append((begin, end))
    return spans


def looks_like_fibrillation(window: Signal, fs_hz: float) -> bool:
    """Whether a band-passed window (n,), millivolts, is near a sine wave of 2 to 9 Hz that never rests."""
    extent = float(np.ptp(window))
    travel = float(np.abs(np.diff(window)).sum())
    if extent < _SMALLEST_MV or travel == 0.0:
        return False
    half_period = math.floor(math.pi * float(np.abs(window).sum()) / travel + 0.5)
    if not _PERIOD_HZ[0] <= fs_hz / max(2 * half_period, 1) <= _PERIOD_HZ[1]:
        return False
    now, then = window[half_period:], window[:-half_period]
    leakage = float(np.abs(now + then).sum() / (np.abs(now) + np.abs(then)).sum())
    restless = float((np.abs(window) > extent / 10).mean())
    return leakage < _LEAKAGE and restless > _RESTLESS
