"""What holds for every board, whatever the wire does: bytes one at a time, lost, delayed, doubled, damaged.

The transports are between a simulated board and its decoder; ports through which they come live are in test_serial and
test_recovery.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from aidpost.firmware_bridge.assembler import EcgAssembler
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.ports._ble_ecg import KINDS, EcgKind, Trace
from aidpost.firmware_bridge.simulators.boards import ENCODERS, frames
from aidpost.firmware_bridge.sources import SourceSpec
from aidpost.records import Device, EcgRecording, Origin, Timestamp

SECONDS = 4
NUMBERED = {"cyton", "bitalino", "olimex", "aidpost"}
AT = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True)
Timed = Iterable[tuple[float, bytes]]


def sent(board: str) -> list[bytes]:
    """The frames of a rising ECG, 100 to 999 and again, so that a sample shows where it belongs."""
    return list(frames(board, [100 + n % 900 for n in range(round(SECONDS * BOARDS[board].fs_hz))]))


def timed(board: str, pieces: Iterable[bytes]) -> Iterator[tuple[float, bytes]]:
    """Each frame at the time at which a board sends it."""
    for number, data in enumerate(pieces):
        yield number / BOARDS[board].fs_hz, data


def received(board: str, wire: Timed) -> EcgRecording:
    spec = SourceSpec("serial", "x", (("device", board), ("uv_per_count", "1"), ("leads", "I")))
    assembler, decoder = EcgAssembler(BOARDS[board], spec, SECONDS * 2), BOARDS[board].decoder()
    for time_s, data in wire:
        assembler.add(decoder.feed(data), time_s)
    return assembler.recording(at=AT, origin=Origin.SIMULATED, source="x")


def lost_of(recording: EcgRecording) -> int:
    return sum(stop - start for start, stop in recording.missing)


def valid(recording: EcgRecording) -> np.ndarray:
    return recording.samples[0][np.isfinite(recording.millivolts(0))]


@pytest.mark.parametrize("board", ENCODERS)
def test_one_byte_at_a_time_gives_the_same_recording(board: str) -> None:
    whole = received(board, timed(board, sent(board)))
    single = received(board, ((t, bytes([b])) for t, data in timed(board, sent(board)) for b in data))
    assert single.samples[0].tolist() == whole.samples[0].tolist() == [
        100 + n % 900 for n in range(round(SECONDS * BOARDS[board].fs_hz))
    ]  # fmt: skip
    assert (single.missing, whole.missing) == ((), ())


@pytest.mark.parametrize("board", ENCODERS)
def test_bytes_that_come_late_are_not_missing(board: str) -> None:
    pieces = list(timed(board, sent(board)))
    # as a USB hub under load does it: in several reads, one after the other
    held = [(1.9 + (t - 1) / 100 if 1 < t < 1.92 else t, data) for t, data in pieces]
    recording = received(board, held)
    assert recording.missing == ()
    assert len(recording.samples[0]) == len(pieces)


@pytest.mark.parametrize("board", ENCODERS)
def test_frames_that_are_lost_are_missing_or_at_least_never_invented(board: str) -> None:
    gone = {200, 201, 350}
    recording = received(board, ((t, d) for n, (t, d) in enumerate(timed(board, sent(board))) if n not in gone))
    expected = [100 + n % 900 for n in range(len(sent(board))) if n not in gone]
    assert valid(recording).tolist() == expected
    if board in NUMBERED:
        assert recording.missing == ((200, 202), (350, 351))


@pytest.mark.parametrize("board", ENCODERS)
def test_a_second_of_silence_is_a_second_in_the_recording(board: str) -> None:
    fs_hz = BOARDS[board].fs_hz
    wire = [(t, d) for t, d in timed(board, sent(board)) if not 1 <= t < 2]
    lost = lost_of(received(board, wire))
    # a frame's number alone tells it modulo its range; the clock tells the rest to within that
    assert abs(lost - fs_hz) <= max(2, BOARDS[board].modulus / 2)


@pytest.mark.parametrize("board", ENCODERS)
def test_a_frame_that_comes_twice_is_one_where_frames_are_numbered(board: str) -> None:
    twice = {200, 350}
    pieces = [(t, d) for n, (t, d) in enumerate(timed(board, sent(board))) for _ in range(1 + (n in twice))]
    recording = received(board, pieces)
    extra = 0 if board in NUMBERED else len(twice)
    assert len(recording.samples[0]) == len(sent(board)) + extra
    assert lost_of(recording) == 0


@pytest.mark.parametrize("board", ENCODERS)
@pytest.mark.parametrize("seed", range(3))
def test_damage_costs_the_frames_that_it_hits(board: str, seed: int) -> None:
    rng, hit = random.Random(seed), set()
    pieces = [bytearray(data) for data in sent(board)]
    for _ in range(8):
        number = rng.randrange(20, len(pieces))
        hit.add(number)
        pieces[number][rng.randrange(len(pieces[number]))] ^= 1 << rng.randrange(8)
    recording = received(board, timed(board, map(bytes, pieces)))
    good = [100 + n % 900 for n in range(len(pieces)) if n not in hit]
    got = valid(recording).tolist()
    # a line of text may swallow the one after it; a wrong number or length costs its neighbour
    assert len(got) >= len(good) - 2 * len(hit)
    if board == "aidpost":  # a CRC-32: what is there is right, and what was hit is missing
        assert got == good
    assert sum(count not in range(100, 1000) for count in got) <= len(hit)


@pytest.mark.parametrize("board", ENCODERS)
def test_rubbish_between_frames_costs_no_frame(board: str) -> None:
    rng = random.Random(5)
    noisy = [
        (t, rng.choice((b"", b"", b"\x00\xff\n", b"\n\x11\x22\n\x00")) + d if board != "aidpost" else d)
        for t, d in timed(board, sent(board))
    ]
    got = valid(received(board, noisy)).tolist()
    # neither a line of text nor a frame with a checksum of four bits can tell all rubbish from itself
    assert len(got) >= (0.7 if board in ("bitalino", "ad8232") else 0.9) * len(noisy)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_a_bluetooth_frame_that_is_lost_is_missing_at_its_place(kind: EcgKind) -> None:
    size, trace = 16, Trace(kind, 4000)
    for n in range(0, 1600, size):
        if n not in (320, 336, 800):
            trace.add((n + size) / kind.fs_hz, tuple(range(n, n + size)))
    assert trace.missing == [(320, 352), (800, 816)]
    recording = trace.recording(uv_per_count=1, at=AT, origin=Origin.LIVE, device=Device(name="strap"), source="")
    got, where = recording.samples[0], np.isfinite(recording.millivolts(0))
    assert (got[where] == np.flatnonzero(where)).all()


def test_the_sensors_clock_may_wrap_without_a_loss() -> None:
    movesense = KINDS[1]
    trace = Trace(movesense, 100)
    for n in range(5):
        trace.add((2**32 - 256 + 128 * n) % 2**32 / 1000, tuple(range(16)))
    assert (len(trace), trace.missing) == (80, [])
