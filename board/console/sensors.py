"""Which sensors are alive: there, heard of just now, without contact, silent, pulled out. Told by those who read them.

Nothing here opens a port. Whoever reads a sensor (a recording, a live picture, a patient who is watched) says what came
or what went wrong; whether a port or a camera is plugged in is looked up each time somebody asks.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from aidpost.board.console.words import N_
from aidpost.errors import AidpostError, DeviceLostError, DeviceNotFoundError, DeviceTimeoutError
from aidpost.firmware_bridge.sources import plugged_in
from aidpost.records import VitalSign

FRESH_S = 5.0
"""What was heard so recently comes now; a sensor that is being read and says nothing for longer is silent."""


class Standing(enum.Enum):
    """How a sensor is, in the words of the screen."""

    FLOWING = N_("sends now")
    THERE = N_("there")
    WAITED_FOR = N_("is being waited for")
    UNTRIED = N_("not tried yet")
    NO_CONTACT = N_("no contact")
    SILENT = N_("silent")
    GONE = N_("unplugged")
    OUT_OF_REACH = N_("not in reach")
    BROKEN = N_("does not work")

    @property
    def light(self) -> str:
        """ "good", "bad", or "idle" where nothing is known against it."""
        if self in (Standing.FLOWING, Standing.THERE):
            return "good"
        return "idle" if self in (Standing.UNTRIED, Standing.WAITED_FOR) else "bad"


class Sensor(NamedTuple):
    """One SOURCE as it is now. `uses` are what the screen takes from it; `heard_s` seconds since the last data and
    `battery` percent, each None where not known; `trouble` what went wrong the last time."""

    source: str
    uses: tuple[str, ...]
    name: str
    standing: Standing
    heard_s: float | None
    battery: int | None
    trouble: str


@dataclass
class _Known:
    """What was told of a source. Times are monotonic seconds."""

    heard: float | None = None
    failed: float | None = None
    began: float | None = None
    off: bool = False
    battery: int | None = None
    name: str = ""
    error: AidpostError | None = None
    readers: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)


class Sensors:
    """What is known of each source. Methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._known: dict[str, _Known] = {}

    def heard(self, source: str, *, off: bool = False, battery: int | None = None, name: str = "") -> None:
        """Data came; `off`: the electrode or finger has no contact."""
        with self._lock:
            known = self._of(source)
            known.heard, known.off, known.error = self._clock(), off, None
            known.battery = battery if battery is not None else known.battery
            known.name = name or known.name

    def took(self, source: str, readings: Sequence[VitalSign], battery: int | None = None) -> None:
        """Vital signs came, perhaps without values."""
        off = bool(readings) and all(one.value is None for one in readings)
        self.heard(source, off=off, battery=battery, name=next((one.device.name for one in readings), ""))

    def failed(self, source: str, error: AidpostError) -> None:
        """It could not be read."""
        with self._lock:
            known = self._of(source)
            known.failed, known.error = self._clock(), error

    @contextmanager
    def reading(self, source: str, *, turn: bool = True) -> Iterator[None]:
        """It is being read; what goes wrong is noted. With `turn`, one reader at a time: a trial and a recording do not
        take the port from each other."""
        with self._lock:
            known = self._of(source)
        if turn:
            known.turn.acquire()
        try:
            with self._lock:
                known.readers, known.began = known.readers + 1, self._clock()
            yield
        except AidpostError as error:
            self.failed(source, error)
            raise
        finally:
            with self._lock:
                known.readers -= 1
            if turn:
                known.turn.release()

    def is_read(self, source: str) -> bool:
        """Whether somebody is reading it."""
        with self._lock:
            return self._of(source).readers > 0

    def look(self, sources: dict[str, tuple[str, ...]]) -> list[Sensor]:
        """How each source is: source -> what it is used for."""
        found = []
        for source, uses in sources.items():
            try:
                there = plugged_in(source)
            except AidpostError as error:  # misspelt in the configuration
                there = None
                self.failed(source, error)
            with self._lock:
                known, now = self._of(source), self._clock()
                heard_s = None if known.heard is None else now - known.heard
                standing = self._standing(known, there, now)
                trouble = known.error.cause if known.error is not None and standing.light == "bad" else ""
                trouble = "" if standing is Standing.GONE else trouble
                name = known.name or source.split("?")[0]
                found.append(Sensor(source, uses, name, standing, heard_s, known.battery, trouble))
        return found

    def _of(self, source: str) -> _Known:
        return self._known.setdefault(source, _Known())

    @staticmethod
    def _standing(known: _Known, there: bool | None, now: float) -> Standing:
        if there is False:
            return Standing.GONE
        if known.error is not None:
            return _after(known.error, there)
        fresh = known.heard is not None and now - known.heard <= FRESH_S
        if fresh:
            return Standing.NO_CONTACT if known.off else Standing.FLOWING
        if known.readers and known.began is not None:
            answered = known.heard is not None and known.heard >= known.began
            return Standing.SILENT if answered else Standing.WAITED_FOR
        return Standing.THERE if there or known.heard is not None else Standing.UNTRIED


def _after(error: AidpostError, there: bool | None) -> Standing:
    if isinstance(error, (DeviceNotFoundError, DeviceLostError)):
        # it was pulled out while it was read, and is there again
        return Standing.THERE if there else Standing.OUT_OF_REACH
    return Standing.SILENT if isinstance(error, DeviceTimeoutError) else Standing.BROKEN
