"""Movesense's ECG, as its GATT SensorData sample firmware sends it.

To subscribe, `01`, a reference of one's own and a path are written; data come as `02`, the reference, a time in
milliseconds (u32) and int32 samples; `01` is the answer to a command, with a status (u16). What a count is worth is not
published: the site measures it and sets `uv_per_count=`. Made after the sample's source, not tried on a sensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from aidpost.firmware_bridge.decoders.base import DecodeError, signed
from aidpost.firmware_bridge.decoders.gatt import Reader

SERVICE = "34802252-7185-4d5d-b431-630e7050e8f0"
WRITE = "34800001-7185-4d5d-b431-630e7050e8f0"
NOTIFY = "34800002-7185-4d5d-b431-630e7050e8f0"
FS_HZ = 125.0
REFERENCE = 99
START_ECG = bytes([1, REFERENCE]) + b"/Meas/ECG/125"
STOP_ECG = bytes([2, REFERENCE])
RESPONSE, DATA = 1, 2


@dataclass(frozen=True)
class MovesenseEcg:
    """Samples in counts, and the sensor's time in milliseconds, which wraps at 2^32."""

    time_ms: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class MovesenseResponse:
    """The answer to the command with that reference; 200 and the like are HTTP's statuses."""

    reference: int
    status: int


def decode_movesense(data: bytes) -> MovesenseEcg | MovesenseResponse:
    """A notification.

    Raises
    ------
    DecodeError
        Of another kind, or cut off.
    """
    reader = Reader("Movesense notification", data)
    kind, reference = reader.u8("kind"), reader.u8("reference")
    if kind == RESPONSE:
        return MovesenseResponse(reference, reader.unsigned(2, "status"))
    if kind != DATA:
        raise DecodeError(reader.what, f"it is of kind {kind}")
    time_ms = reader.unsigned(4, "time")
    if reader.left % 4 or not reader.left:
        raise DecodeError(reader.what, f"{reader.left} bytes are no whole number of samples")
    count = reader.left // 4
    return MovesenseEcg(time_ms, tuple(signed(reader.unsigned(4, "sample"), 32) for _ in range(count)))


def encode_movesense(time_ms: int, counts: tuple[int, ...]) -> bytes:
    """A data notification as the sensor sends it; for simulators."""
    body = b"".join((count & 0xFFFFFFFF).to_bytes(4, "little") for count in counts)
    return bytes([DATA, REFERENCE]) + (time_ms & 0xFFFFFFFF).to_bytes(4, "little") + body
