"""What a count is worth, from a calibration signal: a square wave of known height, 1 mV on most simulators and ECG
carts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aidpost.errors import UnreadableInputError


def uv_per_count(counts: npt.NDArray[np.float64], applied_mv: float = 1.0) -> float:
    """Microvolt a count, for `uv_per_count=` of the source.

    Parameters
    ----------
    counts
        (n,) one lead in counts, several periods of the square wave.
    applied_mv
        Its height from one level to the other.

    Raises
    ------
    UnreadableInputError
        The signal does not stand on two levels.
    """
    middle = (np.percentile(counts, 5) + np.percentile(counts, 95)) / 2
    high, low = counts[counts > middle], counts[counts <= middle]
    if len(high) and len(low):
        step = float(np.median(high) - np.median(low))
        # most of a square wave is near its levels; of a ramp, a sine or noise it is not
        spread = max(float(np.percentile(np.abs(part - np.median(part)), 75)) for part in (high, low))
        if step > 0 and spread < 0.1 * step:
            return applied_mv * 1000 / step
    raise UnreadableInputError(
        operation="calibrating",
        target="the recording",
        cause="it does not stand on two levels, as a square wave does",
        remedy="Connect the calibration signal to the electrodes' leads and record 10 s of it.",
    )
