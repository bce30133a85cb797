"""The serial boards that are known: what each sends, how fast, and what a count is worth.

Where the factor from counts to millivolt depends on a gain that the board does not announce, it is a default that the
site can set (`gain=` or `uv_per_count=` in the source) and check with a 1 mV signal; docs/sensors says which those are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aidpost.firmware_bridge.decoders.ad8232 import Ad8232Decoder
from aidpost.firmware_bridge.decoders.base import Block, BoardDecoder, Corrupt
from aidpost.firmware_bridge.decoders.bitalino import BitalinoDecoder
from aidpost.firmware_bridge.decoders.cyton import CytonDecoder
from aidpost.firmware_bridge.decoders.olimex import OlimexDecoder
from aidpost.firmware_bridge.decoders.own import OwnDecoder
from aidpost.firmware_bridge.decoders.protocentral import ProtocentralDecoder


@dataclass(frozen=True)
class Board:
    """A board on a serial port.

    `leads` names its ECG channels, in order; channels beyond are not ECG. A count is worth `uv_per_count` microvolt at
    `gain`, after `baseline` is taken off; None where that is not known, and the site must measure it. `modulus` is that
    of its frame number (0: frames are not numbered), in samples. `start` and `stop` are sent when it is opened and
    closed. A board that `announces` says itself what it is, and its row says only what to expect.
    """

    name: str
    title: str
    decoder: Callable[[], BoardDecoder]
    leads: tuple[str, ...]
    fs_hz: float
    uv_per_count: float | None
    baud: int
    gain: float = 1.0
    baseline: int = 0
    modulus: int = 0
    start: bytes = b""
    stop: bytes = b""
    vitals: bool = False
    announces: bool = False


MIN_FRAMES = 20


def _max3000x(gain: float) -> float:
    return 1e6 / (131072 * gain)  # microvolt: VREF 1000 mV over 2^17 steps


_CYTON_GAIN = 24.0
_ADS1292R_UV = 12.31  # 2.42 V / (6 (2^23 - 1)), times 256 for the eight bits that the firmware shifts away

BOARDS: dict[str, Board] = {
    board.name: board
    for board in (
        *(
            Board(
                name,
                title,
                partial(ProtocentralDecoder, "healthypi4"),
                leads=("I",),
                fs_hz=125,
                uv_per_count=_ADS1292R_UV,
                gain=6,
                baud=115200,
                vitals=True,
            )
            for name, title in (
                ("healthypi4", "ProtoCentral HealthyPi v4"),
                ("healthypi3", "ProtoCentral HealthyPi v3"),
            )
        ),
        Board(
            "healthypi5",
            "ProtoCentral HealthyPi 5",
            partial(ProtocentralDecoder, "healthypi5"),
            leads=("I",),
            fs_hz=128,
            uv_per_count=_max3000x(80),
            gain=80,
            baud=115200,
            vitals=True,
        ),
        Board(
            "healthypi6",
            "ProtoCentral HealthyPi 6",
            partial(ProtocentralDecoder, "healthypi6"),
            leads=("I", "II", "V1"),
            fs_hz=500,
            uv_per_count=None,
            baud=921600,
            vitals=True,
        ),
        Board(
            "ads1292r",
            "ProtoCentral ADS1292R shield",
            partial(ProtocentralDecoder, "ads1292r"),
            leads=("I",),
            fs_hz=125,
            uv_per_count=_ADS1292R_UV,
            gain=6,
            baud=57600,
            vitals=True,
        ),
        Board(
            "ads1293",
            "ProtoCentral ADS1293",
            partial(ProtocentralDecoder, "ads1293"),
            leads=("I", "II", "V1"),
            fs_hz=128,
            uv_per_count=None,
            baud=57600,
        ),
        Board(
            "max30003",
            "ProtoCentral MAX30003",
            partial(ProtocentralDecoder, "max30003"),
            leads=("I",),
            fs_hz=128,
            uv_per_count=_max3000x(20),
            gain=20,
            baud=57600,
            vitals=True,
        ),
        Board(
            "max30001",
            "ProtoCentral MAX30001",
            partial(ProtocentralDecoder, "max30001"),
            leads=("I",),
            fs_hz=128,
            uv_per_count=_max3000x(20),
            gain=20,
            baud=57600,
        ),
        Board(
            "cyton",
            "OpenBCI Cyton",
            CytonDecoder,
            leads=tuple(f"channel {n}" for n in range(1, 9)),
            fs_hz=250,
            uv_per_count=4.5e6 / (_CYTON_GAIN * (2**23 - 1)),
            gain=_CYTON_GAIN,
            baud=115200,
            modulus=256,
            start=b"b",
            stop=b"s",
        ),
        Board(
            "bitalino",
            "BITalino (r)evolution, ECG on A1",
            partial(BitalinoDecoder, 1),
            leads=("I",),
            fs_hz=1000,
            uv_per_count=3.3e6 / 1100 / 1024,
            gain=1100,
            baseline=512,
            baud=115200,
            modulus=16,
            start=bytes([0xC3, 0x01 | 1 << 2]),
            stop=b"\x00",
        ),
        Board(
            "olimex",
            "Olimex SHIELD-EKG-EMG",
            OlimexDecoder,
            leads=("I",),
            fs_hz=256,
            uv_per_count=None,
            baseline=512,
            baud=57600,
            modulus=256,
        ),
        Board(
            "ad8232",
            "AD8232 sketch, one number a line",
            Ad8232Decoder,
            leads=("I",),
            fs_hz=250,
            uv_per_count=3.3e6 / 1024 / 100,
            gain=100,
            baseline=512,
            baud=115200,
        ),
        Board(
            "aidpost",
            "board with the Aidpost protocol",
            OwnDecoder,
            leads=("I",),
            fs_hz=250,
            uv_per_count=1.0,
            baud=115200,
            modulus=1 << 32,
            announces=True,
        ),
    )
}
"""By the name that `device=` takes."""


def identify(data: bytes) -> tuple[str, ...]:
    """The boards that bytes from a port may come from; several where they send frames alike.

    A board fits if most of the bytes are its frames. AD8232's lines of text fit last: digits are in everything.
    """
    fits: dict[str, int] = {}
    for name, board in BOARDS.items():
        items = board.decoder().feed(data)
        blocks = sum(isinstance(item, Block) for item in items)
        dropped = sum(item.dropped for item in items if isinstance(item, Corrupt))
        if blocks >= MIN_FRAMES and dropped < len(data) / 4:
            fits[name] = blocks
    if len(fits) > 1:
        # v3 and v4 are the same stream; text is no frame; a 4-bit CRC fits by chance more easily than a whole frame
        for weak in ("healthypi3", "ad8232", "bitalino"):
            if len(fits) > 1:
                fits.pop(weak, None)
    return tuple(fits)
