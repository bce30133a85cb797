"""`aidpost devices` as its users type it, against simulated boards and sensors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import serial
from click.testing import CliRunner, Result

from aidpost.board.cli import cli
from aidpost.errors import AidpostError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.ports import _ble
from aidpost.firmware_bridge.simulators import sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.boards import ENCODERS, BoardSimulator, PseudoTerminal, frames
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.firmware_bridge.simulators.sensor import Sensor
from aidpost.firmware_bridge.sources import open_source

AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()", "devices"]


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(_ble, "SETTLE_S", 0.3)
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address


def run(*arguments: object) -> Result:
    done = CliRunner().invoke(cli, ["devices", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def said(*arguments: object) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_record_and_replay_give_the_same_bytes(tmp_path: Path, clock: Clock) -> None:
    with BoardSimulator("cyton", [n % 1000 for n in range(100_000)], speed=4) as board:
        source = f"serial:{board.port}?device=cyton"
        count = said("record", source, tmp_path / "c.aidcap", "--seconds", 1)["bytes"]
    raw = subprocess.run(
        [*AIDPOST, "replay", str(tmp_path / "c.aidcap"), "--pace", "fast"], check=True, capture_output=True
    ).stdout
    assert len(raw) == count > 10_000
    begin = re.escape(raw[raw.index(b"\xa0") :][:330])
    assert re.search(begin, b"".join(frames("cyton", [n % 1000 for n in range(20_000)])))
    pieces = [
        json.loads(line)
        for line in run("replay", tmp_path / "c.aidcap", "--jsonl", "--pace", "fast").stdout.splitlines()
    ]
    assert b"".join(bytes.fromhex(piece["hex"]) for piece in pieces) == raw
    assert {piece["channel"] for piece in pieces} == {"serial"}
    assert pieces[-1]["time_us"] > 0.8e6


def test_replay_behind_a_pty_reaches_another_program_whole(tmp_path: Path) -> None:
    with BoardSimulator("cyton", [n % 1000 for n in range(100_000)], speed=8) as board:
        said("record", f"serial:{board.port}?device=cyton", tmp_path / "c.aidcap", "--seconds", 1)
    raw = run("replay", tmp_path / "c.aidcap", "--pace", "fast").stdout_bytes
    command = [*AIDPOST, "replay", str(tmp_path / "c.aidcap"), "--pace", "fast", "--pty"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with serial.Serial(process.stdout.readline().strip(), timeout=60) as port:
            got = port.read(len(raw))
        assert process.wait(60) == 0
    assert got == raw


def test_a_pseudo_terminal_waits_and_notices_that_the_reader_has_gone() -> None:
    with PseudoTerminal() as terminal:
        waiting = threading.Thread(target=terminal.wait_for_reader)
        waiting.start()
        with serial.Serial(terminal.port, timeout=60) as port:
            waiting.join(60)
            assert not waiting.is_alive()
            assert terminal.write(b"abc")
            assert port.read(3) == b"abc"
            terminal.drain()
        assert not terminal.write(bytes(10))


def test_a_pseudo_terminal_waits_for_a_reader_that_is_slow_to_empty_its_port() -> None:
    """A busy machine stops a program for a while between opening the port and emptying it, and while it reads."""
    data = bytes(range(256)) * 40

    def send() -> None:
        with terminal:
            terminal.wait_for_reader()
            assert terminal.write(data)
            assert terminal.drain()

    terminal = PseudoTerminal()
    sending = threading.Thread(target=send)
    sending.start()
    port = os.open(terminal.port, os.O_RDWR | os.O_NOCTTY)
    got = b""
    try:
        time.sleep(0.9)
        for _ in range(2):
            termios.tcflush(port, termios.TCIFLUSH)
        while len(got) < len(data):
            got += os.read(port, 1000)
            time.sleep(0.02)
    finally:
        os.close(port)
        sending.join()
    assert got == data


def test_a_pseudo_terminal_hangs_up_only_when_its_reader_has_taken_everything() -> None:
    """What is under way between two programs is in no count of the kernel's: many rounds, to meet the moment."""
    data = bytes(range(256)) * 100
    for _ in range(40):
        terminal = PseudoTerminal()
        port = os.open(terminal.port, os.O_RDWR | os.O_NOCTTY)

        def send(terminal: PseudoTerminal = terminal) -> None:
            with terminal:
                assert terminal.write(data)
                assert terminal.drain()

        sending = threading.Thread(target=send)
        sending.start()
        got = b""
        try:
            while len(got) < len(data):
                got += os.read(port, len(data))
        finally:
            sending.join()
            os.close(port)
        assert got == data


@pytest.mark.parametrize("ending", ["hea", "edf", "dcm"])
def test_record_writes_the_form_that_the_name_ends_in(tmp_path: Path, ending: str, clock: Clock) -> None:
    out = tmp_path / f"r.{ending}"
    assert said("record", "sim:ecg?fs=250", out, "--seconds", 4) == {
        "out": str(out), "seconds": 4.0, "missing_samples": 0
    }  # fmt: skip
    back = open_source(str(out), clock=clock).read_ecg()
    ours = open_source("sim:ecg?fs=250", clock=clock).read_ecg(4)
    np.testing.assert_allclose(back.millivolts(0), ours.millivolts(0), atol=ours.lsb_mv[0])


def test_a_photograph_becomes_dicom_once_its_eye_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(encode_fundus(render_fundus(size=64)))
    with pytest.raises(AidpostError, match="which eye"):
        run("record", f"file:{tmp_path}/p.jpg", tmp_path / "p.dcm")
    said("record", f"file:{tmp_path}/p.jpg", tmp_path / "p.dcm", "--eye", "left")
    assert pydicom.dcmread(tmp_path / "p.dcm").ImageLaterality == "L"


def test_calibrate_finds_what_a_count_is_worth(tmp_path: Path, clock: Clock) -> None:
    # a board whose scale is not known, and 1 mV at its electrodes' leads: 200 counts
    square = [512 + 200 * (n // 128 % 2) for n in range(100_000)]
    with BoardSimulator("olimex", square, speed=4) as board:
        found = said("calibrate", f"serial:{board.port}?device=olimex", "--seconds", 4)
        assert found["uv_per_count"]["I"] == pytest.approx(5.0)
        recording = open_source(found["source"], clock=clock)
        heights = recording.read_ecg(3).millivolts(0)  # type: ignore[attr-defined]
        recording.close()
    assert np.ptp(heights) == pytest.approx(1.0)


def test_calibrate_refuses_what_is_no_square_wave_or_no_sensor() -> None:
    ramp = BoardSimulator("cyton", [n % 1000 for n in range(100_000)], speed=4)
    with ramp as board, pytest.raises(AidpostError, match="two levels"):
        run("calibrate", f"serial:{board.port}?device=cyton", "--seconds", 4)
    with pytest.raises(AidpostError, match="has no scale"):
        run("calibrate", "sim:ecg")


def test_scan_lists_sensors_with_the_source_that_opens_each(bus: str) -> None:
    with FakeBluez(bus, (sensors.blood_pressure_cuff(), sensors.movesense_strap())):
        found = said("scan", "--seconds", 2)["found"]
    by_source = {item["source"]: item["details"] for item in found if item["source"].startswith("ble:")}
    assert by_source == {"ble:AA:00:00:00:00:02": "blood-pressure", "ble:AA:00:00:00:00:07": "movesense"}


def test_scan_without_bluetooth_says_so_and_what_to_do(bus: str) -> None:
    done = run("scan", "--seconds", 0.3)
    assert "Switch Bluetooth on" in done.stderr
    assert run("scan", "--no-bluetooth").stderr.strip() in ("", "nothing found")


def test_pair_makes_the_sensor_know_this_device(bus: str) -> None:
    cuff, shy = sensors.blood_pressure_cuff(), Sensor("AA:00:00:00:00:44", "shy", {"1810": ()}, pairable=False)
    with FakeBluez(bus, (cuff, shy)) as bluez:
        assert said("pair", f"ble:{cuff.address}")["model"] == "cuff"
        assert bluez.paired(cuff.address)
        with pytest.raises(AidpostError, match="refuses to pair"):
            run("pair", f"ble:{shy.address}")
        assert not bluez.paired(shy.address)
    with pytest.raises(AidpostError, match="no Bluetooth sensor"):
        run("pair", "sim:ecg")


def test_a_bluetooth_capture_replays_as_the_same_vital_signs_and_ecg(bus: str, tmp_path: Path, clock: Clock) -> None:
    counts = [n % 800 - 400 for n in range(730)]
    air = (sensors.scale(), sensors.glucose_meter(), sensors.polar_h10(counts=counts))
    with FakeBluez(bus, air):
        for sensor, name in zip(air, ("scale", "glucose", "polar"), strict=True):
            assert said("record", f"ble:{sensor.address}", tmp_path / f"{name}.aidcap", "--seconds", 4)["values"] > 0
    scale = open_source(f"replay:{tmp_path}/scale.aidcap", clock=clock).read_vitals()
    assert {(v.kind.value, v.value) for v in scale} >= {("weight", 68.5), ("body_fat", 27.5)}
    glucose = open_source(f"replay:{tmp_path}/glucose.aidcap", clock=clock).read_vitals()
    assert [v.value for v in glucose] == [5.4, 6.1, 11.2]
    ecg = open_source(f"replay:{tmp_path}/polar.aidcap", clock=clock).read_ecg()
    assert ecg.samples[0].tolist() == counts


def test_movesense_needs_a_scale_and_is_exact_to_the_count(bus: str, clock: Clock) -> None:
    counts = [round(500 * np.sin(n / 10)) for n in range(480)]
    with FakeBluez(bus, (sensors.movesense_strap(counts=counts),)):
        with pytest.raises(AidpostError, match="what a count of Movesense is worth"):
            open_source("ble:movesense?wait=60", clock=clock).read_ecg(2)
        recording = open_source("ble:movesense?wait=60&uv_per_count=0.4", clock=clock).read_ecg(3)
    assert (recording.fs_hz, recording.lsb_mv, recording.missing) == (125, (0.0004,), ())
    assert recording.samples[0].tolist() == counts[:375]


def test_weight_and_body_composition_from_one_scale(bus: str, clock: Clock) -> None:
    with FakeBluez(bus, (sensors.scale(),)):
        vitals = open_source("ble:body-composition?wait=60", clock=clock).read_vitals()
    assert {v.kind.value: v.value for v in vitals} == {"weight": 68.5, "body_fat": 27.5}


def test_every_board_has_a_simulator() -> None:
    from aidpost.firmware_bridge.boards import BOARDS

    assert set(ENCODERS) == set(BOARDS)


def test_simulate_puts_a_board_or_sensors_where_other_programs_find_them(clock: Clock) -> None:
    command = [*AIDPOST, "simulate", "bluetooth", "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name, _, address = process.stdout.readline().strip().partition("=")
        assert name == "DBUS_SYSTEM_BUS_ADDRESS"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, address)
            vitals = open_source("ble:thermometer?wait=60", clock=clock).read_vitals()
        process.terminate()
    assert [v.value for v in vitals] == [37.2]
    done = run("simulate", "toaster")
    assert done.exit_code == 2
    assert "healthypi6" in done.output
