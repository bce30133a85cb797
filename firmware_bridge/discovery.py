"""What is plugged in or in the air: serial ports, video devices, Bluetooth sensors. A scan listens,
and `recognise` opens a port."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aidpost.errors import DeviceError, NotPossibleError
from aidpost.firmware_bridge import usb_boards
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.ports.ble import PROFILES
from aidpost.firmware_bridge.ports.serial import SerialSource
from aidpost.firmware_bridge.sources import open_source


@dataclass(frozen=True)
class Found:
    """A device, and the source that opens it; `details` are for people."""

    source: str
    name: str
    details: str = ""


def serial_ports(links: Path = usb_boards.BY_PATH) -> list[Found]:
    """The serial ports that may have a board on them; which board is told by reading, or by `device=`. Those that
    nothing but their socket tells apart are named by it, since their other names may change with the next restart."""
    from serial.tools import list_ports

    boards, out = usb_boards.plugged_in(), []
    for port in sorted(list_ports.comports(), key=lambda port: port.device):
        name, details = port.device, port.hwid
        board = usb_boards.board_at(port.device, boards)
        same = usb_boards.alike(board.make, boards) if board is not None else []
        if board is not None and len(same) > 1:
            name = usb_boards.by_socket(port.device, links) or port.device
            details += f"; {len(same)} are alike: named by socket {board.socket}"
        out.append(Found(f"serial:{name}", port.product or port.description or port.device, details))
    return out


def recognise(found: Found, clock: Clock) -> Found:
    """The same port with its board named, told by what it sends; or with the reason why it cannot be told."""
    source = cast(SerialSource, open_source(found.source, clock=clock))
    try:
        board = source.detect()
    except DeviceError as error:
        return Found(found.source, found.name, error.cause)
    finally:
        source.close()
    return Found(f"{found.source}?device={board.name}", board.title, found.details)


def video_devices(devices: Path = Path("/dev"), system: Path = Path("/sys/class/video4linux")) -> list[Found]:
    """The devices that Video4Linux knows, with the names that the kernel gives them."""
    out = []
    for device in sorted(devices.glob("video*")):
        name = system / device.name / "name"
        out.append(Found(f"camera:{device}", name.read_text().strip() if name.is_file() else device.name))
    return out


async def bluetooth_sensors(seconds: float = 10.0) -> list[Found]:
    """The Bluetooth devices that advertise within `seconds`, strongest first; `details` name the known kinds.

    Raises
    ------
    NotPossibleError
        There is no Bluetooth here, or it is off.
    """
    try:
        from bleak import BleakScanner
        from bleak.exc import BleakError
    except ImportError as error:
        raise NotPossibleError(
            operation="scanning for Bluetooth sensors",
            target="ble:",
            cause="the library for Bluetooth is not installed",
            remedy="pip install 'aidpost[bluetooth]'",
        ) from error
    try:
        found = await BleakScanner.discover(timeout=seconds, return_adv=True)
    except (BleakError, OSError, EOFError) as error:
        raise NotPossibleError(
            operation="scanning for Bluetooth sensors",
            target="ble:",
            cause=f"Bluetooth is not available ({error})",
            remedy="Switch Bluetooth on; on a Pi: sudo systemctl start bluetooth.",
        ) from error
    kinds = {uuid.lower() if len(uuid) > 4 else f"0000{uuid.lower()}": kind for kind, uuid in PROFILES.items()}
    return [
        Found(
            f"ble:{device.address}",
            advertisement.local_name or device.name or device.address,
            ", ".join(kinds[key] for uuid in advertisement.service_uuids for key in (uuid, uuid[:8]) if key in kinds),
        )
        for device, advertisement in sorted(found.values(), key=lambda pair: -pair[1].rssi)
    ]
