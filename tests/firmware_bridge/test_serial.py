"""Serial ports, live, through pseudo-terminals: a MIT-BIH record as HealthyPi frames, and what goes wrong with
ports."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from aidpost.errors import DeviceError, DeviceNotFoundError, DeviceTimeoutError
from aidpost.firmware_bridge.assembler import EcgAssembler
from aidpost.firmware_bridge.boards import identify
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.wfdb import read_wfdb
from aidpost.firmware_bridge.ports import serial as port
from aidpost.firmware_bridge.simulators.boards import ENCODERS, BoardSimulator, frames
from aidpost.firmware_bridge.simulators.ecg import simulate_ecg
from aidpost.firmware_bridge.sources import open_source
from aidpost.firmware_bridge.supervisor import Supervisor
from aidpost.records import Origin, VitalKind


def ramp(count: int) -> list[int]:
    return [n % 1000 for n in range(count)]


def test_a_mitbih_record_through_a_pty_as_healthypi4_frames(public_data: Path, clock: Clock) -> None:
    wave = read_wfdb(public_data / "ecg" / "mitdb" / "101")
    # HealthyPi samples at 125 Hz: every third of 360 Hz is near enough, the counts are what is compared
    counts = wave.counts[0, ::3][:60_000].tolist()
    with BoardSimulator("healthypi4", counts, speed=2) as board:
        source = open_source(f"serial:{board.port}?device=healthypi4", clock=clock)
        try:
            recording = source.read_ecg(4)
        finally:
            source.close()
    assert recording.origin is Origin.LIVE
    assert (recording.fs_hz, recording.leads, recording.samples.shape) == (125, ("I",), (1, 500))
    assert recording.missing == ()
    start = next(n for n in range(len(counts) - 500) if counts[n : n + 20] == recording.samples[0, :20].tolist())
    np.testing.assert_array_equal(recording.samples[0], counts[start : start + 500])


def test_damage_on_the_wire_is_missing_in_the_recording(clock: Clock) -> None:
    def damage(number: int, data: bytes) -> bytes:
        return b"" if 250 <= number % 500 < 253 else data

    with BoardSimulator("cyton", ramp(4000), damage=damage) as board:
        source = open_source(f"serial:{board.port}?device=cyton&leads=II", clock=clock)
        recording = source.read_ecg(3)
        source.close()
    # 3 s hold one such gap whole, and may begin or end in another
    assert 3 in [stop - start for start, stop in recording.missing]
    got = recording.samples[0]
    steps = np.diff(got)[np.isfinite(recording.millivolts(0)[1:]) & np.isfinite(recording.millivolts(0)[:-1])]
    assert set(steps.tolist()) <= {1, -999}


def test_a_silence_is_as_long_in_the_recording_as_on_the_wire(clock: Clock) -> None:
    with BoardSimulator("healthypi4", itertools.cycle(ramp(1000))) as board:
        source = open_source(f"serial:{board.port}?device=healthypi4", clock=clock)
        lost: list[int] = []

        def watch(assembler: EcgAssembler) -> None:
            """Silence the board once samples have come; the port's process notes arrivals meanwhile."""
            if len(assembler) >= 125 and not lost:
                board.pause()
                before = board.unheard
                while board.unheard - before < 250:
                    time.sleep(0.02)
                board.resume()
                lost.append(before)

        source.watcher = watch
        recording = source.read_ecg(8)
        gone, restarts = board.unheard - lost[0], source.restarts
        source.close()
    missing = sum(stop - start for start, stop in recording.missing)
    # a frame has no number, so that the clock alone tells it: to within what a busy machine holds arrivals up
    assert 0.7 * gone < missing
    # one so busy that the port's process did not run for seconds, and was replaced, lost more than the board held back
    assert restarts or missing < 1.3 * gone


def test_vital_signs_that_the_board_works_out(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with BoardSimulator("healthypi4", ramp(8000), speed=4) as board:
        source = open_source(f"serial:{board.port}?device=healthypi4", clock=clock)
        vitals = {v.kind: v.value for v in source.read_vitals()}
        source.close()
    assert vitals == {
        VitalKind.TEMPERATURE: 36.9, VitalKind.RESPIRATORY_RATE: 15, VitalKind.SPO2: 98, VitalKind.HEART_RATE: 72
    }  # fmt: skip


def test_a_port_that_is_not_there_and_one_that_is_silent(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "FIRST_BYTE_S", 0.5)
    with pytest.raises(DeviceNotFoundError, match="not there"):
        list(open_source("serial:/dev/ttyNONE?device=cyton", clock=clock).chunks(None, 9600, 0.5))
    with BoardSimulator("cyton", []) as board:
        source = open_source(f"serial:{board.port}?device=cyton", clock=clock)
        with pytest.raises(DeviceTimeoutError, match="sent nothing"):
            list(source.chunks(None, 9600, 0.5))
        source.close()


def test_another_board_than_the_one_named_is_found_out(clock: Clock) -> None:
    with BoardSimulator("cyton", ramp(20_000), speed=4) as board:
        source = open_source(f"serial:{board.port}?device=olimex&uv_per_count=5", clock=clock)
        with pytest.raises(DeviceError, match="none was a frame of Olimex"):
            source.read_ecg(2)
        source.close()


def test_a_board_that_is_unplugged_leaves_what_it_sent(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "SILENCE_S", 1.0)
    with BoardSimulator("healthypi4", ramp(40_000), speed=4) as board:
        source = open_source(f"serial:{board.port}?device=healthypi4", clock=clock)

        def leave() -> None:
            while board.sent < 3000:
                time.sleep(0.05)
            board.unplug()

        leaving = threading.Thread(target=leave)
        leaving.start()
        try:
            recording = source.read_ecg(60)
        finally:
            source.close()  # a worker left behind would go on looking for the port
            leaving.join()
    assert recording.missing
    assert recording.missing[-1][1] == recording.samples.shape[1]
    assert np.isfinite(recording.millivolts(0)).sum() > 125


def test_a_worker_that_is_killed_or_hangs_is_replaced(clock: Clock) -> None:
    """Within 3 s by its own limits (test_recovery): a busy machine's clock says nothing."""
    with BoardSimulator("cyton", ramp(100_000)) as board:
        source = open_source(f"serial:{board.port}?device=cyton", clock=clock)
        stream = source.chunks(port.BOARDS["cyton"], 115200)
        next(stream)
        for blow in (signal.SIGKILL, signal.SIGSTOP):
            worker: Supervisor = source._worker
            before, until = worker.pid, time.monotonic() + 60
            os.kill(before or 0, blow)
            while worker.pid == before and time.monotonic() < until:
                worker.receive(0.1)
            assert worker.pid != before
            next(stream)  # and the new one delivers
        source.close()


class Scripted:
    """A worker as the source sees it: at those times (seconds) it says something, or has been replaced."""

    def __init__(self, *events: tuple[float, str]) -> None:
        self.now, self.restarts, self._events = 0.0, 0, list(events)

    def receive(self, timeout_s: float) -> tuple[str, float, bytes | str] | None:
        if self._events and self._events[0][0] <= self.now + timeout_s:
            self.now, kind = self._events.pop(0)
            if kind != "replaced":
                return (kind, self.now, b"x" if kind == "data" else "")
            self.restarts += 1
        else:
            self.now += timeout_s
        return None

    def stop(self) -> None:
        """Nothing is held."""

    def monotonic(self) -> float:
        return self.now


def heard(clock: Clock, monkeypatch: pytest.MonkeyPatch, *events: tuple[float, str]) -> tuple[list[float], float]:
    """When bytes came from such a worker, and when the source gave up."""
    worker = Scripted(*events)
    source = open_source("serial:/dev/ttyS0?device=cyton", clock=clock)
    source._worker = worker
    monkeypatch.setattr(port, "time", worker)
    times = []
    try:
        times += [at for at, _ in source.chunks(port.BOARDS["cyton"], 115200)]
    except DeviceError as error:
        assert isinstance(error, DeviceTimeoutError | DeviceNotFoundError)  # noqa: PT017 (giving up is what is timed)
    return times, worker.now


def test_a_worker_that_starts_slowly_after_being_replaced_does_not_end_the_recording(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = [(0.5, "open"), (1.0, "data"), (3.0, "replaced")]
    times, ended = heard(clock, monkeypatch, *start, (12.0, "open"), (14.0, "data"), (16.0, "data"))
    assert times == [1, 14, 16]
    assert 21 <= ended < 22  # five seconds of silence
    # but a board that stays silent after the port is open again has gone
    assert 17 <= heard(clock, monkeypatch, *start, (12.0, "open"))[1] < 18
    # and a port that hangs once more is given up
    assert 18 <= heard(clock, monkeypatch, *start, *((6.0 + n * 3, "replaced") for n in range(99)))[1] < 19


def test_the_first_bytes_deadline_is_the_one_that_is_set(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (2.0, 7.0):
        monkeypatch.setattr(port, "FIRST_BYTE_S", seconds)
        assert 0.5 + seconds <= heard(clock, monkeypatch, (0.5, "open"))[1] < 1 + seconds


def test_a_port_that_hangs_when_it_is_opened_is_given_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    times, ended = heard(clock, monkeypatch, *((15.0 * n, "replaced") for n in range(1, 99)))
    assert times == []
    assert 30 <= ended < 31


@pytest.mark.parametrize("board", ENCODERS)
def test_a_board_is_recognised_by_what_it_sends(board: str) -> None:
    ecg = simulate_ecg(seconds=4, fs_hz=250).millivolts[0] * 200 + 512
    data = b"".join(frames(board, ecg.astype(int).tolist()))[5:]
    alike = {
        frozenset({"ads1293", "max30003"}): {"ads1293", "max30003"},
        frozenset({"ads1292r", "max30001"}): {"ads1292r", "max30001"},
        frozenset({"healthypi3"}): {"healthypi4"},  # the same stream: v4 is said
    }
    expected = next((said for boards, said in alike.items() if board in boards), {board})
    assert set(identify(data)) == expected


def test_rubbish_is_no_board() -> None:
    assert identify(np.random.default_rng(1).bytes(8000)) == ()
    assert identify(b"") == ()


def test_detection_reads_the_port_at_the_usual_rates(clock: Clock) -> None:
    with BoardSimulator("cyton", ramp(100_000)) as board:
        source = open_source(f"serial:{board.port}?baud=115200", clock=clock)
        assert source.detect().name == "cyton"
        source.close()
