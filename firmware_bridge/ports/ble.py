"""`ble:AA:BB:CC:DD:EE:FF` or `ble:heart-rate`: a Bluetooth sensor, live, through bleak.

By address, or by kind: then the first sensor found that advertises that service. Options: `wait` (seconds for the first
reading, 60), `scan` (seconds, 15), `since` (of a sensor that keeps records: only those with a higher number are asked
for, instead of those after the last that was stored), `session=start` (a continuous glucose sensor whose session does
not run is started), `uv_per_count` (for an ECG whose scale the sensor does not tell).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from aidpost.errors import AidpostError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import movesense, nonin, polar, viatom
from aidpost.firmware_bridge.ports import _ble, _ble_capture, _ble_ecg, _ble_link, _ble_loop
from aidpost.firmware_bridge.sources import BaseSource, Kind, SourceSpec
from aidpost.firmware_bridge.states import STATES
from aidpost.records import Device, EcgRecording, VitalSign

PROFILES: dict[str, str] = {
    "heart-rate": "180D",
    "blood-pressure": "1810",
    "thermometer": "1809",
    "glucose": "1808",
    "cgm": "181F",
    "oximeter": "1822",
    "weight": "181D",
    "body-composition": "181B",
    "polar": polar.SERVICE,
    "movesense": movesense.SERVICE,
    "nonin": nonin.SERVICE,
    "viatom": viatom.SERVICE,
}
"""Kinds of sensors, and the service each advertises."""

DEFAULT_SECONDS = 30.0
_ADDRESS = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")

T = TypeVar("T")


class BleSource(BaseSource):
    """One sensor: found, connected and let go for each reading. Coroutines of the same name serve a running loop."""

    kinds = frozenset({Kind.VITALS, Kind.ECG})

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        super().__init__(spec, clock)
        spec.require_only("wait", "scan", "since", "session", "uv_per_count")
        self._uv_per_count = spec.number("uv_per_count", 0, low=0, high=1e6) or None
        if spec.address not in PROFILES and not _ADDRESS.fullmatch(spec.address):
            raise spec.usage_error(
                f"{spec.address!r} is neither an address nor a kind of sensor", f"Kinds are {', '.join(PROFILES)}."
            )
        self._target = _ble_link.Target(
            address=spec.address.upper() if spec.address not in PROFILES else "",
            service=PROFILES.get(spec.address, ""),
            scan_s=spec.number("scan", 15, low=0.1, high=600),
            wait_s=spec.number("wait", 60, low=0.1, high=3600),
            since=int(spec.number("since", 0, low=0, high=65535)) if spec.get("since") else None,
            spec=spec,
            start_session=spec.choice("session", "", ("", "start")) == "start",
        )

    async def vitals(self) -> list[VitalSign]:
        """What the sensor measures or has stored; for use in a running event loop."""
        with STATES.reading(self.spec):
            target = self._target
            if self.patience_s is not None and not self.spec.get("wait"):
                target = replace(target, wait_s=self.patience_s)
            read = await _ble.read_vitals(target, self.clock, self.marks)
        self.read_up_to = read.marks
        return read.vitals

    async def ecg(self, seconds: float) -> EcgRecording:
        """An ECG from a sensor that has one (Polar H10, Movesense); for use in a running event loop."""
        with STATES.reading(self.spec):
            return await _ble_ecg.read_ecg(self._target, self.clock, seconds, self._uv_per_count)

    def reach(self) -> Device:
        """Connect without measuring; gives who it is.

        Raises
        ------
        DeviceError
            It is not there, or refuses.
        """
        with STATES.reading(self.spec):
            return _run(lambda: _ble_link.reach(self._target))

    def pair(self) -> Device:
        """Pair with the sensor; gives who it is.

        Raises
        ------
        DeviceError
            It is not there, or refuses.
        """
        return _run(lambda: _ble_capture.pair(self._target))

    def record(self, path: Path, seconds: float) -> int:
        """Write what the sensor sends in `seconds` to a capture at `path`; gives the number of values. For `replay:`.

        Raises
        ------
        DeviceError
            It is not there, or sends nothing.
        """
        return _run(lambda: _ble_capture.record(self._target, self.clock, path, seconds))

    def read_vitals(self) -> list[VitalSign]:
        return _run(self.vitals)

    def read_ecg(self, seconds: float | None = None) -> EcgRecording:
        return _run(lambda: self.ecg(seconds or DEFAULT_SECONDS))


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _ble_loop.run(work)
    raise AidpostError(
        operation="reading a Bluetooth sensor",
        target="event loop",
        cause="a loop already runs in this thread",
        remedy="Await vitals() or ecg() instead.",
    )
