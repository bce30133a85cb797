"""Whether this device is well: one table of checks, each with what it found, why, and the command that mends it.

No check changes a record, and none stops another: one that breaks says "unknown" with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from aidpost.board import _board_checks, _device_checks
from aidpost.board._check import Answer, State, Surroundings

__all__ = ["CHECKS", "Answer", "Check", "State", "Surroundings", "examine", "exit_code"]

CHECKS: Mapping[str, Callable[[Surroundings], Answer]] = MappingProxyType(
    {
        "board": _board_checks.board,
        "power": _board_checks.power,
        "temperature": _board_checks.temperature,
        "disk": _board_checks.disk,
        "file system": _board_checks.file_system,
        "storage wear": _board_checks.storage_wear,
        "clock": _board_checks.clock,
        "real-time clock": _board_checks.real_time_clock,
        "camera": _board_checks.camera,
        "serial": _board_checks.serial,
        "bluetooth": _board_checks.bluetooth,
        "runtime": _device_checks.runtime,
        "models": _device_checks.models,
        "kernels": _device_checks.kernels,
        "device key": _device_checks.device_key,
        "certificates": _device_checks.certificates,
        "hub": _device_checks.hub,
        "outbox": _device_checks.outbox_state,
        "sender": _device_checks.sender,
        "speech": _device_checks.speech,
    }
)
"""Name -> check, in the order shown. docs/board.md has a row for each."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the result: the check's name and its `Answer`."""

    name: str
    state: State
    why: str
    mend: str


def examine(at: Surroundings, checks: Mapping[str, Callable[[Surroundings], Answer]] = CHECKS) -> list[Check]:
    """Every check in order; it raises nothing."""
    return [_run(name, check, at) for name, check in checks.items()]


def _run(name: str, check: Callable[[Surroundings], Answer], at: Surroundings) -> Check:
    try:
        found = check(at)
    except Exception as error:  # noqa: BLE001  a doctor that stops at the first broken part is of no use
        found = Answer("unknown", f"the check broke: {type(error).__name__}: {error}")
    return Check(name=name, state=found.state, why=found.why, mend=found.mend)


def exit_code(checks: list[Check]) -> int:
    """1 where any check failed, 0 otherwise: a warning, or what cannot be known, stops no script."""
    return 1 if any(check.state == "failed" for check in checks) else 0
