"""What holds for every source of an ECG, serial or Bluetooth, whatever the wire does: bytes one at a time, frames lost,
late, doubled, damaged, overtaken.

The transports are between a simulated sensor and its decoder; ports through which they come live are in test_serial,
test_recovery and test_ble, and Bluetooth's vital signs over bad links in test_ble_contract.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.firmware_bridge.assembler import EcgAssembler
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.decoders import movesense, polar
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.ports._ble_ecg import KINDS, EcgKind, Trace
from aidpost.firmware_bridge.simulators.boards import ENCODERS, frames
from aidpost.firmware_bridge.sources import SourceSpec
from aidpost.records import Device, EcgRecording, Origin, Timestamp

SECONDS = 4
AT = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True)
Timed = Iterable[tuple[float, bytes]]


@dataclass(frozen=True)
class Subject:
    """A sensor and what it promises: `frame` samples a frame; losses told by the frames' numbers or times, which come
    round after `modulus` samples (0: never); a checksum that finds all damage; frames that cannot overtake."""

    name: str
    fs_hz: float
    encode: Callable[[list[int]], list[bytes]]
    receive: Callable[[Timed], EcgRecording]
    frame: int = 1
    numbered: bool = False
    modulus: int = 0
    checked: bool = False
    byte_stream: bool = True
    text: bool = False

    def counts(self) -> list[int]:
        """A rising ECG, 100 to 999 and again, so that a sample shows where it belongs."""
        whole = round(SECONDS * self.fs_hz) // self.frame * self.frame
        return [100 + n % 900 for n in range(whole)]

    def sent(self) -> list[bytes]:
        return self.encode(self.counts())

    def timed(self, pieces: Iterable[bytes]) -> list[tuple[float, bytes]]:
        """Each frame at the time at which the sensor sends it."""
        return [(number * self.frame / self.fs_hz, data) for number, data in enumerate(pieces)]


def _board(name: str) -> Subject:
    board = BOARDS[name]

    def receive(wire: Timed) -> EcgRecording:
        spec = SourceSpec("serial", "x", (("device", name), ("uv_per_count", "1"), ("leads", "I")))
        assembler, decoder = EcgAssembler(board, spec, SECONDS * 2), board.decoder()
        for time_s, data in wire:
            assembler.add(decoder.feed(data), time_s)
        return assembler.recording(at=AT, origin=Origin.SIMULATED, source="x")

    return Subject(
        name,
        board.fs_hz,
        lambda counts: list(frames(name, counts)),
        receive,
        numbered=name in {"cyton", "bitalino", "olimex", "aidpost"},
        modulus=board.modulus,
        checked=name == "aidpost",
        text=name in {"bitalino", "ad8232"},
    )


def _bluetooth(kind: EcgKind, size: int, encode: Callable[[float, tuple[int, ...]], bytes]) -> Subject:
    def encode_all(counts: list[int]) -> list[bytes]:
        starts = range(0, len(counts), size)
        return [encode((n + size) / kind.fs_hz, tuple(counts[n : n + size])) for n in starts]

    def receive(wire: Timed) -> EcgRecording:
        trace = Trace(kind, round(SECONDS * 2 * kind.fs_hz))
        for arrived_s, data in wire:
            try:
                frame = kind.frame(kind.decode(data))
            except DecodeError:
                continue
            if frame is not None:
                trace.add(*frame, arrived_s)
        return trace.recording(uv_per_count=1, at=AT, origin=Origin.LIVE, device=Device(name="strap"), source="")

    return Subject(kind.title, kind.fs_hz, encode_all, receive, frame=size, numbered=True, byte_stream=False)


SUBJECTS = (
    *map(_board, ENCODERS),
    _bluetooth(KINDS[0], 26, lambda end_s, counts: polar.encode_polar_ecg(round(end_s * 1e9), counts)),
    _bluetooth(KINDS[1], 16, lambda end_s, counts: movesense.encode_movesense(round(end_s * 1e3), counts)),
)
EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda one: one.name)
STREAMS = pytest.mark.parametrize("subject", [one for one in SUBJECTS if one.byte_stream], ids=lambda one: one.name)


def lost_of(recording: EcgRecording) -> int:
    return sum(stop - start for start, stop in recording.missing)


def valid(recording: EcgRecording) -> np.ndarray:
    return recording.samples[0][np.isfinite(recording.millivolts(0))]


def without(subject: Subject, gone: set[int]) -> list[int]:
    """The counts of all frames but those."""
    return [count for n, count in enumerate(subject.counts()) if n // subject.frame not in gone]


def test_every_source_of_an_ecg_is_held_to_the_contract() -> None:
    assert {one.name for one in SUBJECTS} == {*BOARDS, *(kind.title for kind in KINDS)}


@STREAMS
def test_one_byte_at_a_time_gives_the_same_recording(subject: Subject) -> None:
    whole = subject.receive(subject.timed(subject.sent()))
    single = subject.receive((t, bytes([b])) for t, data in subject.timed(subject.sent()) for b in data)
    assert single.samples[0].tolist() == whole.samples[0].tolist() == subject.counts()
    assert (single.missing, whole.missing) == ((), ())


@EVERY
def test_a_good_wire_gives_every_sample(subject: Subject) -> None:
    recording = subject.receive(subject.timed(subject.sent()))
    assert (recording.samples[0].tolist(), recording.missing) == (subject.counts(), ())


@EVERY
def test_bytes_that_come_late_are_not_missing(subject: Subject) -> None:
    # as a USB hub or a radio under load does it: in several reads, one after the other
    held = [(1.9 + (t - 1) / 100 if 1 < t < 1.92 else t, data) for t, data in subject.timed(subject.sent())]
    recording = subject.receive(held)
    assert recording.missing == ()
    assert len(recording.samples[0]) == len(subject.counts())


@EVERY
def test_frames_that_are_lost_are_missing_or_at_least_never_invented(subject: Subject) -> None:
    third = len(subject.sent()) // 3
    gone = {third, third + 1, 2 * third}
    recording = subject.receive((t, d) for n, (t, d) in enumerate(subject.timed(subject.sent())) if n not in gone)
    assert valid(recording).tolist() == without(subject, gone)
    if subject.numbered:
        spans = ((third, third + 2), (2 * third, 2 * third + 1))
        assert recording.missing == tuple((a * subject.frame, b * subject.frame) for a, b in spans)


@EVERY
def test_a_second_of_silence_is_a_second_in_the_recording(subject: Subject) -> None:
    wire = [(t, d) for t, d in subject.timed(subject.sent()) if not 1 <= t < 2]
    lost = lost_of(subject.receive(wire))
    # a frame's number alone tells it modulo its range; the clock tells the rest to within that
    assert abs(lost - subject.fs_hz) <= (0 if subject.checked else max(2, subject.modulus / 2, subject.frame))


def test_a_slow_machine_adds_nothing_to_what_exact_numbers_tell() -> None:
    """After a silence the rest came in dribbles, later than any burst: by the clock a fifth of a second was missing."""
    subject = next(one for one in SUBJECTS if one.name == "aidpost")
    wire = [(t if t < 1 else 1.5 + (t - 1) * 2, d) for t, d in subject.timed(subject.sent()) if not 1 <= t < 1.1]
    recording = subject.receive(wire)
    assert recording.missing == ((250, 275),)
    assert valid(recording).tolist() == without(subject, set(range(250, 275)))


@EVERY
def test_a_frame_that_comes_twice_is_one_where_frames_are_numbered(subject: Subject) -> None:
    third = len(subject.sent()) // 3
    twice = {third, 2 * third}
    pieces = [x for n, x in enumerate(subject.timed(subject.sent())) for _ in range(1 + (n in twice))]
    recording = subject.receive(pieces)
    extra = 0 if subject.numbered else len(twice) * subject.frame
    assert len(recording.samples[0]) == len(subject.counts()) + extra
    assert lost_of(recording) == 0
    if subject.numbered:
        assert recording.samples[0].tolist() == subject.counts()


@pytest.mark.parametrize("subject", [one for one in SUBJECTS if not one.byte_stream], ids=lambda one: one.name)
@pytest.mark.parametrize("by", [1, 2, 3])
def test_frames_that_overtake_each_other_come_into_their_order(subject: Subject, by: int) -> None:
    """Bytes on a wire keep their order; notifications that a busy host hands on may not."""
    pieces, third = subject.sent(), len(subject.sent()) // 3
    for place in (third, 2 * third):
        pieces.insert(place + by, pieces.pop(place))
    recording = subject.receive(subject.timed(pieces))
    assert (recording.samples[0].tolist(), recording.missing) == (subject.counts(), ())


@EVERY
@pytest.mark.parametrize("seed", range(3))
def test_damage_costs_the_frames_that_it_hits(subject: Subject, seed: int) -> None:
    rng, hit = random.Random(seed), set()
    pieces = [bytearray(data) for data in subject.sent()]
    for _ in range(8 if subject.frame == 1 else 2):
        number = rng.randrange(len(pieces) // 20 + 1, len(pieces))
        hit.add(number)
        pieces[number][rng.randrange(len(pieces[number]))] ^= 1 << rng.randrange(8)
    recording = subject.receive(subject.timed(map(bytes, pieces)))
    good, got = without(subject, hit), valid(recording).tolist()
    # a line of text may swallow the one after it; a wrong number, time or length costs its neighbour
    assert len(got) >= len(good) - 2 * len(hit) * subject.frame
    if subject.checked:  # what is there is right, and what was hit is missing
        assert got == good
    assert sum(count not in range(100, 1000) for count in got) <= len(hit) * subject.frame
    if not subject.byte_stream:  # each sample that was not hit stands where its own count says
        where = np.flatnonzero(np.isfinite(recording.millivolts(0)))
        right = recording.samples[0][where] == 100 + where % 900
        assert np.count_nonzero(~right) <= 2 * len(hit) * subject.frame


@STREAMS
def test_rubbish_between_frames_costs_no_frame(subject: Subject) -> None:
    rng = random.Random(5)
    noisy = [
        (t, rng.choice((b"", b"", b"\x00\xff\n", b"\n\x11\x22\n\x00")) + d if not subject.checked else d)
        for t, d in subject.timed(subject.sent())
    ]
    got = valid(subject.receive(noisy)).tolist()
    # neither a line of text nor a frame with a checksum of four bits can tell all rubbish from itself
    assert len(got) >= (0.7 if subject.text else 0.9) * len(noisy)


def _trace(kind: EcgKind, times: Iterable[tuple[float, float]], *, again: int = -1) -> Trace:
    """A trace of frames of 26 that count on, at those (sensor's, our) times; the link is made again before `again`."""
    trace = Trace(kind, 4000)
    for n, (time_s, arrived_s) in enumerate(times):
        if n == again:
            trace.resume()
        trace.add(time_s, tuple(range(n * 26, n * 26 + 26)), arrived_s)
    return trace


def test_a_sensor_that_restarts_is_placed_by_our_own_clock() -> None:
    step = 26 / 130
    before = [(100 + n * step, n * step) for n in range(10)]
    after = [(n * step, 10 + n * step) for n in range(5)]  # its clock begins again
    trace = _trace(KINDS[0], [*before, *after], again=10)
    assert trace.missing == [(260, 1300)]
    assert len(trace) == 1300 + 5 * 26


def test_a_link_that_is_made_again_leaves_a_gap_by_the_sensors_clock() -> None:
    step = 26 / 130
    # ours is late by up to a second on either side, as frames are held up: the sensor's alone is exact
    times = [*((n * step, n * step) for n in range(10)), *((n * step, n * step + 0.9) for n in range(60, 65))]
    trace = Trace(KINDS[0], 4000)
    for n, (time_s, arrived_s) in enumerate(times):
        if n == 10:
            trace.resume()
        trace.add(time_s, (7,) * 26, arrived_s)
    assert trace.missing == [(260, 60 * 26)]


def test_a_time_that_cannot_be_is_not_believed() -> None:
    step = 26 / 130
    times = [(n * step, n * step) for n in range(20)]
    times[8] = (1e6, times[8][1])
    trace = _trace(KINDS[0], times)
    assert (trace.missing, len(trace)) == ([], 20 * 26)
    times[8] = (-1e6, 8 * step)
    assert _trace(KINDS[0], times).missing == []


def test_what_never_comes_at_the_end_is_missing() -> None:
    trace = _trace(KINDS[0], [(0.2, 0.2), (0.4, 0.4)])
    trace.finish(2.0)
    assert trace.missing == [(52, 52 + 260)]
    trace.finish(1e9)
    assert (trace.full, trace.missing) == (True, [(52, 4000)])


def test_the_sensors_clock_may_wrap_without_a_loss() -> None:
    trace = Trace(KINDS[1], 100)
    for n in range(5):
        trace.add((2**32 - 256 + 128 * n) % 2**32 / 1000, tuple(range(16)), n * 0.128)
    assert (len(trace), trace.missing) == (80, [])


@given(
    st.sampled_from(KINDS),
    st.lists(
        st.tuples(
            st.floats(0, 2**64 * 1e-9) | st.floats(0, 20),
            st.integers(0, 40),
            st.floats(0, 30) | st.none(),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.floats(0, 1e6),
)
def test_whatever_times_come_a_trace_stays_within_its_limit_and_marks_what_it_lacks(
    kind: EcgKind, frames_: list[tuple[float, int, float | None, bool]], silence_s: float
) -> None:
    trace, arrived = Trace(kind, 500), 0.0
    for time_s, count, passed_s, again in frames_:
        if again:
            trace.resume()
        arrived += passed_s or 0.0
        trace.add(time_s, (5,) * count, None if passed_s is None else arrived)
    trace.finish(silence_s)
    assert len(trace) <= 500
    edges = [edge for span in trace.missing for edge in span]
    assert edges == sorted(edges)
    assert all(start < stop <= len(trace) for start, stop in trace.missing)
    if len(trace):
        recording = trace.recording(uv_per_count=1, at=AT, origin=Origin.LIVE, device=Device(name="x"), source="")
        where = np.isfinite(recording.millivolts(0))
        # a sample that is not missing is one that was sent, and none is sent twice
        assert (recording.samples[0][where] == 5).all()
        assert where.sum() <= sum(count for _, count, _, _ in frames_)
