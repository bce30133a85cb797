"""Firmware into microcontrollers: the right image for the right chip, written, read back, resumed, asked who it is."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rom_boot import ArduinoRom, Esp32Rom, SimulatedRom, Stm32Rom

from aidpost.board.firmware import tools, uf2_drive
from aidpost.board.firmware import write as writing
from aidpost.board.firmware.images import Firmware, read_firmware
from aidpost.errors import (
    DeviceError,
    DeviceLostError,
    DeviceNotFoundError,
    DeviceTimeoutError,
    UnreadableInputError,
    UnsupportedFormatError,
    UsageError,
)

NO_RESET = ("--no-stub", "--before", "no-reset", "--after", "no-reset")  # a pseudo-terminal has no reset line


def stm32_binary(size: int = 5000) -> bytes:
    return struct.pack("<II", 0x2000_5000, 0x0800_0101) + random.Random(1).randbytes(size - 8)


def esp_binary(size: int = 20_000, chip: int = 0, version: str = "1.2.0") -> bytes:
    description = (
        struct.pack("<II8s", 0xABCD5432, 0, b"")
        + version.encode().ljust(32, b"\0")
        + (b"ecg".ljust(32, b"\0")).ljust(176, b"\0")
    )
    data = (description + random.Random(2).randbytes(size)).ljust((size + 300) // 4 * 4, b"\0")
    data = data[: len(data) // 4 * 4]
    head = struct.pack("<BBBBIB3sHB8sB", 0xE9, 1, 2, 0x20, 0x40081000, 0xEE, b"", chip, 0, b"", 1)
    body = head + struct.pack("<II", 0x3F400020, len(data)) + data
    check = 0xEF
    for byte in data:
        check ^= byte
    body = body.ljust(len(body) | 15, b"\0")
    body += bytes([check])
    return body + hashlib.sha256(body).digest()


def uf2_file(data: bytes, family: int = 0xE48BFF56, address: int = 0x1000_0000) -> bytes:
    parts = [data[at : at + 256] for at in range(0, len(data), 256)]
    return b"".join(
        struct.pack(
            "<8I", 0x0A324655, 0x9E5D5157, 0x2000, address + 256 * number, len(part), number, len(parts), family
        )
        + part.ljust(476, b"\0")
        + struct.pack("<I", 0x0AB16F30)
        for number, part in enumerate(parts)
    )


def hex_file(data: bytes, start: int = 0) -> bytes:
    def record(kind: int, address: int, body: bytes) -> str:
        raw = bytes([len(body), address >> 8 & 0xFF, address & 0xFF, kind]) + body
        return f":{raw.hex().upper()}{-sum(raw) & 0xFF:02X}"

    lines = [record(4, 0, (start >> 16).to_bytes(2, "big"))] if start else []
    lines += [record(0, (start + at) & 0xFFFF, data[at : at + 16]) for at in range(0, len(data), 16)]
    return ("\n".join([*lines, record(1, 0, b"")]) + "\n").encode()


def proven(path: Path, content: bytes, **more: object) -> Firmware:
    path.write_bytes(content)
    return read_firmware(path, sha256=hashlib.sha256(content).hexdigest(), **more)  # type: ignore[arg-type]


def at(rom: SimulatedRom, kind: str) -> writing.Connected:
    return writing.Connected(where=rom.port, kind=kind, chip="", name="")


@pytest.mark.parametrize(
    ("content", "kind", "target", "address"),
    [
        (stm32_binary(), "stm32", "stm32", 0x0800_0000),
        (esp_binary(), "esp", "esp32", 0x10000),
        (esp_binary(chip=9), "esp", "esp32s3", 0x10000),
        (uf2_file(b"a" * 1000), "uf2", "rp2040", 0x1000_0000),
        (uf2_file(b"a" * 1000, family=0xE48BFF59), "uf2", "rp2350", 0x1000_0000),
        (hex_file(b"b" * 100), "avr", "avr", 0),
        (hex_file(b"b" * 100, 0x0800_0000), "stm32", "stm32", 0x0800_0000),
    ],
    ids=["stm32", "esp32", "esp32s3", "rp2040", "rp2350", "avr", "stm32-hex"],
)
def test_an_image_tells_what_it_is_for(content: bytes, kind: str, target: str, address: int, tmp_path: Path) -> None:
    found = proven(tmp_path / "fw", content)
    assert (found.kind, found.target, found.address) == (kind, target, address)


def test_an_esp_application_tells_its_version(tmp_path: Path) -> None:
    assert proven(tmp_path / "fw", esp_binary(version="2.3.4")).version == "2.3.4"


def test_esptool_itself_takes_the_test_image_for_whole(tmp_path: Path) -> None:
    (tmp_path / "fw.bin").write_bytes(esp_binary())
    command = [sys.executable, "-m", "esptool", "image-info", str(tmp_path / "fw.bin")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(valid)" in done.stdout
    assert "(invalid)" not in done.stdout


@settings(max_examples=60)
@given(st.sampled_from([esp_binary(2000), uf2_file(b"abc" * 300), hex_file(b"b" * 300)]), st.data())
def test_any_cut_and_any_changed_byte_of_a_self_checking_image_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fw") / "fw"
    end = data.draw(st.integers(0, len(content) - 2))  # a hex file may lack its last line end
    with pytest.raises((UnreadableInputError, UnsupportedFormatError)):
        proven(path, content[:end])
    if content[0] == 0xE9:  # UF2 has no checksum: that is what --sha256 is for
        position = data.draw(st.integers(0, len(content) - 1))
        with pytest.raises((UnreadableInputError, UnsupportedFormatError)):
            proven(path, content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])


def test_firmware_that_nothing_vouches_for_or_that_was_altered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fw"
    path.write_bytes(stm32_binary())
    with pytest.raises(UsageError, match="nothing vouches"):
        read_firmware(path)
    with pytest.raises(UnreadableInputError, match="SHA-256"):
        read_firmware(path, sha256="0" * 64)


def test_an_elf_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"have the build make \.bin"):
        proven(tmp_path / "fw", b"\x7fELF" + bytes(1000))


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("preload") / "modem_lines.so"
    source = Path(__file__).parents[2] / "support/modem_lines.c"
    compiler = shutil.which("gcc") or "cc"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, source, "-ldl"], check=True)
    return built


@pytest.fixture
def modem_lines(preload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """stm32loader sets DTR and RTS, and parity twice, which a serial port has and a pseudo-terminal has not."""
    monkeypatch.setenv("LD_PRELOAD", str(preload))


@pytest.mark.parametrize("extended", [True, False])
def test_stm32_is_written_read_back_and_says_who_it_is(extended: bool, tmp_path: Path, modem_lines: None) -> None:
    content = stm32_binary()
    with Stm32Rom(extended=extended, name="aidpost-ecg 1.2") as rom:
        done = writing.write(proven(tmp_path / "fw", content), at(rom, "stm32"), chip="0x410", expect="aidpost-ecg 1.2")
        assert rom.flash[: len(content)] == content
    assert done.chip == "0x410"
    assert done.answer == "aidpost-ecg 1.2"
    assert done.written == len(content)


def test_stm32_that_held_something_else_is_erased_first(tmp_path: Path, modem_lines: None) -> None:
    content = stm32_binary()
    with Stm32Rom() as rom:
        rom.flash[:8000] = bytes(8000)
        writing.write(proven(tmp_path / "fw", content), at(rom, "stm32"), answer_s=0)
        assert rom.flash[: len(content)] == content
        assert rom.erases == 1


def test_stm32_goes_on_where_an_interrupted_write_stopped(tmp_path: Path, modem_lines: None) -> None:
    content, firmware = stm32_binary(), proven(tmp_path / "fw", stm32_binary())
    with Stm32Rom(die_after_writes=7) as rom, pytest.raises((DeviceTimeoutError, DeviceLostError)):
        writing.write(firmware, at(rom, "stm32"), answer_s=0)
    held = bytes(rom.flash)
    assert held[: 7 * 256] == content[: 7 * 256]
    with Stm32Rom() as again:
        again.flash[:] = held
        done = writing.write(firmware, at(again, "stm32"), answer_s=0)
        assert again.erases == 0
        assert again.flash[: len(content)] == content
    assert done.written == len(content) - 7 * 256
    with Stm32Rom() as third:
        third.flash[:] = again.flash
        assert writing.write(firmware, at(third, "stm32"), answer_s=0).written == 0


def test_stm32_that_does_not_hold_what_was_written_is_found(tmp_path: Path, modem_lines: None) -> None:
    class Worn(Stm32Rom):
        def program(self, at: int, data: bytes) -> None:
            super().program(at, data)
            self.flash[1000] &= 0x0F

    with Worn() as rom, pytest.raises(DeviceError, match="does not hold"):
        writing.write(proven(tmp_path / "fw", stm32_binary()), at(rom, "stm32"), answer_s=0)


def test_stm32_another_chip_is_refused_untouched(tmp_path: Path, modem_lines: None) -> None:
    with Stm32Rom(product=0x422) as rom:
        with pytest.raises(UsageError, match="0x422, not 0x410"):
            writing.write(proven(tmp_path / "fw", stm32_binary()), at(rom, "stm32"), chip="0x410")
        assert rom.writes == rom.erases == 0


def test_stm32_whose_memory_is_protected_says_so(tmp_path: Path, modem_lines: None) -> None:
    with Stm32Rom(protected=True) as rom, pytest.raises(DeviceError, match="protected"):
        writing.write(proven(tmp_path / "fw", stm32_binary()), at(rom, "stm32"))


def test_stm32_silence_and_a_missing_port_are_told_apart(tmp_path: Path, modem_lines: None) -> None:
    firmware = proven(tmp_path / "fw", stm32_binary())
    with SimulatedRomThatIsSilent() as rom, pytest.raises(DeviceTimeoutError, match="BOOT0"):
        writing.write(firmware, at(rom, "stm32"), answer_s=0)
    nowhere = writing.Connected(where="/dev/ttyNOWHERE", kind="stm32", chip="", name="")
    with pytest.raises(DeviceNotFoundError):
        writing.write(firmware, nowhere, answer_s=0)


class SimulatedRomThatIsSilent(SimulatedRom):
    def serve(self) -> None:
        self.take(1)


def test_firmware_that_comes_up_as_another_is_no_success(tmp_path: Path, modem_lines: None) -> None:
    with Stm32Rom(name="aidpost-ecg 1.1") as rom, pytest.raises(DeviceError, match=r"1\.1.*1\.2.*was expected"):
        writing.write(proven(tmp_path / "fw", stm32_binary()), at(rom, "stm32"), expect="aidpost-ecg 1.2")


def test_esp32_is_written_by_esptool_verified_resumed_and_left_alone_when_it_holds_it(tmp_path: Path) -> None:
    content = esp_binary(300_000)  # two parts
    firmware = proven(tmp_path / "fw", content)
    with Esp32Rom() as rom:
        rom.flash[0x10000 : 0x10000 + tools.PART] = content[: tools.PART]  # an interrupted write came so far
        done = writing.write(firmware, at(rom, "esp"), answer_s=0, esptool_options=NO_RESET)
        assert rom.flash[0x10000 : 0x10000 + len(content)] == content
        assert done.written == len(content) - tools.PART
        before = rom.writes
        assert writing.write(firmware, at(rom, "esp"), answer_s=0, esptool_options=NO_RESET).written == 0
        assert rom.writes == before


def test_esp_image_for_another_chip_is_refused_by_the_chip_itself(tmp_path: Path) -> None:
    with Esp32Rom(magic=0x000007C6) as rom:  # an ESP32-S2 is connected
        with pytest.raises(DeviceError):
            writing.write(proven(tmp_path / "fw", esp_binary()), at(rom, "esp"), esptool_options=NO_RESET)
        assert rom.writes == 0
    with pytest.raises(UsageError, match="for esp32, not for esp32s3"):
        writing.write(proven(tmp_path / "fw", esp_binary()), at(rom, "esp"), chip="esp32s3")


def test_avr_is_written_by_avrdude_and_left_alone_when_it_holds_it(tmp_path: Path) -> None:
    assert shutil.which("avrdude"), "sudo apt-get install avrdude"
    data = random.Random(3).randbytes(1000)
    firmware = proven(tmp_path / "fw.hex", hex_file(data))
    with ArduinoRom() as rom:
        assert writing.write(firmware, at(rom, "avr"), chip="atmega328p", answer_s=0).written == 1000
        assert rom.flash[:1000] == data
        before = rom.writes
        assert writing.write(firmware, at(rom, "avr"), chip="atmega328p", answer_s=0).written == 0
        assert rom.writes == before


def test_avr_of_another_kind_is_refused_by_its_signature(tmp_path: Path) -> None:
    with ArduinoRom(signature=bytes((0x1E, 0x98, 0x01))) as rom:
        with pytest.raises(DeviceError):
            writing.write(proven(tmp_path / "fw.hex", hex_file(b"a" * 64)), at(rom, "avr"), chip="atmega328p")
        assert rom.writes == 0


def test_avr_image_that_would_overwrite_the_boot_loader_is_refused(tmp_path: Path) -> None:
    firmware = proven(tmp_path / "fw.hex", hex_file(b"a" * 64, 0) + b"")
    tools.check_avr(firmware, "atmega328p")
    large = proven(tmp_path / "fw.hex", hex_file(b"a" * (32 * 1024 - 100)))
    with pytest.raises(UsageError, match="below its boot loader"):
        tools.check_avr(large, "atmega328p")
    with pytest.raises(UsageError, match="--chip"):
        tools.check_avr(firmware, "")


RP2040_INFO = "UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: RPI-RP2\n"


def boot_drive(folder: Path, info: str = RP2040_INFO) -> Path:
    folder.mkdir()
    (folder / "INFO_UF2.TXT").write_text(info)
    return folder


def taking(folder: Path, expected: bytes) -> threading.Thread:
    """What the boot loader does: it restarts, and its drive is gone, when it has every block."""

    def main() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            file = folder / "FIRMWARE.UF2"
            if file.exists() and file.read_bytes() == expected:
                (folder / "INFO_UF2.TXT").unlink()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=main)
    thread.start()
    return thread


def test_uf2_is_copied_and_done_when_the_drive_is_gone(tmp_path: Path) -> None:
    content, folder = uf2_file(b"firmware" * 5000), boot_drive(tmp_path / "RPI-RP2")
    thread = taking(folder, content)
    board = writing.choose(proven(tmp_path / "fw.uf2", content), [], str(folder))
    done = writing.write(proven(tmp_path / "fw.uf2", content), board, chip="rp2040")
    thread.join()
    assert done.written == len(content)


def test_uf2_that_the_boot_loader_does_not_take_is_no_success(tmp_path: Path) -> None:
    folder = boot_drive(tmp_path / "RPI-RP2")
    with pytest.raises(DeviceTimeoutError, match="still there"):
        uf2_drive.write_uf2(
            proven(tmp_path / "fw.uf2", uf2_file(b"x" * 600)),
            uf2_drive.drive(folder),
            lambda done, total: None,
            deadline_s=0.2,
        )


@pytest.mark.parametrize("info", ["Board-ID: RP2350\n", "Board-ID: SAMD21G18A-Feather-v0\n", "no name\n"])
def test_uf2_for_another_board_is_refused_untouched(info: str, tmp_path: Path) -> None:
    folder = boot_drive(tmp_path / "drive", info)
    firmware = proven(tmp_path / "fw.uf2", uf2_file(b"x" * 600))
    with pytest.raises(UsageError, match="it is for rp2040"):
        uf2_drive.write_uf2(firmware, uf2_drive.drive(folder), lambda done, total: None)
    assert not (folder / "FIRMWARE.UF2").exists()


def test_uf2_drives_are_found_among_the_mounts(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    boot_drive(tmp_path / "media/MY BOARD")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mounts").write_text("/dev/sda1 /media/MY\\040BOARD vfat rw 0 0\nproc /proc proc rw 0 0\n")
    (found,) = uf2_drive.drives(tmp_path)
    assert found.chip == "rp2040"


def test_a_board_is_chosen_only_when_it_is_surely_the_one(tmp_path: Path) -> None:
    def port(device: str, vid: int | None, pid: int | None) -> SimpleNamespace:
        return SimpleNamespace(device=device, vid=vid, pid=pid, product=None, description=device)

    found = writing.connected([port("/dev/ttyACM0", 0x2341, 0x0043), port("/dev/ttyUSB0", 0x1A86, 0x7523)], tmp_path)
    assert [(one.kind, one.chip) for one in found] == [("avr", "atmega328p"), ("", "")]
    avr = proven(tmp_path / "fw.hex", hex_file(b"a" * 64))
    assert writing.choose(avr, found, "").where == "/dev/ttyACM0"
    with pytest.raises(UsageError, match="Name it"):
        writing.choose(proven(tmp_path / "fw", esp_binary(1000)), found, "")
    with pytest.raises(UsageError, match="built for this board"):
        writing.choose(proven(tmp_path / "fw", esp_binary(1000)), found, "/dev/ttyACM0")
    assert writing.choose(avr, found, "/dev/ttyUSB0").kind == ""


def test_the_command_line_writes_and_answers_in_json(tmp_path: Path, modem_lines: None) -> None:
    content = stm32_binary()
    (tmp_path / "fw").write_bytes(content)
    start = "from aidpost.board.cli import main\nmain()"
    with Stm32Rom(name="ecg 1.2") as rom:
        words = ["board", "firmware", "write", str(tmp_path / "fw"), "--to", rom.port, "--expect", "1.2", "--json"]
        command = [sys.executable, "-c", start, *words, "--sha256", hashlib.sha256(content).hexdigest()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["answer"] == "ecg 1.2"
