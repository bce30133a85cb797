"""What goes wrong with real ports: another name after re-plugging, noise, half frames, a board that restarts; and hours
of it. Bluetooth that goes away is in test_ble."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soaking

from aidpost.firmware_bridge import supervisor, usb_boards
from aidpost.firmware_bridge.assembler import EcgAssembler
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders.base import Block
from aidpost.firmware_bridge.decoders.own import encode_hello, encode_samples
from aidpost.firmware_bridge.ports import _serial_worker
from aidpost.firmware_bridge.simulators.boards import BoardSimulator, frames
from aidpost.firmware_bridge.sources import SourceSpec, open_source


def test_a_board_that_is_plugged_in_again_under_another_name_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker runs in a thread here, so that the list of USB ports can be this test's."""
    listed: list[SimpleNamespace] = []
    monkeypatch.setattr(usb_boards.list_ports, "comports", lambda: list(listed))
    here, there = multiprocessing.Pipe()
    with BoardSimulator("cyton", range(100_000)) as first, BoardSimulator("cyton", range(100_000)) as second:
        usb = {"vid": 0x0403, "pid": 0x6015, "serial_number": "DM00"}
        listed.append(SimpleNamespace(device=first.port, **usb))
        arguments = (there, first.port, 115200, b"", b"")
        worker = threading.Thread(target=_serial_worker.run, args=arguments, daemon=True)
        worker.start()
        heard = []

        def until(kind: str) -> object:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if here.poll(0.1):
                    message = here.recv()
                    heard.append(message[0])
                    if message[0] == kind:
                        return message[2]
            raise AssertionError(f"no {kind}: {heard}")

        assert until("open") == first.port
        assert until("data")
        listed[:] = [SimpleNamespace(device=second.port, **usb)]
        first.unplug()
        assert until("lost")
        assert until("open") == second.port
        assert until("data")
        here.close()
        worker.join(10)
        assert not worker.is_alive()


def test_several_boards_that_are_plugged_in_again_under_each_others_names_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub is unplugged and plugged in again: three boards come back, one after the other, each under the name that
    another had. Two are of one make, told apart by their serial numbers. None is ever taken for another."""
    listed: list[SimpleNamespace] = []
    monkeypatch.setattr(usb_boards.list_ports, "comports", lambda: list(listed))
    kinds = ("cyton", "cyton", "olimex")
    usb = [{"vid": 0x0403, "pid": 0x6015, "serial_number": f"DM0{n}"} for n in range(2)]
    usb.append({"vid": 0x2341, "pid": 0x0043, "serial_number": "OLX"})
    names = [tmp_path / f"ttyUSB{n}" for n in range(3)]
    sends = [range(100 * (n + 1), 100 * (n + 1) + 99) for n in range(3)]  # a count says which board it is of

    def plug_in(board: int, name: Path) -> BoardSimulator:
        plugged = stack.enter_context(BoardSimulator(kinds[board], itertools.cycle(sends[board])))
        name.symlink_to(plugged.port)
        listed.append(SimpleNamespace(device=str(name), **usb[board]))
        return plugged

    with contextlib.ExitStack() as stack:
        before = [plug_in(board, names[board]) for board in range(3)]
        workers = [stack.enter_context(_Listening(kinds[board], str(names[board]))) for board in range(3)]
        for worker, counts in zip(workers, sends, strict=True):
            worker.until(lambda worker=worker: len(worker.heard) > 20)
            assert set(worker.heard) <= set(counts)
        listed.clear()
        for name, board in zip(names, before, strict=True):
            name.unlink()
            board.unplug()
        for worker in workers:
            worker.until(lambda worker=worker: bool(worker.lost))
            worker.heard.clear()
        for board in range(3):
            name = names[(board + 1) % 3]
            plug_in(board, name)
            # whose name that was does not take it for its own, as long as its own board is not there
            robbed = workers[(board + 1) % 3]
            if board < 2:
                robbed.until(lambda robbed=robbed: "another device" in robbed.lost)
                assert robbed.heard == []
            own = workers[board]
            own.until(lambda own=own: len(own.heard) > 20)
            assert (own.port, set(own.heard) <= set(sends[board])) == (str(name), True)


def test_boards_without_serial_numbers_that_come_back_under_each_others_names_are_told_by_their_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one make that nothing else tells apart. The second comes back first, under the name that the first had."""
    listed: list[SimpleNamespace] = []
    monkeypatch.setattr(usb_boards.list_ports, "comports", lambda: list(listed))
    names = [tmp_path / f"ttyUSB{n}" for n in range(2)]
    sends = [range(100 * (n + 1), 100 * (n + 1) + 99) for n in range(2)]

    def plug_in(board: int, name: Path) -> BoardSimulator:
        plugged = stack.enter_context(BoardSimulator("olimex", itertools.cycle(sends[board])))
        name.symlink_to(plugged.port)
        usb = {"vid": 0x1A86, "pid": 0x7523, "serial_number": None, "location": f"1-1.{board + 1}"}
        listed.append(SimpleNamespace(device=str(name), **usb))
        return plugged

    with contextlib.ExitStack() as stack:
        before = [plug_in(board, names[board]) for board in range(2)]
        workers = [stack.enter_context(_Listening("olimex", str(name))) for name in names]
        for worker in workers:
            worker.until(lambda worker=worker: len(worker.heard) > 20)
        listed.clear()
        for name, board in zip(names, before, strict=True):
            name.unlink()
            board.unplug()
        for worker in workers:
            worker.until(lambda worker=worker: bool(worker.lost))
            worker.heard.clear()
        plug_in(1, names[0])
        workers[0].until(lambda: "another device of this make" in workers[0].lost)
        workers[1].until(lambda: len(workers[1].heard) > 20)
        assert workers[0].heard == []
        plug_in(0, names[1])
        workers[0].until(lambda: len(workers[0].heard) > 20)
        assert [worker.port for worker in workers] == [str(names[1]), str(names[0])]
        assert all(set(worker.heard) <= set(counts) for worker, counts in zip(workers, sends, strict=True))


def test_a_worker_that_is_replaced_goes_on_with_its_own_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hung, and meanwhile its board came back under another name, and another board under its own."""
    listed: list[SimpleNamespace] = []
    monkeypatch.setattr(usb_boards.list_ports, "comports", lambda: list(listed))
    names = [tmp_path / f"ttyUSB{n}" for n in range(2)]
    usb = [{"vid": 0x1A86, "pid": 0x7523, "serial_number": None, "location": f"1-1.{n}"} for n in range(2)]
    listed += [SimpleNamespace(device=str(names[n]), **usb[n]) for n in range(2)]
    board = pickle.loads(pickle.dumps(usb_boards.Remembered(str(names[0]))))  # as it goes to a spawned process
    listed[:] = [SimpleNamespace(device=str(names[n]), **usb[1 - n]) for n in range(2)]
    with contextlib.ExitStack() as stack:
        for name, counts in zip(names, (range(100), range(200, 300)), strict=True):
            name.symlink_to(stack.enter_context(BoardSimulator("olimex", itertools.cycle(counts))).port)
        worker = stack.enter_context(_Listening("olimex", str(names[0]), board))
        worker.until(lambda: len(worker.heard) > 20)
        assert (worker.port, min(worker.heard) >= 200) == (str(names[1]), True)


class _Listening:
    """A port's worker in a thread, and the counts that the board's decoder makes of what it passes on."""

    def __init__(self, kind: str, port: str, board: usb_boards.Remembered | None = None) -> None:
        self.heard: list[int] = []
        self.lost, self.port = "", ""
        self._decoder = BOARDS[kind].decoder()
        self._here, there = multiprocessing.Pipe()
        arguments = (there, port, 115200, b"", b"", board)
        self._thread = threading.Thread(target=_serial_worker.run, args=arguments, daemon=True)

    def __enter__(self) -> _Listening:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._here.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def until(self, state: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not state():
            assert time.monotonic() < end, f"it never came to that: {self.lost} {self.heard[-5:]}"
            if not self._here.poll(0.1):
                continue
            kind, _, what = self._here.recv()
            if kind == "data":
                blocks = [item for item in self._decoder.feed(what) if isinstance(item, Block)]
                self.heard += [sample[0] for block in blocks for sample in block.samples]
            elif kind == "open":
                self.port, self.lost = what, ""
            elif kind == "lost":
                self.lost = what


def test_a_hung_worker_is_replaced_within_3_s_by_its_own_numbers() -> None:
    """Done with processes in test_serial; here that the limits themselves leave no more."""
    assert supervisor.HUNG_S + supervisor.KILL_S <= 3 - supervisor.HEARTBEAT_S


def test_noise_and_half_frames_on_the_wire_are_missing_and_the_rest_is_right(clock: Clock) -> None:
    rng = random.Random(3)

    def damage(number: int, data: bytes) -> bytes:
        if number % 50 == 10:
            return data[: len(data) // 2]
        return rng.randbytes(20) + data if number % 50 == 30 else data

    with BoardSimulator("aidpost", range(1_000_000), damage=damage) as board:
        source = open_source(f"serial:{board.port}?device=aidpost", clock=clock)
        recording = source.read_ecg(3)
        source.close()
    assert recording.missing
    soaking.check(recording.samples[0], np.isfinite(recording.millivolts(0)))


@pytest.mark.parametrize("board", ["aidpost", "cyton", "healthypi4", "bitalino"])
def test_a_board_that_restarts_in_the_middle_leaves_a_gap_of_that_length(board: str) -> None:
    fs_hz = BOARDS[board].fs_hz
    before, after = list(frames(board, range(100, 600))), list(frames(board, range(600, 900)))
    banner = b"\r\nets Jul 29 2019 12:21:46\r\nrst:0x1 (POWERON_RESET)\r\n"  # what an ESP32 says first
    assembler, decoder = EcgAssembler(BOARDS[board], SourceSpec("serial", "x"), 3000 / fs_hz), BOARDS[board].decoder()
    wire = [(n / fs_hz, data) for n, data in enumerate(before)]
    away = 500 / fs_hz + 1.5
    wire += [(away, banner)] + [(away + n / fs_hz, data) for n, data in enumerate(after)]
    for time_s, data in wire:
        assembler.add(decoder.feed(data), time_s)
    recording = assembler.recording(at=soaking.AT, origin=soaking.Origin.LIVE, source="x")
    gap = sum(stop - start for start, stop in recording.missing)
    range_of_numbers = BOARDS[board].modulus if BOARDS[board].modulus < 1000 else 0
    assert abs(gap - 1.5 * fs_hz) <= max(8, range_of_numbers / 2)
    good = recording.samples[0][np.isfinite(recording.millivolts(0))]
    # the last frame before may be lost to the banner, and for some boards the first after it
    assert len(good) >= 500 + 300 - 4
    assert good[:495].tolist() == list(range(100, 595))


def test_what_a_restarted_board_announces_does_not_change_the_recording() -> None:
    assembler, decoder = EcgAssembler(BOARDS["aidpost"], SourceSpec("serial", "x"), 8), BOARDS["aidpost"].decoder()
    hello = encode_hello("bench", 250, ("I",), (1.0,))
    other = encode_hello("bench", 500, ("I",), (2.0,))
    stream = hello + encode_samples(0, [(1,)] * 40) + other + encode_samples(0, [(2,)] * 40)
    assembler.add(decoder.feed(stream))
    recording = assembler.recording(at=soaking.AT, origin=soaking.Origin.LIVE, source="x")
    assert (recording.fs_hz, recording.lsb_mv) == (250, (0.001,))


def test_a_minute_of_streaming_with_damage_says_exactly_what_is_missing_in_flat_memory() -> None:
    """A short run of `scripts/soak`, in a process of its own: what others left in this one is nobody's growth."""
    command = [sys.executable, soaking.__file__, "--minutes", "2", "--speed", "15", "--piece", "10", "--seed", "4"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " and all marked, " in ended.stdout
    with pytest.raises(AssertionError, match="sample 2 has number 9"):
        soaking.check(np.array([6, 7, 9]), np.ones(3, bool))
