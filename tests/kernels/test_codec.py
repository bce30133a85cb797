"""The waveform codec: lossless on anything, equal to its plain Python specification, and calm about damage."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aidpost.errors import UnreadableInputError
from aidpost.kernels import codec, reference_codec

DATA = Path(os.environ.get("AIDPOST_DATA", Path(__file__).parents[3] / "shared/data"))
INT32 = st.integers(-(2**31), 2**31 - 1)


def ecg(leads: int, n: int, seed: int = 0) -> np.ndarray:
    """Something with beats, wander and noise, in counts of 5 uV."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    beat = 200 * np.exp(-((t % 300 - 150) ** 2) / 30) + 40 * np.exp(-((t % 300 - 230) ** 2) / 400)
    gain = rng.uniform(0.3, 1.5, (leads, 1))
    return np.rint(gain * beat + 50 * np.sin(t / 500) + rng.normal(0, 2, (leads, n))).astype(np.int32)


def twelve_leads(n: int) -> np.ndarray:
    one, two, *chest = ecg(8, n)
    limbs = [one, two, two - one, -(one + two) >> 1, (2 * one - two) >> 1, (2 * two - one) >> 1]
    return np.array(limbs + chest, np.int32)


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70), elements=INT32))
@settings(deadline=None)
def test_any_int32_comes_back(samples: np.ndarray) -> None:
    assert np.array_equal(codec.decode(codec.encode(samples)), samples)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 90), INT32, st.integers(0, 30)), min_size=1, max_size=8),
    st.integers(1, 400),
)
@settings(deadline=None)
def test_flat_stepping_and_noisy_stretches_come_back(parts: list[tuple[int, int, int, int]], frame: int) -> None:
    rng = np.random.default_rng(1)
    pieces = []
    for kind, n, level, bits in parts:
        noise = rng.integers(-(1 << bits), 1 << bits, n)
        pieces.append([np.full(n, level), level + noise, noise, np.where(np.arange(n) % 2, level, -level)][kind])
    samples = np.clip(np.concatenate(pieces), -(2**31), 2**31 - 1).astype(np.int32)
    encoded = codec.encode(np.stack([samples, samples[::-1]]), frame_samples=frame)
    assert np.array_equal(codec.decode(encoded), [samples, samples[::-1]])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 31, 32, 33, 8191, 12288, 12289, 40001])
@pytest.mark.parametrize("leads", [1, 3])
def test_every_size_comes_back(leads: int, n: int) -> None:
    samples = ecg(leads, n)
    decoded = codec.decode(codec.encode(samples))
    assert decoded.shape == (leads, n)
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, samples)


@pytest.mark.parametrize("samples", [ecg(1, 700), ecg(3, 501), twelve_leads(300), ecg(2, 400) * 70_000_000], ids=str)
def test_stream_means_what_the_reference_says(samples: np.ndarray) -> None:
    assert reference_codec.decode(codec.encode(samples, frame_samples=256)) == samples.tolist()


@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 3), st.integers(0, 40)), elements=INT32 | st.integers(-40, 40)))
@settings(deadline=None, max_examples=60)
def test_reference_decodes_any_samples(samples: np.ndarray) -> None:
    assert reference_codec.decode(codec.encode(samples)) == samples.tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int64, np.uint32])
def test_integer_types_and_strides(dtype: type) -> None:
    samples = np.arange(120).reshape(4, 30).astype(dtype)
    assert np.array_equal(codec.decode(codec.encode(samples[::-2, ::3])), samples[::-2, ::3])
    assert np.array_equal(codec.decode(codec.encode(samples[0])), samples[:1])


@pytest.mark.parametrize(
    "samples",
    [np.zeros((2, 3)), np.zeros((2, 2, 2), int), np.array([[2**31]]), np.zeros((0, 5), int), np.zeros((256, 1), int)],
)
def test_what_cannot_be_encoded_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(ValueError):
        codec.encode(samples)


def test_derived_leads_cost_almost_nothing() -> None:
    samples = twelve_leads(5000)
    assert len(codec.encode(samples)) < 1.02 * len(codec.encode(np.delete(samples, [2, 3, 4, 5], 0)))


def test_pieces_of_a_recording_make_one_stream() -> None:
    samples = ecg(2, 3000)
    stream = codec.encode(samples[:, :1000], last=False) + codec.encode(samples[:, 1000:], first_sample=1000)
    assert np.array_equal(codec.decode(stream), samples)


@pytest.fixture(scope="module")
def stream() -> tuple[np.ndarray, bytes, list[int]]:
    samples = ecg(2, 4000)
    encoded = codec.encode(samples, frame_samples=500)
    bounds = [0]
    while bounds[-1] < len(encoded):
        bounds.append(bounds[-1] + 17 + int.from_bytes(encoded[bounds[-1] + 8 : bounds[-1] + 11], "little") + 4)
    assert len(bounds) == 9
    return samples, encoded, bounds


def test_every_truncation_gives_every_whole_frame_and_an_error(stream: tuple[np.ndarray, bytes, list[int]]) -> None:
    samples, encoded, bounds = stream
    for cut in [*range(0, len(encoded), 37), *bounds[:-1]]:
        got = codec.decode_frames(encoded[:cut])
        whole = sum(b <= cut for b in bounds[1:])
        assert got.error is not None
        assert got.samples.shape[1] == 500 * whole
        assert np.array_equal(got.samples, samples[:, : 500 * whole][: len(got.samples)])
        with pytest.raises(UnreadableInputError):
            codec.decode(encoded[:cut])


def test_every_damaged_byte_costs_its_own_frame_only(stream: tuple[np.ndarray, bytes, list[int]]) -> None:
    samples, encoded, bounds = stream
    for at in range(0, len(encoded), 53):
        damaged = bytearray(encoded)
        damaged[at] ^= 1 << (at % 8)
        got = codec.decode_frames(bytes(damaged))
        lost = sum(b <= at for b in bounds[1:])
        assert got.error is not None
        assert np.array_equal(got.samples, np.delete(samples, range(500 * lost, 500 * lost + 500), 1))
        if 0 < lost < 7:
            assert got.spans == ((0, 500 * lost), (500 * lost + 500, 4000))
            assert got.missing == ((500 * lost, 500 * lost + 500),)


def test_a_frame_left_out_is_missed(stream: tuple[np.ndarray, bytes, list[int]]) -> None:
    _, encoded, bounds = stream
    got = codec.decode_frames(encoded[: bounds[2]] + encoded[bounds[3] :])
    assert got.missing == ((1000, 1500),)
    assert got.error is not None


def test_frames_of_another_recording_are_not_mixed_in(stream: tuple[np.ndarray, bytes, list[int]]) -> None:
    samples, encoded, _ = stream
    got = codec.decode_frames(encoded + codec.encode(ecg(1, 100), first_sample=4000))
    assert got.error is not None
    assert np.array_equal(got.samples, samples)


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_random_bytes_never_raise(data: bytes) -> None:
    assert codec.decode_frames(data).error is not None


@given(st.integers(1, 4), st.integers(0, 16384), st.binary(max_size=300))
@settings(deadline=None, max_examples=400)
def test_forged_frames_never_crash(leads: int, n: int, body: bytes) -> None:
    frame = b"APW\x01" + bytes([leads, 1]) + n.to_bytes(2, "little") + len(body).to_bytes(3, "little") + bytes(6) + body
    got = codec.decode_frames(frame + zlib.crc32(frame).to_bytes(4, "little"))
    assert got.samples.nbytes <= 4 * 16384 * max(len(body), 1)


@given(st.lists(st.tuples(st.integers(17, 10_000), st.integers(0, 255)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=300)
def test_damage_behind_a_good_checksum_never_crashes(edits: list[tuple[int, int]]) -> None:
    frame = bytearray(codec.encode(ecg(2, 600)))
    for at, value in edits:
        frame[17 + at % (len(frame) - 21)] = value
    frame[-4:] = zlib.crc32(frame[:-4]).to_bytes(4, "little")
    got = codec.decode_frames(bytes(frame))
    assert got.samples.shape[1] in (0, 600)


def test_many_forged_headers_take_linear_time() -> None:
    header = b"APW\x01" + bytes([1, 1]) + (100).to_bytes(2, "little") + (200_000).to_bytes(3, "little") + bytes(6)
    got = codec.decode_frames(header * 40_000)
    assert got.samples.size == 0
    assert got.error is not None


@pytest.mark.skipif(not DATA.exists(), reason=f"no recordings in {DATA}")
def test_smaller_than_flac_on_cinc() -> None:
    """FLAC level 8 needs 0.2776 of the raw bytes for these 68 recordings (libsndfile 1.2)."""
    cinc = np.load(DATA / "ecg/cinc2017/cinc2017.npz")
    signal, offset = cinc["signal_uv"], cinc["offset"]
    pieces = [signal[offset[i] : offset[i + 1]] for i in range(0, 6800, 100)]
    encoded = [codec.encode(piece) for piece in pieces]
    assert all(np.array_equal(codec.decode(e)[0], piece) for e, piece in zip(encoded, pieces, strict=True))
    assert sum(map(len, encoded)) < 0.26 * sum(piece.nbytes for piece in pieces)
