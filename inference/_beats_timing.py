"""When a beat comes, against the beats around it: in its next neighbours, in its minute, and in the minutes around.

A premature beat is early against its neighbours. A beat in a run is not: the run is, against what went before and comes
after, and it begins and ends at once, as exercise does not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["around", "log", "rhythm", "timing"]

Signal = npt.NDArray[np.float64]

_APART = (6, 12, 24, 48, 96)  # beats
_LONG, _LONGEST = 150, 400
_STEP = 5  # beats either side of a step of the rate
_STEP_WITHIN = (24, 120)


def timing(rr: Signal, usual: npt.NDArray[np.bool_]) -> Signal:
    """(n, 20) numbers on the RR intervals (n - 1,), seconds, around each beat, against those of the beats around."""
    middle = float(np.median(rr))
    padded = np.concatenate(([middle] * 2, rr, [middle] * 2))
    before2, before, after, after2 = (padded[k : k + rr.size + 1] for k in (0, 1, 2, 3))
    near, far = around(rr, 10), around(rr, 50)
    pair = usual[1:] & usual[:-1]
    calm = np.where(around(pair.astype(float), 50) > 0, around(np.where(pair, rr, np.nan), 50), np.nan)
    near_median, far_median = np.median(near, axis=1), np.median(far, axis=1)
    slow = np.percentile(far, 80, axis=1)
    counted = np.isfinite(calm).sum(axis=1)
    calm_median = far_median.copy()
    calm_median[counted >= 5] = np.nanmedian(calm[counted >= 5], axis=1)
    step = np.abs(np.diff(near, axis=1)) / near_median[:, np.newaxis]
    wide_step = np.abs(np.diff(far, axis=1)) / far_median[:, np.newaxis]

    columns = [against(one, near_median) for one in (before2, before, after, after2)]
    columns += [against(before, one) for one in (calm_median, slow, before2, after)]
    columns += [against(after, calm_median), against(before + after, 2.0 * near_median)]
    columns += [2.0 * np.log2(one / 0.8) for one in (near_median, calm_median, before)]
    columns += [log(np.median(step, axis=1)), log(step.mean(axis=1)), log(np.median(wide_step, axis=1))]
    columns += [
        4.0 * (one < 0.88 * middle_of[:, np.newaxis]).mean(axis=1)
        for one, middle_of in ((near, near_median), (far, calm_median))
    ]
    columns += [log(near.std(axis=1) / near_median), against(np.minimum(before, before2), far_median)]
    return np.stack(columns, axis=1)


def around(values: Signal, reach: int) -> Signal:
    """(n + 1, 2·reach) the values before and after each beat, the ends reflected."""
    reach = min(reach, values.size - 1)
    padded = np.pad(values, reach, mode="reflect")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach)


def rhythm(rr: Signal) -> Signal:
    """(n, 23) numbers on the rate (RR intervals (n - 1,), seconds) over minutes around each beat: how it differs from
    the rate some beats away, and how abruptly it last changed and next will."""
    before = np.concatenate(([float(np.median(rr))], rr))
    local = np.median(around_each(before, 2), axis=1)
    number = np.arange(before.size)
    columns = [
        against(local, local[np.clip(number + sign * apart, 0, before.size - 1)])
        for apart in _APART
        for sign in (-1, 1)
    ]
    long, longest = around(rr, _LONG), around(rr, _LONGEST)
    slow = np.percentile(long, 80, axis=1)
    columns += [against(before, np.median(long, axis=1)), against(before, slow), against(local, slow)]
    columns += [against(before, np.percentile(longest, 80, axis=1))]
    columns += [against(around(rr, 10).max(axis=1), np.median(long, axis=1))]
    step = _steps(before)
    for reach in _STEP_WITHIN:
        columns += [_most(step, reach, after) for after in (False, True)]
        columns += [_most(-step, reach, after) for after in (False, True)]
    return np.stack(columns, axis=1)


def _steps(before: Signal) -> Signal:
    """(n,) by how much the rate rises at each beat: the median interval of the five before against the five from it."""
    padded = np.pad(before, _STEP, mode="edge")
    middle = np.median(np.lib.stride_tricks.sliding_window_view(padded, _STEP), axis=1)
    return against(middle[: before.size], middle[_STEP : _STEP + before.size])


def _most(step: Signal, reach: int, after: bool) -> Signal:
    """The largest of the steps within `reach` beats before (this one included) or after each."""
    padded = np.pad(step, (0, reach) if after else (reach, 0))
    most = np.lib.stride_tricks.sliding_window_view(padded, reach + 1).max(axis=1)
    return np.asarray(np.concatenate((most[1:], [0.0])) if after else most)


def against(a: Signal, b: Signal) -> Signal:
    """Four times the octaves between them."""
    return np.asarray(4.0 * np.log2(np.maximum(a, 1e-3) / np.maximum(b, 1e-3)))


def around_each(values: Signal, reach: int) -> Signal:
    """(n, 2·reach + 1) each value with those before and after, the ends reflected."""
    reach = min(reach, values.size - 1)
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, reach, mode="reflect"), 2 * reach + 1)


def log(x: Signal) -> Signal:
    """For what spans decades, such as noise."""
    return np.asarray(np.log2(x + 1e-3) / 2.0 + 2.0)
