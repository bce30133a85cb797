"""The MQTT topics. They name a device and a class of message, never a patient."""

from __future__ import annotations

import re
from typing import NamedTuple

from aidpost.errors import EnvelopeError

ROOT = "aidpost/1"
UP_FILTER = f"{ROOT}/+/up/#"
"""What a hub subscribes to: everything that devices send."""
STATUS_FILTER = f"{ROOT}/+/status"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Topic(NamedTuple):
    """A topic taken apart; `leaf` is empty for `receipt` and `status`."""

    device: str
    branch: str
    leaf: str


def is_device_name(name: str) -> bool:
    """Whether `name` can stand in a topic: 1 to 64 letters, digits, `_`, `.` or `-`, so no wildcard and no level."""
    return _NAME.fullmatch(name) is not None


def up(device: str, leaf: str) -> str:
    """Device to hub: records by their class, and `hello`, `dropped`, `blob`, `receipt`."""
    return f"{ROOT}/{device}/up/{leaf}"


def down(device: str, kind: str) -> str:
    """Hub to device: reviews, configuration, updates."""
    return f"{ROOT}/{device}/down/{kind}"


def receipt(device: str) -> str:
    """Hub to device: what the hub has committed."""
    return f"{ROOT}/{device}/receipt"


def status(device: str) -> str:
    """Device to everybody, retained, with a last will: whether it is there."""
    return f"{ROOT}/{device}/status"


def parse(topic: str) -> Topic:
    """The parts of a topic.

    Raises
    ------
    EnvelopeError
        It is not one of ours.
    """
    parts = topic.split("/")
    shape = parts[3:4]
    known = (len(parts) == 5 and shape in (["up"], ["down"])) or (
        len(parts) == 4 and shape in (["receipt"], ["status"])
    )
    if not known or "/".join(parts[:2]) != ROOT or not is_device_name(parts[2]):
        raise EnvelopeError(operation="reading a topic", target=repr(topic[:100]), cause=f"it is not under {ROOT}")
    return Topic(parts[2], parts[3], parts[4] if len(parts) == 5 else "")
