"""Each board is told from the others by its /proc and /sys, and what a tree does not tell is left empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from board_trees import PC, PI_4, TREES, plant

from aidpost.board.detect import detect

EXPECTED: dict[str, dict[str, Any]] = {
    "pi-3": {
        "kind": "raspberry-pi-3", "model": "Raspberry Pi 3 Model B Plus Rev 1.3", "soc": "brcm,bcm2837",
        "revision": "a020d3", "serial": "10000000abcdef01", "architecture": "armv7l", "cores": 4, "memory_mb": 922,
        "temperature_c": 48.312, "cameras": (), "serial_ports": ("ttyAMA0",), "bluetooth": ("hci0",),
        "real_time_clock": False, "storage": ("mmcblk0",), "os": "Debian GNU/Linux 12 (bookworm)",
    },
    "pi-4": {
        "kind": "raspberry-pi-4", "soc": "brcm,bcm2711", "revision": "c03114", "architecture": "aarch64", "cores": 4,
        "memory_mb": 3793, "cameras": ("video0",), "serial_ports": ("ttyACM0", "ttyAMA0"), "real_time_clock": False,
    },
    "pi-5": {
        "kind": "raspberry-pi-5", "soc": "brcm,bcm2712", "revision": "d04170", "architecture": "aarch64",
        "memory_mb": 8061, "cameras": ("video0",), "real_time_clock": True,
    },
    "pi-zero-2": {
        "kind": "raspberry-pi-zero-2", "soc": "brcm,bcm2837", "revision": "902120", "architecture": "aarch64",
        "memory_mb": 416, "cameras": (),
    },
    "compute-module-4": {
        "kind": "raspberry-pi-compute-module", "model": "Raspberry Pi Compute Module 4 Rev 1.1",
        "soc": "brcm,bcm2711", "revision": "b03141", "memory_mb": 1850,
    },
    "jetson-nano": {
        "kind": "jetson-nano", "soc": "nvidia,tegra210", "revision": None, "serial": "1420000000001",
        "architecture": "aarch64", "cores": 4, "memory_mb": 3964, "temperature_c": 34.5,
        "serial_ports": ("ttyTHS1",), "bluetooth": (), "real_time_clock": True,
    },
    "jetson-orin-nano": {
        "kind": "jetson-orin", "soc": "nvidia,tegra234", "cores": 6, "memory_mb": 7620, "temperature_c": 46.812,
    },
    "pc": {
        "kind": "generic", "model": "LENOVO 20LES01W00", "soc": None, "revision": None, "serial": None,
        "architecture": "x86_64", "cores": 8, "memory_mb": 15884, "temperature_c": 55.0, "cameras": ("video0",),
        "serial_ports": ("ttyUSB0",), "storage": ("nvme0n1",),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_board_is_told_from_its_tree(name: str, tmp_path: Path) -> None:
    found = detect(plant(tmp_path, TREES[name]))
    assert {field: getattr(found, field) for field in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("Raspberry Pi 400 Rev 1.0", "raspberry-pi-4"),
        ("Raspberry Pi 500 Rev 1.0", "raspberry-pi-5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "raspberry-pi-compute-module"),
        ("Raspberry Pi Zero W Rev 1.1", "raspberry-pi"),
        ("NVIDIA Orin Nano Developer Kit", "jetson-orin"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "jetson-orin"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "jetson"),
        ("Radxa ROCK 5B", "generic"),
    ],
)
def test_kind_by_model(model: str, kind: str, tmp_path: Path) -> None:
    assert detect(plant(tmp_path, {"proc/device-tree/model": model.encode() + b"\0"})).kind == kind


def test_an_empty_tree_tells_nothing_and_guesses_nothing(tmp_path: Path) -> None:
    found = detect(tmp_path)
    assert (found.kind, found.model) == ("generic", "unknown")
    assert (found.soc, found.revision, found.serial, found.memory_mb, found.temperature_c) == (None,) * 5
    assert (found.storage, found.serial_ports, found.cameras, found.bluetooth) == ((), (), (), ())
    assert not found.real_time_clock


def test_revision_is_taken_from_the_device_tree_where_cpuinfo_has_none(tmp_path: Path) -> None:
    assert detect(plant(tmp_path, PI_4 | {"proc/cpuinfo": "processor\t: 0\n"})).revision == "c03114"


def test_a_placeholder_in_the_dmi_table_is_no_model(tmp_path: Path) -> None:
    tree = PC | {"sys/class/dmi/id/product_name": "To Be Filled By O.E.M.\n"}
    assert detect(plant(tmp_path, tree)).model == "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz"


@pytest.mark.parametrize("reading", ["", "n/a\n"])
def test_a_temperature_that_cannot_be_read_is_none_and_not_zero(reading: str, tmp_path: Path) -> None:
    assert detect(plant(tmp_path, PI_4 | {"sys/class/thermal/thermal_zone0/temp": reading})).temperature_c is None


def test_video_nodes_are_ordered_by_number(tmp_path: Path) -> None:
    found = detect(plant(tmp_path, {f"dev/video{number}": "" for number in (10, 2, 0)}))
    assert found.cameras == ("video0", "video2", "video10")
