"""One property for all kernels: what an array holds decides, not its type, strides or length; nothing is too extreme.

Each kernel's own file proves that its loop equals its reference in NumPy or Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from aidpost.errors import AidpostError
from aidpost.kernels import _fundus_geometry, codec, fundus, reference_fundus
from aidpost.kernels.ecg_quality import assess
from aidpost.kernels.filters import BiquadCascade, butter_bandpass, sosfilt, sosfiltfilt
from aidpost.kernels.fundus import Circle
from aidpost.kernels.resample import Resampler, resample
from aidpost.kernels.rpeaks import RPeakDetector, detect

Array = npt.NDArray[Any]
SOS = butter_bandpass(1.0, 40.0, 250.0)


def _streamed(x: Array) -> Array:
    detector = RPeakDetector(250.0)
    return np.concatenate([detector.feed(x).sample, detector.flush().sample])


def _resampled(x: Array) -> Array:
    resampler = Resampler(360.0, 250.0)
    return np.concatenate([resampler.feed(x), resampler.flush()])


def _quality(x: Array) -> Array:
    found = assess(x, 250.0)
    return np.stack([found.usable, found.lead_off])


SIGNALS: dict[str, Callable[[Array], Array]] = {
    "biquad": BiquadCascade(SOS).process,
    "sosfilt": lambda x: sosfilt(SOS, x),
    "sosfiltfilt": lambda x: sosfiltfilt(SOS, x),
    "resample": lambda x: resample(x, 360.0, 250.0).astype(np.float32),  # which float32 stays
    "resample in pieces": _resampled,
    "R-peaks": lambda x: detect(x, 250.0).sample,
    "R-peaks in pieces": _streamed,
    "quality": _quality,
}
TYPES = ["<i2", ">i2", "<i4", "u1", "<f4", ">f4", "<f8", ">f8", "?"]
VIEWS: dict[str, Callable[[Array], Array]] = {
    "whole": lambda x: x,
    "every second": lambda x: np.repeat(x, 2)[::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "a column": lambda x: np.stack([x, x, x], axis=1)[:, 1],
    "read-only": lambda x: _frozen(x.copy()),
}


def _frozen(x: Array) -> Array:
    x.flags.writeable = False
    return x


def answer(kernel: str, x: Array) -> Array | str:
    """What the kernel makes of it, or the class of its refusal."""
    if kernel == "biquad":  # it has a state
        return BiquadCascade(SOS).process(x)
    try:
        return SIGNALS[kernel](x)
    except AidpostError as error:
        return type(error).__name__


@pytest.mark.parametrize("kernel", SIGNALS)
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(TYPES),
    view=st.sampled_from(sorted(VIEWS)),
    n=st.sampled_from([0, 1, 2, 3, 36, 250, 1000]),
    seed=st.integers(0, 2**16),
)
def test_signal_kernels_see_the_numbers_and_not_how_they_lie(
    kernel: str, kind: str, view: str, n: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    beats = 300 * (np.arange(n) % 200 < 5) + 20 * rng.standard_normal(n)
    x = beats.clip(0, 255).astype(kind) if kind in ("u1", "?") else beats.astype(kind)
    plain, seen = answer(kernel, x.astype(np.float64)), answer(kernel, VIEWS[view](x))
    if isinstance(plain, str):
        assert seen == plain
    else:
        np.testing.assert_array_equal(seen, plain)


@pytest.mark.parametrize("kernel", SIGNALS)
@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float64,
        st.integers(0, 700),
        elements=st.floats(allow_nan=True, allow_infinity=True),
        fill=st.sampled_from([0.0, np.nan, np.inf, 1e308, -1e-308]),
    )
)
def test_signal_kernels_take_any_number_and_say_the_same_again(kernel: str, x: Array) -> None:
    with np.errstate(all="ignore"):
        first, again = answer(kernel, x), answer(kernel, x)
    if isinstance(first, str):
        assert again == first
    else:
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("kernel", SIGNALS)
@pytest.mark.parametrize("wrong", [np.zeros((3, 4)), np.array(["a"]), np.zeros(3, complex), np.array([None, 1])])
def test_signal_kernels_refuse_what_is_no_signal(kernel: str, wrong: Array) -> None:
    with pytest.raises(AidpostError):
        SIGNALS[kernel](wrong)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["<i2", ">i2", "<i4", ">i4", "<i8", "u1", "<u2", "<u4"]),
    view=st.sampled_from(sorted(VIEWS)),
    n=st.sampled_from([0, 1, 31, 32, 33, 700]),
    seed=st.integers(0, 2**16),
)
def test_codec_sees_the_numbers_and_not_how_they_lie(kind: str, view: str, n: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 127, n).cumsum().astype(np.uint8).astype(kind)
    coded = codec.encode(VIEWS[view](x))
    assert coded == codec.encode(x.astype(np.int32))
    np.testing.assert_array_equal(codec.decode(coded)[0], x)


def scene(height: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


PHOTO_VIEWS: dict[str, Callable[[Array], Array]] = {
    "whole": lambda p: p,
    "other order of channels": lambda p: p[..., ::-1].copy()[..., ::-1],
    "upside down": lambda p: p[::-1].copy()[::-1],
    "a window": lambda p: np.pad(p, ((1, 2), (3, 1), (0, 0)))[1:-2, 3:-1],
    "read-only": lambda p: _frozen(p.copy()),
}
anywhere = st.floats(-50, 150)


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    size=st.sampled_from([16, 17, 33, 64]),
    middle=st.tuples(anywhere, anywhere),
    r=st.floats(0.1, 40),
    view=st.sampled_from(sorted(PHOTO_VIEWS)),
    seed=st.integers(0, 2**16),
)
def test_any_crop_of_any_photograph_equals_the_reference(
    height: int, width: int, size: int, middle: tuple[float, float], r: float, view: str, seed: int
) -> None:
    photo = scene(height, width, seed)
    circle = Circle(*middle, r, 0, 0, width, height)
    side = 2 * fundus._RIM * r
    x0, y0 = middle[0] - side / 2, middle[1] - side / 2
    if side < 1 or not (x0 < width and x0 + side > 0 and y0 < height and y0 + side > 0):
        with pytest.raises(ValueError, match="touch"):
            fundus.crop(photo, circle, size)
        return
    pixels, within = fundus.crop(PHOTO_VIEWS[view](photo), circle, size)
    rows = _fundus_geometry.weights(y0, side, height, size)
    columns = _fundus_geometry.weights(x0, side, width, size)
    np.testing.assert_array_equal(pixels, reference_fundus.resample(photo, *rows, *columns))
    for kernel in (fundus.normalise_int8, fundus.crop_int8):
        whole, measures = kernel(pixels, within)
        seen, same = kernel(PHOTO_VIEWS[view](pixels), within)
        np.testing.assert_array_equal(seen, whole)
        assert repr(same) == repr(measures)  # NaN where nothing is visible


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(sorted(PHOTO_VIEWS)), st.integers(0, 2**16))
def test_any_photograph_has_a_field_of_view_within_it_or_none(height: int, width: int, view: str, seed: int) -> None:
    photo = scene(height, width, seed)
    found = fundus.field_of_view(photo)
    assert fundus.field_of_view(PHOTO_VIEWS[view](photo)) == found
    assert found is None or (0 <= found.left <= found.right <= width and 0 <= found.top <= found.bottom <= height)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 9, 3), np.uint8),
        np.zeros((20, 20), np.uint8),
        np.zeros((20, 20, 4), np.uint8),
        np.zeros((20, 20, 3)),
    ],
)
def test_photo_kernels_refuse_what_is_no_photograph(wrong: Array) -> None:
    circle = Circle(10, 10, 10, 0, 0, 20, 20)
    for call in (
        lambda: fundus.field_of_view(wrong),
        lambda: fundus.crop(wrong, circle, 32),
        lambda: fundus.normalise_int8(wrong, circle),
        lambda: fundus.crop_int8(wrong, circle),
    ):
        with pytest.raises(ValueError, match="expected uint8"):
            call()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("which", ["cx", "cy", "r"])
def test_a_circle_that_is_nowhere_is_refused(which: str, value: float) -> None:
    place = {"cx": 30.0, "cy": 30.0, "r": 20.0, which: value}
    with pytest.raises(ValueError, match="touch"):
        fundus.crop(scene(60, 60, 0), Circle(**place, left=0, top=0, right=60, bottom=60), 32)
