"""Signal quality per second: each fault is named where it is, and clean signal passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.errors import UsageError
from aidpost.kernels import reference_ecg
from aidpost.kernels._ecg_quality import measure
from aidpost.kernels.ecg_quality import REASONS, _edges, _high, _low, _tones, assess
from aidpost.kernels.filters import sosfiltfilt

FS = 250.0


def beats(seconds: int = 20, fs: float = FS, noise_mv: float = 0.01) -> np.ndarray:
    """A plain lead: 1 mV R waves of 30 ms every 0.8 s, T waves, a little noise."""
    t = np.arange(int(seconds * fs)) / fs
    phase = np.mod(t, 0.8) - 0.4
    x = np.exp(-((phase / 0.015) ** 2)) + 0.2 * np.exp(-(((phase - 0.25) / 0.05) ** 2))
    return x + np.random.default_rng(0).normal(0, noise_mv, t.shape)


def tone(hz: float, mv: float, like: np.ndarray, fs: float = FS) -> np.ndarray:
    return mv * np.sin(2 * np.pi * hz * np.arange(like.shape[0]) / fs)


@pytest.mark.parametrize("fs", [100.0, 250.0, 360.0, 500.0, 1000.0])
def test_clean_signal_is_usable_throughout(fs: float) -> None:
    quality = assess(beats(fs=fs), fs)
    assert quality.usable.all()
    assert quality.score > 0.8
    assert quality.reasons == ()
    assert quality.unusable_spans() == ()
    assert quality.usable.shape == (20,)


@pytest.mark.parametrize("hz", [50, 60])
def test_mains_is_measured_within_a_tenth_and_named(hz: float) -> None:
    x = beats()
    quality = assess(x + tone(hz, 0.4, x), FS)
    assert np.abs(quality.mains_mv - 0.4).max() < 0.04
    assert quality.reasons[0] == "mains"
    assert not quality.usable.any()


def test_muscle_noise_is_measured_where_it_is() -> None:
    x = beats()
    x[1250:2500] += np.random.default_rng(1).normal(0, 0.3, 1250)
    quality = assess(x, FS)
    assert quality.muscle_mv[6:9].min() > 5 * quality.muscle_mv[12:].max()
    assert not quality.usable[6:9].any()
    assert quality.usable[12:].all()
    assert "muscle" in quality.reasons


def test_wander_is_the_range_within_a_second() -> None:
    x = beats()
    quality = assess(x + tone(0.3, 3.0, x), FS)
    assert quality.reasons == ("wander",)
    assert 4 < quality.wander_mv[2:-2].max() < 6


def test_slow_wander_of_a_breath_is_harmless() -> None:
    x = beats()
    assert assess(x + tone(0.2, 0.3, x), FS).usable.all()


def test_a_flat_stretch_is_flat_and_its_span_is_said() -> None:
    x = beats()
    x[1000:2000] = x[1000]
    quality = assess(x, FS)
    assert quality.flat[4:8].all()
    assert quality.reasons == ("flat",)
    assert quality.unusable_spans() == ((1000, 2000),)


def test_missing_samples_and_a_lead_at_the_rail_are_lead_off() -> None:
    x = beats()
    x[500:1000] = np.nan
    x[2000:2500] = 5.0
    quality = assess(x, FS)
    assert quality.lead_off.tolist() == [s in (2, 3, 8, 9) for s in range(20)]
    assert "lead_off" in quality.reasons


def test_clipping_is_saturation() -> None:
    quality = assess(np.clip(beats() * 3, -0.4, 0.5), FS)
    assert quality.saturated.all()
    assert quality.reasons[0] == "saturated"


def test_noise_counts_against_the_size_of_the_beats() -> None:
    noise = np.random.default_rng(2).normal(0, 0.05, 5000)
    small, tall = assess(0.25 * beats() + noise, FS), assess(3 * beats() + noise, FS)
    assert tall.score > small.score


@settings(deadline=None, max_examples=25)
@given(seconds=st.floats(0.6, 4), fs=st.sampled_from([100.0, 128.0, 250.0, 257.0]), seed=st.integers(0, 2**32 - 1))
def test_loop_equals_the_reference(seconds: float, fs: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.round(random.normal(size=int(seconds * fs)), 1)
    edges = _edges(x.shape[0], fs)
    fast, slow = sosfiltfilt(_high(fs), x), sosfiltfilt(_low(fs), x)
    out = np.empty((edges.shape[0] - 1, 9))
    tones = _tones(fs, int(np.diff(edges).max()))
    measure(x, fast, slow, np.zeros(x.shape[0], np.uint8), edges, tones, x.min(), x.max(), out)
    expected = reference_ecg.quality(x, fast, slow, edges, fs)
    if fs <= 120:
        expected[:, 4:6] = np.where(np.array([50, 60]) < 0.48 * fs, expected[:, 4:6], 0)
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(x=st.lists(st.floats(width=64) | st.sampled_from([0.0, 1e300, -1e300]), max_size=400), fs=st.floats(50, 1000))
def test_anything_gives_a_bounded_answer(x: list[float], fs: float) -> None:
    quality = assess(x, fs)
    assert 0 <= quality.score <= 1
    assert set(quality.reasons) <= set(REASONS)
    assert (quality.usable.shape[0] == 0) == (len(x) == 0)
    assert np.isfinite([quality.mains_mv, quality.muscle_mv, quality.wander_mv]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int64])
def test_dtypes_and_strides(dtype: type) -> None:
    x = (beats() * 100).astype(dtype)
    whole = assess(x.astype(np.float64), FS)
    assert assess(x, FS).score == whole.score
    assert assess(np.repeat(x, 2)[::2], FS).score == whole.score


def test_nothing_scores_nothing() -> None:
    quality = assess([], FS)
    assert quality.score == 0
    assert quality.usable.shape == (0,)


@pytest.mark.parametrize(("x", "fs"), [(np.zeros((2, 2)), 250), (["a"], 250), ([1.0], 10), ([1.0], float("nan"))])
def test_what_is_not_a_lead_is_refused(x: object, fs: float) -> None:
    with pytest.raises(UsageError):
        assess(x, fs)  # type: ignore[arg-type]
