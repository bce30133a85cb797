"""Boards that nothing but their socket tells apart: named by it, never taken for one another, and said to be alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.board.console.sensors import look
from aidpost.firmware_bridge import discovery, usb_boards
from aidpost.firmware_bridge.sources import parse_source
from aidpost.firmware_bridge.usb_boards import Remembered

SOCKETS = ("1-1.1", "1-1.2", "1-1.4")


def port(device: str, socket: str, serial: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        device=device,
        vid=0x1A86,
        pid=0x7523,
        serial_number=serial,
        location=socket,
        product="USB Serial",
        description="USB Serial",
        hwid=f"USB VID:PID=1A86:7523 LOCATION={socket}",
    )


def listed(monkeypatch: pytest.MonkeyPatch, *ports: SimpleNamespace) -> None:
    monkeypatch.setattr(usb_boards.list_ports, "comports", lambda: list(ports))


@pytest.mark.parametrize("serial", [None, "", "0001"])
def test_two_alike_are_told_by_socket_whatever_their_makers_serial_number_says(
    monkeypatch: pytest.MonkeyPatch, serial: str | None
) -> None:
    listed(monkeypatch, port("/dev/ttyUSB0", "1-1.1", serial), port("/dev/ttyUSB1", "1-1.2", serial))
    board = Remembered("/dev/ttyUSB0")
    listed(monkeypatch, port("/dev/ttyUSB0", "1-1.2", serial))
    assert board.port() is None
    assert "this one was in socket 1-1.1" in board.stranger("/dev/ttyUSB0")
    listed(monkeypatch, port("/dev/ttyUSB0", "1-1.2", serial), port("/dev/ttyUSB3", "1-1.1", serial))
    assert (board.port(), board.stranger("/dev/ttyUSB3")) == ("/dev/ttyUSB3", "")


def test_a_board_that_is_the_only_one_of_its_make_may_change_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, port("/dev/ttyUSB0", "1-1.1"))
    board = Remembered("/dev/ttyUSB0")
    listed(monkeypatch, port("/dev/ttyUSB1", "1-1.4"))
    assert (board.port(), board.stranger("/dev/ttyUSB1")) == ("/dev/ttyUSB1", "")
    listed(monkeypatch)
    assert (board.port(), board.stranger("/dev/ttyUSB1")) == (None, "")


def test_the_name_of_a_socket_means_that_socket_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    links = tmp_path / "by-path"
    links.mkdir()
    for number in range(2):
        (tmp_path / f"ttyUSB{number}").touch()
    name = links / "pci-0000:00:14.0-usb-0:1.1:1.0-port0"
    name.symlink_to(tmp_path / "ttyUSB0")
    listed(monkeypatch, port(str(tmp_path / "ttyUSB0"), "1-1.1"), port(str(tmp_path / "ttyUSB1"), "1-1.2"))
    board = Remembered(str(name))
    assert board.stranger(str(name)) == ""
    name.unlink()
    assert board.port() is None, "the other socket's board is not followed"
    name.symlink_to(tmp_path / "ttyUSB1")
    listed(monkeypatch, port(str(tmp_path / "ttyUSB1"), "1-1.1"))
    assert board.stranger(str(name)) == "", "the same board in the same socket, under another name of the kernel"


@given(data=st.data())
def test_however_they_are_plugged_none_is_taken_for_another(data: st.DataObject) -> None:
    """Whatever comes back under whatever name: a board is found where it is, or not at all."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        there = dict(zip(("/dev/ttyUSB0", "/dev/ttyUSB1", "/dev/ttyUSB2"), SOCKETS, strict=True))
        listed(monkeypatch, *(port(name, socket) for name, socket in there.items()))
        boards = {socket: Remembered(name) for name, socket in there.items()}
        for _ in range(data.draw(st.integers(1, 6))):
            sockets = data.draw(st.lists(st.sampled_from(SOCKETS), unique=True))
            names = data.draw(st.permutations([f"/dev/ttyUSB{n}" for n in range(4)]))
            now: Mapping[str, str] = dict(zip(names, sockets, strict=False))
            listed(monkeypatch, *(port(name, socket) for name, socket in now.items()))
            for own, board in boards.items():
                found = board.port()
                assert (now[found] if found else None) == (own if own in sockets else None)
                assert all((board.stranger(name) == "") == (socket == own) for name, socket in now.items())


def test_boards_that_are_alike_are_listed_by_their_sockets_and_the_screen_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    links = tmp_path / "by-path"
    links.mkdir()
    ports = [tmp_path / f"ttyUSB{number}" for number in range(3)]
    for number, one in enumerate(ports):
        one.touch()
        (links / f"pci-0000:00:14.0-usb-0:1.{number + 1}:1.0-port0").symlink_to(one)
    listed(
        monkeypatch,
        *(port(str(ports[n]), SOCKETS[n]) for n in range(2)),
        port(str(ports[2]), SOCKETS[2], serial="DM01"),
    )
    found = discovery.serial_ports(links)
    assert [Path(one.source.removeprefix("serial:")).name for one in found] == [
        "pci-0000:00:14.0-usb-0:1.1:1.0-port0",
        "pci-0000:00:14.0-usb-0:1.2:1.0-port0",
        "ttyUSB2",
    ]
    assert found[0].details.endswith("2 are alike: named by socket 1-1.1")
    assert parse_source(f"{found[0].source}?device=cyton").address == found[0].source.removeprefix("serial:")
    monkeypatch.setattr(usb_boards, "by_socket", lambda name: str(links / f"of-{Path(name).name}"))
    sources = {f"serial:{one}?device=cyton": ("ECG",) for one in ports} | {found[0].source: ("ECG",)}
    said = [(one.alike.number, one.alike.socket, one.alike.better) if one.alike else None for one in look(sources)]
    assert said == [
        (2, "1-1.1", str(links / "of-ttyUSB0")),
        (2, "1-1.2", str(links / "of-ttyUSB1")),
        None,
        (2, "1-1.1", ""),
    ]


def test_without_udevs_names_a_port_keeps_the_one_that_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed(monkeypatch, port("/dev/ttyUSB0", "1-1.1"), port("/dev/ttyUSB1", "1-1.2"))
    assert [one.source for one in discovery.serial_ports(tmp_path / "none")] == [
        "serial:/dev/ttyUSB0",
        "serial:/dev/ttyUSB1",
    ]
