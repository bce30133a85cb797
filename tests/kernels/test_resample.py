"""Polyphase resampling: the error that its docstring states, and streaming equal to whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.errors import UsageError
from aidpost.kernels import reference_ecg
from aidpost.kernels.resample import Resampler, _phases, resample

RATES = [(360, 250), (360, 300), (500, 250), (1000, 250), (250, 360), (128, 250), (100, 1000), (257, 250), (360, 360.5)]


def tone(hz: float, fs: float, n: int) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(n) / fs + 0.3)


@pytest.mark.parametrize(("fs_in", "fs_out"), RATES)
@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.8])
def test_tones_below_0_8_of_the_lower_nyquist_keep_amplitude_and_phase(
    fs_in: float, fs_out: float, part: float
) -> None:
    hz, n, edge = part * min(fs_in, fs_out) / 2, int(8 * fs_in), int(fs_out)
    y = resample(tone(hz, fs_in, n), fs_in, fs_out)
    assert np.abs(y - tone(hz, fs_out, y.shape[0]))[edge:-edge].max() < 1e-3


@pytest.mark.parametrize(("fs_in", "fs_out"), [(360, 250), (500, 250), (1000, 250), (1000, 100)])
@pytest.mark.parametrize("part", [1.2, 1.35])
def test_tones_above_1_2_of_the_lower_nyquist_leave_no_alias(fs_in: float, fs_out: float, part: float) -> None:
    y = resample(tone(part * fs_out / 2, fs_in, int(8 * fs_in)), fs_in, fs_out)
    assert np.abs(y[int(fs_out) : -int(fs_out)]).max() < 1e-3


@settings(deadline=None, max_examples=50)
@given(
    rates=st.sampled_from(RATES),
    n=st.integers(0, 300),
    cuts=st.lists(st.integers(0, 300), max_size=10),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_chunking_gives_the_bits_of_the_whole(
    rates: tuple[float, float], n: int, cuts: list[int], seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=n)
    resampler = Resampler(*rates)
    parts = [resampler.feed(part) for part in np.split(x, sorted(cuts))]
    joined = np.concatenate([*parts, resampler.flush()])
    assert np.array_equal(joined, resample(x, *rates))
    assert resampler.flush().shape == (0,)


@pytest.mark.parametrize(("up", "down"), [(25, 36), (36, 25), (1, 4), (1, 1), (250, 257)])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_loop_equals_the_reference(up: int, down: int, n: int) -> None:
    x = np.random.default_rng(n).normal(size=n)
    resampler = Resampler(down * 100, up * 100) if max(up, down) < 100 else Resampler(down, up)
    ours = np.concatenate([resampler.feed(x), resampler.flush()])
    np.testing.assert_allclose(ours, reference_ecg.resampled(x, _phases(up, down), up, down), atol=1e-12)


@pytest.mark.parametrize(("fs_in", "fs_out"), RATES)
def test_a_constant_stays(fs_in: float, fs_out: float) -> None:
    assert np.abs(resample(np.full(500, 3.7), fs_in, fs_out) - 3.7).max() < 1e-14


def test_length_dtype_and_equal_rates() -> None:
    x = np.arange(101, dtype=np.float32)
    assert resample(x, 360, 250).dtype == np.float32
    assert resample(x, 360, 250).shape == (71,)
    assert resample(x.astype(np.int16), 360, 250).dtype == np.float64
    same = resample(x, 360, 360)
    assert np.array_equal(same, x)
    assert not np.shares_memory(same, x)
    assert np.array_equal(resample(np.repeat(x, 2)[::2], 360, 250), resample(x, 360, 250))
    assert resample([], 360, 250).shape == (0,)
    assert resample([5.0], 360, 250).tolist() == [5.0]


def test_a_missing_sample_reaches_ten_samples_of_the_lower_rate_and_no_further() -> None:
    x = np.ones(1000)
    x[500] = np.nan
    bad = np.flatnonzero(np.isnan(resample(x, 360, 250)))
    assert np.abs(bad - 500 * 250 / 360).max() <= 12
    assert bad.size > 0


def test_latency_is_what_it_says() -> None:
    resampler = Resampler(360, 250)
    given = resampler.feed(np.zeros(360)).shape[0]
    assert given >= int((1 - resampler.latency_s) * 250)


@pytest.mark.parametrize(("fs_in", "fs_out"), [(0, 250), (360, -1), (360, float("inf")), (100, 50_000)])
def test_impossible_rates_are_refused(fs_in: float, fs_out: float) -> None:
    with pytest.raises(UsageError):
        resample([1.0], fs_in, fs_out)
