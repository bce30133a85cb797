"""Biquad cascades and their designs, held against scipy.signal and against the reference in plain Python."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.errors import UsageError
from aidpost.kernels import reference_ecg
from aidpost.kernels.filters import BiquadCascade, butter_bandpass, highpass, lowpass, notch, sosfilt, sosfiltfilt

# the peer is not installed under emulation
beside_scipy = pytest.mark.slow_emulated


@pytest.fixture(scope="module")
def signal() -> ModuleType:
    return pytest.importorskip("scipy.signal")


def cascade_of(sections: int) -> np.ndarray:
    return butter_bandpass(0.02, 0.3, 2, sections)


@beside_scipy
@pytest.mark.parametrize("sections", range(1, 10))
def test_same_bits_as_scipy_for_any_number_of_sections(signal: ModuleType, sections: int) -> None:
    x = np.random.default_rng(sections).normal(size=700).cumsum()
    sos = cascade_of(sections)
    assert np.array_equal(sosfilt(sos, x), signal.sosfilt(sos, x))


@settings(deadline=None)
@given(sections=st.integers(1, 6), n=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_loop_equals_the_reference(sections: int, n: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=n)
    sos = cascade_of(sections)
    assert np.array_equal(sosfilt(sos, x), reference_ecg.biquads(sos, x))


@settings(deadline=None)
@given(sections=st.integers(1, 6), cuts=st.lists(st.integers(0, 200), max_size=12), seed=st.integers(0, 2**32 - 1))
def test_any_chunking_gives_the_bits_of_one_call(sections: int, cuts: list[int], seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=200)
    cascade = BiquadCascade(cascade_of(sections))
    parts = [cascade.process(part) for part in np.split(x, sorted(cuts))]
    assert np.array_equal(np.concatenate(parts), sosfilt(cascade_of(sections), x))


@beside_scipy
@pytest.mark.parametrize(
    "dtype", [np.float32, np.int8, np.int16, np.int32, np.int64, np.uint16, np.bool_, ">f8", np.longdouble]
)
def test_dtypes_and_strides(signal: ModuleType, dtype: str) -> None:
    x = (np.random.default_rng(3).normal(size=300) * 50).astype(dtype)
    expected = signal.sosfilt(cascade_of(2), x.astype(np.float64))
    assert np.array_equal(sosfilt(cascade_of(2), x), expected)
    assert np.array_equal(sosfilt(cascade_of(2), np.repeat(x, 3)[::3]), expected)
    assert np.array_equal(sosfilt(cascade_of(2), x[::-1]), signal.sosfilt(cascade_of(2), x[::-1].astype(np.float64)))


def test_reset_forgets_and_state_can_be_carried() -> None:
    x = np.random.default_rng(5).normal(size=100)
    cascade = BiquadCascade(cascade_of(3))
    first = cascade.process(x)
    state = cascade.state
    second = cascade.process(x)
    cascade.reset()
    assert np.array_equal(cascade.process(x), first)
    cascade.state = state
    assert np.array_equal(cascade.process(x), second)


@beside_scipy
@settings(deadline=None)
@given(x=st.lists(st.floats(width=64), max_size=30))
def test_nan_infinity_and_extremes_do_what_scipy_does(signal: ModuleType, x: list[float]) -> None:
    with np.errstate(all="ignore"):
        expected = signal.sosfilt(cascade_of(2), np.array(x, dtype=np.float64)) if x else np.empty(0)
    assert np.array_equal(sosfilt(cascade_of(2), x), expected, equal_nan=True)


@beside_scipy
@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("fs", [100, 250, 360, 1000])
def test_butterworth_designs_have_scipys_response(signal: ModuleType, order: int, fs: float) -> None:
    pairs = [
        (butter_bandpass(5, 30, fs, order), signal.butter(order, [5, 30], "bandpass", fs=fs, output="sos")),
        (highpass(0.5, fs, order), signal.butter(order, 0.5, "highpass", fs=fs, output="sos")),
        (lowpass(40, fs, order), signal.butter(order, 40, "lowpass", fs=fs, output="sos")),
    ]
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(signal.sosfreqz(ours, 1024)[1], signal.sosfreqz(theirs, 1024)[1], atol=2e-8)


@beside_scipy
@pytest.mark.parametrize(("freq", "q", "fs"), [(50, 30, 360), (60, 10, 250), (50, 2, 1000)])
def test_notch_is_scipys(signal: ModuleType, freq: float, q: float, fs: float) -> None:
    b, a = signal.iirnotch(freq, q, fs)
    np.testing.assert_allclose(notch(freq, q, fs)[0], [*b, *a], atol=1e-12)


@beside_scipy
@pytest.mark.parametrize("n", [1, 2, 5, 13, 14, 15, 500])
def test_zero_phase_is_scipys_where_scipy_has_room(signal: ModuleType, n: int) -> None:
    x = np.random.default_rng(n).normal(size=n).cumsum()
    sos = butter_bandpass(0.5, 40, 360)
    pad = min(15, n - 1)
    np.testing.assert_allclose(sosfiltfilt(sos, x), signal.sosfiltfilt(sos, x, padlen=pad), atol=1e-9)


def test_zero_phase_of_nothing_is_nothing() -> None:
    assert sosfiltfilt(lowpass(40, 360), []).shape == (0,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: BiquadCascade(np.zeros((2, 5))),
        lambda: BiquadCascade(np.zeros((0, 6))),
        lambda: BiquadCascade([[1, 0, 0, 0, 0, 0]]),
        lambda: BiquadCascade([[np.nan, 0, 0, 1, 0, 0]]),
        lambda: sosfilt(cascade_of(1), np.zeros((2, 3))),
        lambda: sosfilt(cascade_of(1), np.zeros(3, dtype=complex)),
        lambda: butter_bandpass(30, 5, 360),
        lambda: butter_bandpass(5, 200, 360),
        lambda: highpass(0, 360),
        lambda: lowpass(40, 360, order=0),
        lambda: lowpass(40, float("nan")),
        lambda: notch(50, 0, 360),
    ],
)
def test_what_cannot_be_filtered_is_refused(call: object) -> None:
    with pytest.raises(UsageError):
        call()  # type: ignore[operator]


def test_a_state_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError):
        BiquadCascade(cascade_of(2)).state = np.zeros((3, 2))
