"""Every decoder by name, for `aidpost devices decode`: a characteristic (2A35, 0x2A37 or its long UUID) or a board."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from aidpost.errors import UsageError
from aidpost.firmware_bridge.boards import BOARDS, Board
from aidpost.firmware_bridge.decoders import (
    blood_pressure,
    cgm,
    device_info,
    glucose,
    heart_rate,
    movesense,
    nonin,
    polar,
    pulse_oximeter,
    racp,
    thermometer,
    viatom,
    weight,
)
from aidpost.firmware_bridge.decoders.base import Announcement, Block, Corrupt
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.decoders.medfloat import Number

CHARACTERISTICS: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    "2A19": ("battery level, %", device_info.decode_battery),
    "2A1C": ("temperature measurement", thermometer.decode_temperature),
    "2A1D": ("temperature type", thermometer.decode_temperature_type),
    "2A1E": ("intermediate temperature", thermometer.decode_temperature),
    "2A18": ("glucose measurement", glucose.decode_glucose),
    "2A34": ("glucose measurement context", glucose.decode_glucose_context),
    "2A51": ("glucose feature", glucose.decode_glucose_feature),
    "2A52": ("record access control point", racp.decode_racp),
    "2A24": ("model", device_info.decode_text),
    "2A25": ("serial number", device_info.decode_text),
    "2A26": ("firmware revision", device_info.decode_text),
    "2A27": ("hardware revision", device_info.decode_text),
    "2A28": ("software revision", device_info.decode_text),
    "2A29": ("manufacturer", device_info.decode_text),
    "2A2B": ("current time", device_info.decode_current_time),
    "2A35": ("blood pressure measurement", blood_pressure.decode_blood_pressure),
    "2A36": ("intermediate cuff pressure", blood_pressure.decode_blood_pressure),
    "2A49": ("blood pressure feature", blood_pressure.decode_blood_pressure_feature),
    "2A37": ("heart rate measurement", heart_rate.decode_heart_rate),
    "2A38": ("body sensor location", heart_rate.decode_sensor_location),
    "2A5E": ("pulse oximeter spot check", pulse_oximeter.decode_spot_check),
    "2A5F": ("pulse oximeter continuous", pulse_oximeter.decode_continuous),
    "2A60": ("pulse oximeter features", pulse_oximeter.decode_plx_features),
    "2A9C": ("body composition measurement", weight.decode_body_composition),
    "2A9D": ("weight measurement", weight.decode_weight),
    "2AA7": ("CGM measurement", cgm.decode_cgm),
    "2AA8": ("CGM feature", cgm.decode_cgm_feature),
    "2AA9": ("CGM status", cgm.decode_cgm_status),
    "2AAA": ("CGM session start time", cgm.decode_cgm_session_start),
    "2AAB": ("CGM session run time, h", cgm.decode_cgm_run_time),
    "2AAC": ("CGM specific operations control point", cgm.decode_cgm_control),
    polar.CONTROL.upper(): ("Polar control point", polar.decode_polar_response),
    polar.DATA.upper(): ("Polar ECG", polar.decode_polar_ecg),
    movesense.NOTIFY.upper(): ("Movesense notification", movesense.decode_movesense),
    nonin.MEASUREMENT.upper(): ("Nonin oximetry", nonin.decode_nonin),
    viatom.NOTIFY.upper(): ("Viatom reply", lambda data: viatom.ViatomAssembler().feed(data)),
}
_BASE = "-0000-1000-8000-00805F9B34FB"


def decode(what: str, text: str) -> dict[str, Any]:
    """What a decoder makes of bytes given as hexadecimal text; the result is ready for JSON.

    A board gives `samples` in counts, `millivolts` of its ECG channels at the default gain (null where that is
    unknown), `readings`, and `corrupt`.

    Raises
    ------
    UsageError
        There is no decoder of that name, or the text is not hexadecimal.
    DecodeError
        The characteristic's bytes do not follow its specification.
    """
    try:
        data = bytes.fromhex(text.replace(":", " ").removeprefix("0x"))
    except ValueError:
        raise UsageError(
            operation="decoding", target=what, cause=f"{text!r} is not hexadecimal", remedy="Write bytes as 0A FA 14."
        ) from None
    if what.lower() in BOARDS:
        return _decode_board(BOARDS[what.lower()], data)
    key = what.upper().removeprefix("0X")
    if key.endswith(_BASE) and key.startswith("0000"):
        key = key[4:8]
    if key not in CHARACTERISTICS:
        known = ", ".join([*BOARDS, *(name for name in CHARACTERISTICS if len(name) == 4)])
        raise UsageError(operation="decoding", target=what, cause="there is no such decoder", remedy=f"Known: {known}.")
    title, decoder = CHARACTERISTICS[key]
    return {"what": key, "title": title, "value": plain(decoder(data))}


def _decode_board(board: Board, data: bytes) -> dict[str, Any]:
    items = board.decoder().feed(data)
    blocks = [item for item in items if isinstance(item, Block)]
    samples = [list(sample) for block in blocks for sample in block.samples]
    scale = board.uv_per_count
    millivolts = None
    if scale is not None and not board.announces:
        millivolts = {
            lead: [round((sample[n] - board.baseline) * scale / 1000, 6) for sample in samples]
            for n, lead in enumerate(board.leads)
        }
    return {
        "what": board.name,
        "title": board.title,
        "fs_hz": board.fs_hz,
        "samples": samples,
        "millivolts": millivolts,
        "off": [list(block.off) for block in blocks],
        "lost": sum(block.lost for block in blocks),
        "readings": [dict(block.readings) for block in blocks],
        "announced": [item._asdict() for item in items if isinstance(item, Announcement)],
        "corrupt": [item._asdict() for item in items if isinstance(item, Corrupt)],
    }


def plain(value: Any) -> Any:
    """A decoded value as JSON knows it: a number that is absent becomes an object saying why."""
    if isinstance(value, Number):
        if value.absent is not None:
            return {"absent": value.absent.value}
        return plain(value.value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, DeviceTime):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
