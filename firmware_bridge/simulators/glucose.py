"""Simulated glucose meters and continuous glucose sensors, which keep records and give them when they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aidpost.firmware_bridge.decoders import cgm, racp
from aidpost.firmware_bridge.decoders.gatt import DeviceTime, encode_date_time
from aidpost.firmware_bridge.decoders.medfloat import encode_sfloat
from aidpost.firmware_bridge.simulators.sensor import Characteristic, Sensor

Notes = list[tuple[str, bytes]]
NOTIFY, INDICATE = ("notify",), ("indicate",)
_NOT_SUPPORTED, _INVALID_OPERATOR = 2, 3


def record_access(records: Callable[[], dict[int, Notes]], *, filters: bool = True) -> Characteristic:
    """The control point 2A52 over records by number, each with what is sent of it; it reports, and counts. Without
    `filters` it knows all records only, as of a service whose records have no numbers."""

    def answer(command: bytes) -> Notes:
        kept, operation = records(), command[0]
        chosen = _chosen(sorted(kept), command) if filters or command[1:] == bytes([racp.ALL]) else None
        if operation not in (racp.REPORT, racp.COUNT):
            return [("2A52", bytes([racp.RESPONSE, racp.NULL, operation, _NOT_SUPPORTED]))]
        if chosen is None:
            return [("2A52", bytes([racp.RESPONSE, racp.NULL, operation, _INVALID_OPERATOR]))]
        if operation == racp.COUNT:
            return [("2A52", bytes([racp.COUNT_RESPONSE, racp.NULL]) + len(chosen).to_bytes(2, "little"))]
        code = racp.SUCCESS if chosen else racp.NO_RECORDS
        sent = [note for number in chosen for note in kept[number]]
        return [*sent, ("2A52", bytes([racp.RESPONSE, racp.NULL, operation, code]))]

    return Characteristic("2A52", ("write", "indicate"), on_write=answer, interval_s=0.005)


def _chosen(numbers: list[int], command: bytes) -> list[int] | None:
    """The numbers that a command means; None of an operator that is not known."""
    operator, operand = command[1], command[3:]
    if operator == racp.AT_LEAST and len(operand) == 2:
        return [number for number in numbers if number >= int.from_bytes(operand, "little")]
    return {racp.ALL: numbers, racp.FIRST: numbers[:1], racp.LAST: numbers[-1:]}.get(operator)


def meter(
    address: str,
    mmol: Sequence[float],
    *,
    first: int = 1,
    meals: Sequence[int] = (),
    information: dict[str, tuple[Characteristic, ...]] | None = None,
) -> Sensor:
    """A meter whose memory holds those readings, as sequence numbers `first` and up, each with a context that tells its
    meal where `meals` has its code. A negative one is of control solution. The memory may grow or be cleared meanwhile,
    if `mmol` is a list."""

    def records() -> dict[int, Notes]:
        out: dict[int, Notes] = {}
        for place, value in enumerate(mmol):
            meal = meals[place] if place < len(meals) else 0
            out[first + place] = _meter_record(first + place, value, meal)
        return out

    characteristics = (Characteristic("2A18", NOTIFY), Characteristic("2A34", NOTIFY), record_access(records))
    return Sensor(address, "Simulated meter", {"1808": characteristics, **(information or {})})


def _meter_record(number: int, mmol: float, meal: int) -> Notes:
    time = encode_date_time(DeviceTime(2026, 11, 22, 8, number % 60, 0))
    kind, sequence = 0x1A if mmol < 0 else 0x11, number.to_bytes(2, "little")
    flags = 6 | (0x10 if meal else 0)
    sent = [("2A18", bytes([flags]) + sequence + time + encode_sfloat(abs(mmol) / 1000, 4) + bytes([kind]))]
    return [*sent, ("2A34", bytes([2]) + sequence + bytes([meal]))] if meal else sent


class GlucoseSensor:
    """A continuous glucose sensor: a value in mg/dL every `interval_min` minutes of a session.

    Parameters
    ----------
    mg_per_dl
        What has been measured in the session; `measure` adds to it and tells whoever has subscribed.
    running
        Whether a session runs; without, only the specific operation "start session" begins one.
    """

    def __init__(
        self,
        mg_per_dl: Sequence[float] = (),
        *,
        interval_min: int = 5,
        crc: bool = True,
        running: bool = True,
        start: DeviceTime | None = None,
    ) -> None:
        self.values, self.interval_min, self.crc, self.running = list(mg_per_dl), interval_min, crc, running
        unset = DeviceTime(0, 0, 0, 0, 0, 0)
        self.start = cgm.encode_cgm_session_start(start or unset, None, crc=crc)
        self.asked: list[bytes] = []

    @property
    def offset_min(self) -> int:
        """Minutes of the session until the last value."""
        return self.interval_min * len(self.values)

    def measure(self, mg_per_dl: float) -> bytes:
        """The session goes on by a value, which is given as it is sent."""
        self.values.append(mg_per_dl)
        return self._record(len(self.values) - 1)

    def _record(self, number: int) -> bytes:
        return cgm.encode_cgm(self.values[number], self.interval_min * (number + 1), crc=self.crc)

    def _records(self) -> dict[int, Notes]:
        return {self.interval_min * (n + 1): [("2AA7", self._record(n))] for n in range(len(self.values))}

    def _feature(self) -> bytes:
        body = (1 << cgm.CRC_FEATURE if self.crc else 0).to_bytes(3, "little") + bytes([0x59])
        return cgm.with_crc(body, True) if self.crc else body + b"\xff\xff"

    def _status(self) -> bytes:
        stopped = b"\0" if self.running else b"\1"
        return cgm.with_crc(self.offset_min.to_bytes(2, "little") + stopped + bytes(2), self.crc)

    def _operate(self, command: bytes) -> Notes:
        self.asked.append(command)
        body = command[:-2] if self.crc else command
        if cgm.with_crc(body, self.crc) != command or body != cgm.START_SESSION:
            code = 3 if body == cgm.START_SESSION else 2
        elif self.running:
            code = 4
        else:
            code, self.running, self.values = 1, True, []
        return [("2AAC", cgm.with_crc(bytes([0x1C, command[0], code]), self.crc))]

    def _set_start(self, value: bytes) -> Notes:
        self.start = value
        return []

    def sensor(
        self, address: str = "AA:00:00:00:00:09", information: dict[str, tuple[Characteristic, ...]] | None = None
    ) -> Sensor:
        """The sensor for the simulated air."""
        return Sensor(
            address,
            "Simulated CGM",
            {
                "181F": (
                    Characteristic("2AA7", NOTIFY),
                    Characteristic("2AA8", on_read=self._feature),
                    Characteristic("2AA9", on_read=self._status),
                    Characteristic("2AAA", ("read", "write"), on_read=lambda: self.start, on_write=self._set_start),
                    record_access(self._records),
                    Characteristic("2AAC", ("write", "indicate"), on_write=self._operate),
                ),
                **(information or {}),
            },
        )
