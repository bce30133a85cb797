"""R-peaks: accuracy on recordings, streaming equal to whole, and what the input may do without harm."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.errors import UsageError
from aidpost.kernels import reference_rpeaks
from aidpost.kernels._rpeaks import Core, Forest, Network
from aidpost.kernels.resample import resample
from aidpost.kernels.rpeaks import RPeakDetector, detect

DATA = Path(os.environ.get("AIDPOST_DATA", Path(__file__).parents[2] / "../shared/data")) / "ecg"
MITDB = sorted(path.with_suffix("") for path in (DATA / "mitdb").glob("*.hea"))
needs_mitdb = pytest.mark.skipif(not MITDB, reason=f"no MIT-BIH records under {DATA}")
BEATS = set("NLRBAaJSVrFejnE/fQ?")


def train(seconds: float = 30, fs: float = 360, rr: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A lead in mV with P, QRS and T waves every `rr` s with 3 % jitter, and the samples of its R-peaks."""
    random = np.random.default_rng(seed)
    beats = 0.5 + np.cumsum(rr * (1 + random.normal(0, 0.03, int(seconds / rr) - 1)))
    beats = np.round(beats[beats < seconds - 0.5] * fs) / fs
    t = np.arange(int(seconds * fs)) / fs
    x = random.normal(0, 0.01, t.shape)
    for beat in beats:
        for size, delay, width in ((0.12, -0.16, 0.025), (-0.15, -0.03, 0.01), (1.1, 0, 0.011), (0.25, 0.27, 0.05)):
            x += size * np.exp(-(((t - beat - delay) / width) ** 2))
    return x, np.round(beats * fs).astype(np.int64)


def errors(found: np.ndarray, beats: np.ndarray, tolerance: float) -> tuple[int, int]:
    """(false, missed), each beat matched once, to its nearest."""
    false, i, j, missed = 0, 0, 0, 0
    while i < len(found) and j < len(beats):
        gap = abs(found[i] - beats[j])
        if gap > tolerance and found[i] < beats[j]:
            false, i = false + 1, i + 1
        elif gap > tolerance:
            missed, j = missed + 1, j + 1
        elif i + 1 < len(found) and abs(found[i + 1] - beats[j]) < gap:
            false, i = false + 1, i + 1
        elif j + 1 < len(beats) and abs(found[i] - beats[j + 1]) < gap:
            missed, j = missed + 1, j + 1
        else:
            i, j = i + 1, j + 1
    return false + len(found) - i, missed + len(beats) - j


def mitdb(path: Path) -> tuple[np.ndarray, float, np.ndarray, list[tuple[int, int]]]:
    wfdb = pytest.importorskip("wfdb")
    record, marks = wfdb.rdrecord(str(path), channels=[0]), wfdb.rdann(str(path), "atr")
    symbols, samples = np.array(marks.symbol), np.array(marks.sample)
    flutter = list(zip(samples[symbols == "["], samples[symbols == "]"], strict=True))
    return record.p_signal[:, 0], record.fs, samples[[s in BEATS for s in symbols]], flutter


def outside(samples: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    return samples[[not any(start <= s <= end for start, end in spans) for s in samples]]


@needs_mitdb
@pytest.mark.slow_emulated
def test_record_101_has_at_most_six_errors() -> None:
    x, fs, beats, _ = mitdb(DATA / "mitdb" / "101")
    assert sum(errors(detect(x, fs).sample, beats, 0.15 * fs)) <= 6


@needs_mitdb
@pytest.mark.slow_emulated
def test_f1_over_the_shared_records_stays_above_what_was_reached() -> None:
    false = missed = total = 0
    for path in MITDB:
        x, fs, beats, flutter = mitdb(path)
        wrong, lost = errors(outside(detect(x, fs).sample, flutter), outside(beats, flutter), 0.15 * fs)
        false, missed, total = false + wrong, missed + lost, total + len(outside(beats, flutter))
    right = total - missed
    assert 2 * right / (2 * right + false + missed) > 0.9988


@needs_mitdb
@pytest.mark.slow_emulated
def test_flutter_is_said_to_be_unsure() -> None:
    x, fs, _, flutter = mitdb(DATA / "mitdb" / "207")
    unsure = np.zeros(x.shape[0], dtype=bool)
    for start, end in detect(x, fs).unsure:
        unsure[start:end] = True
    inside = np.zeros_like(unsure)
    for start, end in flutter:
        inside[start:end] = True
    assert unsure[inside].mean() > 5 * unsure[~inside].mean()


@needs_mitdb
@pytest.mark.slow_emulated
@pytest.mark.parametrize("fs", [100, 128, 250, 500, 1000])
def test_other_rates_find_the_same_beats(fs: float) -> None:
    x, original, beats, _ = mitdb(DATA / "mitdb" / "119")
    minutes = int(300 * original)
    y, expected = resample(x[:minutes], original, fs), beats[beats < minutes] * fs / original
    assert sum(errors(detect(y, fs).sample, expected, 0.15 * fs)) <= 2


@pytest.mark.parametrize("fs", [100, 125, 128, 200, 250, 257.5, 300, 360, 500, 512, 1000])
@pytest.mark.parametrize("rr", [0.35, 0.6, 0.8, 1.6])
def test_a_clean_lead_is_found_whole_and_within_a_sample_of_its_peaks(fs: float, rr: float) -> None:
    x, beats = train(fs=fs, rr=rr)
    found = detect(x, fs).sample
    assert errors(found, beats, 0.05 * fs) == (0, 0)
    assert np.abs(found - beats).max() <= max(1, 0.004 * fs)


@pytest.mark.parametrize("fs", [100, 360, 1000])
def test_every_peak_is_a_local_extremum(fs: float) -> None:
    x, _ = train(fs=fs, seed=3)
    x += np.random.default_rng(1).normal(0, 0.05, x.shape)
    for peak in detect(x, fs).sample:
        near = x[max(0, peak - 1) : peak + 2]
        assert x[peak] in (near.max(), near.min())


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 6000), max_size=40),
    seed=st.integers(0, 2**32 - 1),
    fs=st.sampled_from([100.0, 250.0, 360.0]),
    gap=st.booleans(),
)
def test_any_chunking_gives_the_answer_of_the_whole(cuts: list[int], seed: int, fs: float, gap: bool) -> None:
    x, _ = train(seconds=6000 / fs, fs=fs, seed=seed)
    if gap:
        x[1000:2500] = np.nan
    detector = RPeakDetector(fs)
    parts = [detector.feed(part) for part in np.split(x, sorted(cuts))]
    parts.append(detector.flush())
    whole = detect(x, fs)
    assert np.array_equal(np.concatenate([part.sample for part in parts]), whole.sample)
    assert sum((part.unsure for part in parts), ()) == whole.unsure


def test_single_samples_give_the_answer_of_the_whole_and_in_time() -> None:
    x, _ = train(seconds=30, fs=250)
    detector, found = RPeakDetector(250), []
    for number, sample in enumerate(x):
        peaks = detector.feed([sample]).sample
        assert (number - peaks <= detector.latency_s * 250).all()
        found += peaks.tolist()
    assert [*found, *detector.flush().sample] == detect(x, 250).sample.tolist()


def test_flush_makes_the_detector_as_new() -> None:
    x, _ = train()
    detector = RPeakDetector(360)
    first = np.concatenate([detector.feed(x).sample, detector.flush().sample])
    again = np.concatenate([detector.feed(x).sample, detector.flush().sample])
    assert np.array_equal(first, again)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), offset=st.sampled_from([0.0, 1.0, -3.5]))
def test_either_polarity_and_any_offset_give_the_same_peaks(seed: int, offset: float) -> None:
    x, _ = train(seconds=15, seed=seed)
    expected = detect(x, 360).sample
    assert np.array_equal(detect(-x, 360).sample, expected)
    assert np.abs(detect(x + offset, 360).sample - expected).max() <= 1


@pytest.mark.parametrize("gain", [0.25, 0.5, 2, 4, 16])
def test_gain_does_not_matter(gain: float) -> None:
    x, beats = train()
    assert np.abs(detect(gain * x, 360).sample - beats).max() <= 2


def test_below_the_standards_smallest_beat_nothing_is_found() -> None:
    x, _ = train()
    assert detect(0.02 * x, 360).sample.size == 0


def test_a_gap_is_unsure_and_makes_no_beat() -> None:
    x, beats = train(seconds=40)
    x[5000:7000] = np.nan
    x[7000:] += 2.0  # the electrode comes back at another potential
    answer = detect(x, 360)
    outside_gap = beats[(beats < 4950) | (beats > 7050)]
    false, missed = errors(answer.sample, outside_gap, 54)
    assert false == 0
    assert missed <= 1
    assert any(start <= 5400 and end >= 6800 for start, end in answer.unsure)


@lru_cache(maxsize=1)
def learned() -> tuple[list, list, int]:
    """(features, thresholds, leaves, start), (weights, biases) and below which score the second judgement is asked."""
    with np.load(str(files("aidpost.kernels") / "rpeaks_trees.npz")) as stored:
        forest = [*(stored[name] for name in ("feature", "threshold", "value")), int(stored["bias"])]
        network = [[stored[f"{name}{layer}"] for layer in range(5)] for name in ("weights", "biases")]
        return forest, network, int(stored["doubt"])


def trace(x: np.ndarray, fs: float, doubt: int, columns: int) -> np.ndarray:
    """Rows of (place at 125 Hz, first score, what a judgement is shown...) as the loops have them."""
    rows = np.empty((x.shape[0], columns + 2))
    forest, network, _ = learned()
    core = Core(fs, Forest(*forest), Network(*network), doubt, rows)
    core.feed(x)
    core.finish()
    return rows[: core.traced]


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    fs=st.sampled_from([50.0, 100.0, 257.5, 360.0, 1000.0]),
    rr=st.floats(0.3, 1.5),
    noise=st.sampled_from([0.0, 0.05, 0.3]),
    seconds=st.sampled_from([0.02, 1.0, 4.0, 13.0]),
)
def test_loops_equal_the_reference(seed: int, fs: float, rr: float, noise: float, seconds: float) -> None:
    x, _ = train(seconds=max(seconds, 4), fs=fs, rr=rr, seed=seed)
    x = (x + np.random.default_rng(seed).normal(0, noise, x.shape))[: int(seconds * fs)]
    forest, network, doubt = learned()
    lead = reference_rpeaks.front(x, fs)
    candidates = reference_rpeaks.judged(lead, reference_rpeaks.Trees(*forest))
    first = [[c.at, c.score, *c.features] for c in candidates]
    assert np.array_equal(trace(x, fs, 0, 13), np.reshape(first, (-1, 15)))
    doubtful = [index for index, c in enumerate(candidates) if abs(c.score) < doubt]
    shown = [reference_rpeaks.look(lead, candidates, index) for index in doubtful]
    rows = [[candidates[i].at, candidates[i].score, *s] for i, s in zip(doubtful, shown, strict=True)]
    assert np.array_equal(trace(x, fs, doubt, 121), np.reshape(rows, (-1, 123)))
    for row in shown:
        assert Network(*network).judge(row.astype(np.int16)) == reference_rpeaks.network(*network, row)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0, 1, 60, 1000]), largest=st.booleans())
def test_any_network_equals_the_reference(seed: int, size: int, largest: bool) -> None:
    random = np.random.default_rng(seed)
    shapes = [(8, 8), (16, 40), (16, 80), (24, 232), (1, 24)]
    weights = [random.integers(-size, size + 1, shape).astype(np.int16) for shape in shapes]
    weights[0][:, 7] = 0
    biases = [random.integers(-size << 10, (size << 10) + 1, shape[0]).astype(np.int32) for shape in shapes]
    shown = np.full(121, -1024 if seed % 2 else 1024) if largest else random.integers(-1024, 1025, 121)
    found = Network(weights, biases).judge(shown.astype(np.int16))
    assert found == reference_rpeaks.network(weights, biases, shown)


@pytest.mark.parametrize("wrong", ["count", "shape", "overflow"])
def test_a_network_that_would_read_elsewhere_or_overflow_is_refused(wrong: str) -> None:
    weights = [np.zeros(shape, np.int16) for shape in [(8, 8), (16, 40), (16, 80), (24, 232), (1, 24)]]
    biases = [np.zeros(len(weight), np.int32) for weight in weights]
    if wrong == "count":
        weights = weights[:4]
    elif wrong == "shape":
        weights[2] = np.zeros((16, 72), np.int16)
    else:
        weights[3][5] = 2300
    with pytest.raises(ValueError, match="layer"):
        Network(weights, biases)


@pytest.mark.parametrize(
    ("feature", "shape"), [(np.full((1, 7), 13), (1, 8)), (np.full((1, 7), -1), (1, 8)), (np.zeros((1, 7)), (2, 8))]
)
def test_a_forest_that_would_read_elsewhere_is_refused(feature: np.ndarray, shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="feature"):
        Forest(feature.astype(np.int32), np.zeros((1, 7)), np.zeros(shape, np.int64), 0)


@pytest.mark.parametrize("fs", [100, 125, 250])
@pytest.mark.parametrize("seed", range(4))
def test_hiss_after_the_last_beat_makes_none(fs: float, seed: int) -> None:
    t = np.arange(20 * fs) / fs
    beats = np.arange(0.5, 19, 1.0)
    x = np.exp(-(((t[:, None] - beats) / 0.014) ** 2)).sum(axis=1) + 0.25 * np.exp(
        -(((t[:, None] - beats - 0.26) / 0.07) ** 2)
    ).sum(axis=1)
    found = detect(x + np.random.default_rng(seed).normal(0, 0.005, x.shape), fs).sample
    assert errors(found, np.round(beats * fs), 0.05 * fs) == (0, 0)


@pytest.mark.parametrize("missing", [1, 100, 2000])
def test_a_lead_that_begins_with_missing_samples_keeps_its_places(missing: int) -> None:
    x, beats = train()
    found = detect(np.concatenate([np.full(missing, np.nan), x + 1.5]), 360).sample
    assert errors(found, beats + missing, 2) == (0, 0)


def test_clipped_seconds_are_unsure_and_the_others_are_not() -> None:
    x, _ = train(seconds=40, fs=250)
    assert detect(x, 250).unsure == ()
    x[3000:5000] *= 8
    (span,) = detect(np.clip(x, -9.0, 1.5), 250).unsure
    assert span == (3000, 5000)


def test_a_lead_at_the_rail_is_unsure() -> None:
    x, _ = train(seconds=40, fs=250)
    x[3000:6000] = 5.0
    assert any(start <= 3000 and end >= 6000 for start, end in detect(x, 250).unsure)


def test_a_pacing_spike_before_each_beat_is_no_beat_of_its_own() -> None:
    x, beats = train()
    for beat in beats:
        x[beat - 58 : beat - 57] += 2.0
    found = detect(x, 360).sample
    assert errors(found, beats, 0.17 * 360) == (0, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.int64, ">f8"])
def test_dtypes_and_strides(dtype: str) -> None:
    x = (train()[0] * 4).astype(dtype)
    expected = detect(x.astype(np.float64), 360).sample
    assert np.array_equal(detect(x, 360).sample, expected)
    assert np.array_equal(detect(np.repeat(x, 2)[::2], 360).sample, expected)


@settings(deadline=None, max_examples=60)
@given(
    x=st.lists(st.floats(width=64) | st.sampled_from([0.0, 1e9, -1e9, 1000.0, -1000.0]), max_size=900),
    fs=st.sampled_from([50.0, 100.0, 257.5, 1000.0, 10_000.0]),
)
def test_anything_gives_rising_samples_within_the_input(x: list[float], fs: float) -> None:
    answer = detect(x, fs)
    assert (np.diff(answer.sample) > 0).all()
    assert all(0 <= s < len(x) for s in answer.sample)
    assert all(0 <= start < end <= len(x) for start, end in answer.unsure)


@pytest.mark.parametrize("x", [[], [0.0], [5.0], np.full(5000, 0.3), np.full(5000, np.nan), np.full(5000, np.inf)])
def test_nothing_there_is_nothing_found(x: object) -> None:
    assert detect(x, 360).sample.size == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(("x", "fs"), [(np.zeros((2, 2)), 250), (["a"], 250), ([1.0], 10), ([1.0], float("nan"))])
def test_what_is_not_a_lead_is_refused(x: object, fs: float) -> None:
    with pytest.raises(UsageError):
        detect(x, fs)  # type: ignore[arg-type]
