"""Biquad cascades with state, their Butterworth and notch designs, and the zero-phase form.

A second-order section is a row (b0, b1, b2, 1, a1, a2), as in scipy.signal. Designs are rounded to multiples of
2**-44, so that a processor whose `tan` ends in another bit still filters with the same numbers; the response moves
by less than 1e-6 of itself for corners above 1/5000 of the rate.
"""

from __future__ import annotations

import cmath
import math

import numpy as np
import numpy.typing as npt

from aidpost.kernels._ecg_checks import FloatArray, rate, refuse, samples
from aidpost.kernels._filters import Cascade

__all__ = ["BiquadCascade", "butter_bandpass", "highpass", "lowpass", "notch", "sosfilt", "sosfiltfilt"]

_GRID = 2.0**44


class BiquadCascade:
    """A cascade of second-order sections that keeps its state between chunks.

    Parameters
    ----------
    sos
        (n_sections, 6) coefficients; a0 other than 1 is divided out.

    Raises
    ------
    UsageError
        The shape is another one, a coefficient is not finite, or a0 is 0.

    Notes
    -----
    Transposed direct form II, so chunks of any size give the bits that one call on the whole gives, and those of
    scipy.signal.sosfilt. A NaN or an infinity stays in the state until `reset`.
    """

    __slots__ = ("_cascade", "_sections")

    def __init__(self, sos: npt.ArrayLike) -> None:
        rows = _checked(sos)
        self._sections = rows.shape[0]
        self._cascade = Cascade(np.ascontiguousarray(rows[:, [0, 1, 2, 4, 5]]))

    def process(self, x: npt.ArrayLike) -> FloatArray:
        """The next (n,) samples, n may be 0 -> (n,) float64, in the unit of `x`."""
        # The live path brings 36 float64 samples at a time: nothing else may stand between them and the loop.
        if type(x) is not np.ndarray or x.dtype != np.float64 or x.ndim != 1 or not x.flags.c_contiguous:
            x = samples(x, "filtering")
        y = np.empty(x.shape[0])
        self._cascade.run(x, y)
        return y

    def reset(self) -> None:
        """Forget every sample so far."""
        self.state = np.zeros((self._sections, 2))

    @property
    def state(self) -> FloatArray:
        """(n_sections, 2) delay elements, as scipy's `zi`; assign to start elsewhere than at rest."""
        out = np.empty((self._sections, 2))
        self._cascade.get_state(out)
        return out

    @state.setter
    def state(self, value: npt.ArrayLike) -> None:
        array = np.ascontiguousarray(value, dtype=np.float64)
        if array.shape != (self._sections, 2):
            raise refuse("setting a filter's state", "state", f"shape {array.shape}, not {(self._sections, 2)}")
        self._cascade.set_state(array)


def sosfilt(sos: npt.ArrayLike, x: npt.ArrayLike) -> FloatArray:
    """Filter the whole of `x` (n,) from rest -> (n,) float64. Raises UsageError as BiquadCascade does."""
    return BiquadCascade(sos).process(x)


def sosfiltfilt(sos: npt.ArrayLike, x: npt.ArrayLike) -> FloatArray:
    """Filter forwards and backwards: no phase, the magnitude squared -> (n,) float64.

    Both ends are extended by their odd reflection, and each pass starts settled at its first sample, as
    scipy.signal.sosfiltfilt does by default; where the signal is too short for that, by n - 1 samples.

    Raises
    ------
    UsageError
        As BiquadCascade does.
    """
    rows, signal = _checked(sos), samples(x, "filtering forwards and backwards")
    n = signal.shape[0]
    if n == 0:
        return np.empty(0)
    zeros_at_origin = min(int((rows[:, 2] == 0).sum()), int((rows[:, 5] == 0).sum()))
    pad = min(3 * (2 * rows.shape[0] + 1 - zeros_at_origin), n - 1)
    padded = np.concatenate(
        [2 * signal[0] - signal[pad:0:-1], signal, 2 * signal[-1] - signal[-2 : -2 - pad : -1] if pad else signal[:0]]
    )
    at_rest = _step_state(rows)
    cascade = BiquadCascade(rows)
    for _ in range(2):
        cascade.state = at_rest * padded[0]
        padded = np.ascontiguousarray(cascade.process(padded)[::-1])
    result: FloatArray = padded[pad : pad + n].copy()
    return result


def butter_bandpass(low_hz: float, high_hz: float, fs_hz: float, order: int = 2) -> FloatArray:
    """Butterworth band-pass, `order` sections (2 * order poles), -3 dB at both corners -> (order, 6).

    Each section has gain 1 at the geometric centre. Raises UsageError unless 0 < low < high < fs / 2 and order >= 1.
    """
    fs, operation = rate(fs_hz, "designing a band-pass"), "designing a band-pass"
    if not 0 < low_hz < high_hz < fs / 2:
        raise refuse(operation, f"{low_hz}-{high_hz} Hz", f"corners must rise between 0 and {fs / 2:g} Hz")
    w1, w2 = _warp(low_hz, fs), _warp(high_hz, fs)
    centre = 2 * math.atan(math.sqrt(w1 * w2))
    sections = []
    for pole in _prototype(order, operation):
        half = pole * (w2 - w1) / 2
        root = cmath.sqrt(half * half - w1 * w2)
        first, second = half + root, half - root
        # a real prototype pole gives one section from its two roots, a complex one gives a section per root
        pairs = [(first, second)] if pole.imag == 0 else [(first, first.conjugate()), (second, second.conjugate())]
        sections += [_section((1.0, 0.0, -1.0), pair, centre) for pair in pairs]
    return _round(sections)


def highpass(freq_hz: float, fs_hz: float, order: int = 2) -> FloatArray:
    """Butterworth high-pass, -3 dB at `freq_hz`, gain 1 at fs / 2 -> (ceil(order / 2), 6). Raises UsageError."""
    return _one_sided(freq_hz, fs_hz, order, high=True)


def lowpass(freq_hz: float, fs_hz: float, order: int = 2) -> FloatArray:
    """Butterworth low-pass, -3 dB at `freq_hz`, gain 1 at 0 Hz -> (ceil(order / 2), 6). Raises UsageError."""
    return _one_sided(freq_hz, fs_hz, order, high=False)


def notch(freq_hz: float, q: float, fs_hz: float) -> FloatArray:
    """Second-order notch, zero at `freq_hz`, -3 dB width freq_hz / q -> (1, 6), as scipy.signal.iirnotch.

    Raises UsageError unless 0 < freq_hz < fs / 2 and q > 0.
    """
    fs = rate(fs_hz, "designing a notch")
    if not (0 < freq_hz < fs / 2 and q > 0):
        raise refuse("designing a notch", f"{freq_hz} Hz, q {q}", f"0 < freq < {fs / 2:g} Hz and q > 0 are needed")
    w0 = 2 * math.pi * freq_hz / fs
    gain = 1 / (1 + math.tan(w0 / q / 2))
    middle = -2 * math.cos(w0)
    return _round([(gain, gain * middle, gain, 1.0, gain * middle, 2 * gain - 1)])


def _checked(sos: npt.ArrayLike) -> FloatArray:
    rows = np.array(sos, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 6 or rows.shape[0] == 0:
        raise refuse("making a filter", "sos", f"shape {rows.shape}, not (n_sections, 6)")
    if not np.isfinite(rows).all() or (rows[:, 3] == 0).any():
        raise refuse("making a filter", "sos", "a coefficient is not finite, or an a0 is 0")
    return np.ascontiguousarray(rows / rows[:, 3:4])


def _step_state(rows: FloatArray) -> FloatArray:
    """The state that a constant input of 1 settles at (scipy.signal.sosfilt_zi)."""
    state, scale = np.zeros((rows.shape[0], 2)), 1.0
    for i, (b0, b1, b2, _, a1, a2) in enumerate(rows):
        gain = (b0 + b1 + b2) / (1 + a1 + a2)
        state[i] = scale * (gain - b0), scale * (b2 - a2 * gain)
        scale *= gain
    return state


def _warp(freq_hz: float, fs_hz: float) -> float:
    return math.tan(math.pi * freq_hz / fs_hz)


def _prototype(order: int, operation: str) -> list[complex]:
    """Poles of the analogue Butterworth low-pass at 1 rad/s: one of each conjugate pair, then the real one if odd."""
    if not 1 <= order <= 12:
        raise refuse(operation, f"order {order}", "it must be between 1 and 12")
    poles = [cmath.exp(1j * math.pi * (2 * k + order + 1) / (2 * order)) for k in range(order // 2)]
    return [*poles, -1 + 0j] if order % 2 else poles


def _section(zeros: tuple[float, float, float], poles: tuple[complex, complex], w: float) -> tuple[float, ...]:
    """A digital section from its numerator and two analogue poles (bilinear), scaled to gain 1 at `w` rad/sample."""
    first, second = ((1 + p) / (1 - p) for p in poles)
    a1, a2 = -(first + second).real, (first * second).real
    z = cmath.exp(-1j * w)
    gain = abs((1 + a1 * z + a2 * z * z) / (zeros[0] + zeros[1] * z + zeros[2] * z * z))
    return (zeros[0] * gain, zeros[1] * gain, zeros[2] * gain, 1.0, a1, a2)


def _one_sided(freq_hz: float, fs_hz: float, order: int, *, high: bool) -> FloatArray:
    operation = "designing a high-pass" if high else "designing a low-pass"
    fs = rate(fs_hz, operation)
    if not 0 < freq_hz < fs / 2:
        raise refuse(operation, f"{freq_hz} Hz", f"the corner must lie between 0 and {fs / 2:g} Hz")
    corner, sign, reference = _warp(freq_hz, fs), -1.0 if high else 1.0, math.pi if high else 0.0
    sections: list[tuple[float, ...]] = []
    for pole in _prototype(order, operation):
        analogue = corner / pole if high else corner * pole
        if pole.imag == 0:
            # one real pole: the section is of first order
            digital = ((1 + analogue) / (1 - analogue)).real
            gain = (1 - sign * digital) / 2
            sections.append((gain, sign * gain, 0.0, 1.0, -digital, 0.0))
        else:
            sections.append(_section((1.0, 2 * sign, 1.0), (analogue, analogue.conjugate()), reference))
    return _round(sections)


def _round(sections: list[tuple[float, ...]]) -> FloatArray:
    return np.round(np.array(sections) * _GRID) / _GRID
