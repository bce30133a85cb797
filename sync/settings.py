"""Which settings of a device a hub may change, named once for both ends: none by which the device would be locked out
(its hub, broker, keys, folders and sensors), and no clinical limit, which needs two signatures."""

from __future__ import annotations

import msgspec

from aidpost.errors import InvalidRecordError, UsageError

SUBJECT = "config"

Value = bool | int | float | str

REMOTE: dict[str, type[Value]] = {
    "clinic.name": str,
    "clinic.telephone": str,
    "clinic.emergency_telephone": str,
    "clinic.help_telephone": str,
    "device.utc_offset_min": int,
    "store.keep_receipted_days": int,
    "sync.keepalive_s": int,
    "sync.window_records": int,
    "sync.window_bytes": int,
    "sync.backlog_kb_s": int,
    "exam.ecg_seconds": float,
    "exam.sensor_deadline_s": float,
    "console.lock_minutes": int,
    "console.language": str,
    "console.paper": str,
    "console.roll_mm": int,
    "console.glucose_unit": str,
    "console.large_print": bool,
}
"""Each key and its type. Bounds are the device's to check, by the validation of its own file."""


def value_of(key: str, text: str) -> Value:
    """A value as a person types it.

    Raises
    ------
    UsageError
        The key is not one that a hub may change, or the text is no value of its type.
    """
    kind = REMOTE.get(key)
    if kind is None:
        raise UsageError(
            operation="setting devices",
            target=key,
            cause="a hub may not change this key",
            remedy=f"It may change {', '.join(REMOTE)}.",
        )
    if kind is str:
        return text
    try:
        return msgspec.convert(text.strip().lower(), kind, strict=False)
    except msgspec.ValidationError:
        raise UsageError(
            operation="setting devices",
            target=key,
            cause=f"{text[:60]!r} is not {'true or false' if kind is bool else 'a number'}",
            remedy="See docs/configuration.md.",
        ) from None


def pack(values: dict[str, Value]) -> bytes:
    """Settings as they go down: one JSON object, key to value, in one order."""
    return msgspec.json.encode(values, order="sorted")


def unpack(body: bytes) -> dict[str, Value]:
    """The settings in a delivery.

    Raises
    ------
    InvalidRecordError
        It is none, or has a key that a hub may not change; the cause names it.
    """
    try:
        values = msgspec.json.decode(body, type=dict[str, Value])
    except msgspec.DecodeError as error:
        raise _invalid(str(error)) from None
    if strange := sorted(values.keys() - REMOTE.keys()):
        raise _invalid(f"{', '.join(strange)[:300]}: not among the settings that a hub may change")
    return values


def _invalid(cause: str) -> InvalidRecordError:
    return InvalidRecordError(operation="reading the hub's settings", target="settings", cause=cause)
