"""Captures: written, cut off, damaged, and played again through the same decoders."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.errors import UnreadableInputError, UsageError
from aidpost.firmware_bridge.capture import MAX_CHUNK, CaptureHeader, CaptureWriter, Chunk, open_capture
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders.blood_pressure import encode_blood_pressure
from aidpost.firmware_bridge.simulators.boards import BoardSimulator, frames
from aidpost.firmware_bridge.sources import Kind, open_source
from aidpost.records import Origin, VitalKind


def write(path: Path, chunks: list[Chunk], header: CaptureHeader | None = None) -> None:
    with CaptureWriter(path, header or CaptureHeader("cyton", "test", 1, 2)) as writer:
        for chunk in chunks:
            writer.write(chunk)


def cyton(count: int, *, gap: range = range(0)) -> list[Chunk]:
    return [Chunk(n * 4000, data) for n, data in enumerate(frames("cyton", range(100, 100 + count))) if n not in gap]


@given(st.lists(st.tuples(st.integers(0, 2**40), st.binary(max_size=200)), max_size=20))
def test_a_capture_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[int, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("capture") / "x"
    chunks = [Chunk(at, data) for at, data in items if data]
    write(path, chunks)
    capture = open_capture(path)
    assert capture is not None
    assert list(capture.chunks()) == chunks
    assert capture.complete
    assert (capture.header.device, capture.header.boot) == ("cyton", 2)


def test_a_large_chunk_is_split(tmp_path: Path) -> None:
    write(tmp_path / "x", [Chunk(5, bytes(MAX_CHUNK + 10))])
    capture = open_capture(tmp_path / "x")
    assert capture is not None
    assert [len(chunk.data) for chunk in capture.chunks()] == [MAX_CHUNK, 10]


def test_a_capture_cut_off_anywhere_gives_what_is_whole(tmp_path: Path) -> None:
    chunks = cyton(5)
    write(tmp_path / "x", chunks)
    data = (tmp_path / "x").read_bytes()
    start = data.index(b"}") + 1
    for length in range(start + 1, len(data)):
        (tmp_path / "cut").write_bytes(data[:length])
        capture = open_capture(tmp_path / "cut")
        assert capture is not None
        found = list(capture.chunks())
        assert found == chunks[: len(found)]
        assert capture.complete is ((length - start) % 51 == 0)
    for length in range(8, start):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(UnreadableInputError, match="header"):
            open_capture(tmp_path / "cut")


def test_a_damaged_chunk_ends_the_capture(tmp_path: Path) -> None:
    write(tmp_path / "x", cyton(5))
    data = bytearray((tmp_path / "x").read_bytes())
    data[-60] ^= 1
    (tmp_path / "x").write_bytes(data)
    capture = open_capture(tmp_path / "x")
    assert capture is not None
    assert len(list(capture.chunks())) == 3
    assert not capture.complete


def test_a_newer_capture_and_a_missing_one_say_so(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path / "x", [])
    data = (tmp_path / "x").read_bytes().replace(b'"version": 1', b'"version": 9')
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UnreadableInputError, match="newer"):
        open_capture(tmp_path / "x")
    with pytest.raises(UnreadableInputError, match="cannot be opened"):
        open_source(f"replay:{tmp_path}/none?device=cyton", clock=clock)


def test_replay_is_marked_and_exact_and_keeps_its_gaps(tmp_path: Path, clock: Clock) -> None:
    # 400 frames lost: more than the frame number can tell, so the times have to
    write(tmp_path / "x", cyton(1000, gap=range(300, 700)))
    source = open_source(f"replay:{tmp_path}/x?leads=II", clock=clock)
    recording = source.read_ecg()
    assert (recording.origin, recording.leads, recording.fs_hz) == (Origin.REPLAY, ("II",), 250)
    assert recording.missing == ((300, 700),)
    np.testing.assert_array_equal(recording.samples[0, 700:], np.arange(800, 1100))
    assert source.read_ecg(1).samples.shape == (1, 250)


def test_raw_bytes_need_their_board_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "raw").write_bytes(b"".join(frames("olimex", range(300))))
    with pytest.raises(UsageError, match="does not say which board"):
        open_source(f"replay:{tmp_path}/raw", clock=clock)
    recording = open_source(f"replay:{tmp_path}/raw?device=olimex&uv_per_count=5", clock=clock).read_ecg()
    assert recording.samples.shape == (1, 300)
    with pytest.raises(UnreadableInputError, match="no frame of ProtoCentral"):
        open_source(f"replay:{tmp_path}/raw?device=healthypi4", clock=clock).read_ecg()


def test_real_pace_takes_as_long_as_it_took(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path / "x", cyton(100))
    began = time.monotonic()
    open_source(f"replay:{tmp_path}/x?pace=real", clock=clock).read_ecg()
    assert time.monotonic() - began >= 0.39


def test_what_a_port_sent_is_recorded_and_replayed(tmp_path: Path, clock: Clock) -> None:
    with BoardSimulator("healthypi4", [n % 500 for n in range(2000)]) as board:
        source = open_source(f"serial:{board.port}?device=healthypi4", clock=clock)
        assert source.record(tmp_path / "x", 1.0) > 1000
        source.close()
    replay = open_source(f"replay:{tmp_path}/x", clock=clock)
    recording = replay.read_ecg()
    assert set(np.diff(recording.samples[0]).tolist()) <= {1, -499}
    assert {v.kind for v in replay.read_vitals()} >= {VitalKind.SPO2, VitalKind.HEART_RATE}


def test_a_bluetooth_capture_gives_its_vital_signs(tmp_path: Path, clock: Clock) -> None:
    header = CaptureHeader("cuff", "AA:BB:CC:DD:EE:FF", channels=("2A35", "2A19"))
    chunks = [
        Chunk(0, b"\x50", "2A19"),
        Chunk(10, b"\x02", "2A35"),
        Chunk(20, encode_blood_pressure(150, 95, 113, 80), "2A35"),
    ]
    write(tmp_path / "x", chunks, header)
    source = open_source(f"replay:{tmp_path}/x", clock=clock)
    assert source.kinds == {Kind.VITALS}
    vitals = {v.kind: v.value for v in source.read_vitals()}
    assert vitals[VitalKind.SYSTOLIC_BP] == 150
    with pytest.raises(UsageError):
        source.read_ecg()
