"""How each sensor is: whether anything comes from it, when it last did, its battery, its electrodes, and why not.

Ports report here; who wants to show it asks here. `STATES` is the process's own: `STATES.of(sources)` gives one
`SensorState` for each SOURCE text, in that order, at once and from any thread (it reads no device). With `keep_in` the
states are also in a file, so that another process can `read_kept` them: `aidpost devices list` does, of a device that
runs. Neither holds anything of a patient: a sensor's source, name and state, and no measured value.

"Connected" means that something came within `FRESH_S`, never that a cable is in or a radio paired.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aidpost.errors import AidpostError
from aidpost.firmware_bridge.sources import SourceSpec, parse_source

FRESH_S = 5.0
"""A sensor that is read and of which nothing came for so long is silent."""
WRITE_EVERY_S = 30.0
"""When nothing but the time of the last arrival changed, the file is written this often: cards wear."""
KEPT_IN = "sensors.json"
"""The file, in the device's state folder."""
NOT_DEVICES = frozenset({"sim", "file", "replay"})


class Link(enum.Enum):
    """What is known of the way to a sensor."""

    CONNECTED = "connected"
    """It is being read, and something came within `FRESH_S`."""
    WAITING = "waiting"
    """It is being looked for, or is there and has nothing yet (a cuff that pumps)."""
    SILENT = "silent"
    """It is being read; something came, and nothing for `FRESH_S`."""
    IDLE = "idle"
    """It is not being read; the last time it gave what it was asked for."""
    FAILED = "failed"
    """It is not being read; the last time it failed: `reason` says why, `remedy` what to do."""
    UNTRIED = "not tried yet"
    NO_DEVICE = "no device"
    """It is simulated, a file or a replay: nothing that could be plugged in."""


@dataclass(frozen=True)
class SensorState:
    """One sensor, as of now.

    `heard_ms` is wall-clock time in ms since 1970 of the last bytes (None: never), `heard_ago_s` how long ago that is.
    `battery_percent` is None where it has not said. `lead_off` names the leads without contact, or "skin" for what is
    worn; it is empty where all have contact, and None where the sensor does not tell. `reason` and `remedy` are set
    while it fails, and `reason` also while a link that broke is being made again. `fault` is the name of the error's
    class while it fails.
    """

    source: str
    link: Link = Link.UNTRIED
    name: str = ""
    heard_ms: int | None = None
    heard_ago_s: float | None = None
    battery_percent: int | None = None
    lead_off: tuple[str, ...] | None = None
    reason: str = ""
    remedy: str = ""
    fault: str = ""

    @property
    def is_read(self) -> bool:
        """Whether somebody is reading it."""
        return self.link in (Link.CONNECTED, Link.WAITING, Link.SILENT)

    @property
    def alive(self) -> bool:
        """Whether something comes from it now."""
        return self.link is Link.CONNECTED


@dataclass
class _Known:
    """What was reported of a sensor. Times are monotonic seconds; `readers` counts who reads it now."""

    state: SensorState
    readers: int = 0
    heard_s: float | None = None
    heard_since_open: bool = False


class SensorStates:
    """What ports reported. All methods may be called from any thread, and none raises for what it is told."""

    def __init__(self, clock: Callable[[], float] = lambda: time.monotonic()) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._written = (-WRITE_EVERY_S, "")

    # -- for ports

    @contextlib.contextmanager
    def reading(self, spec: SourceSpec) -> Iterator[None]:
        """While a sensor is read. An error that leaves it is why the sensor gives nothing."""
        self._opened(spec)
        try:
            yield
        except AidpostError as error:
            self._closed(spec, Link.FAILED, error)
            raise
        except BaseException:  # the page was left, Ctrl-C: that says nothing about the sensor
            self._closed(spec, Link.IDLE)
            raise
        self._closed(spec, Link.IDLE)

    def heard(self, spec: SourceSpec) -> None:
        """Something has just come from it."""
        with self._lock:
            known, now = self._of(spec), self._clock()
            usual = known.heard_since_open and not known.state.reason and now - (known.heard_s or 0.0) <= FRESH_S
            known.heard_s, known.heard_since_open = now, True
            known.state = known.state if usual else replace(known.state, reason="", remedy="", fault="")
        if not usual or now - self._written[0] >= WRITE_EVERY_S:
            self._keep()

    def told(
        self,
        spec: SourceSpec,
        *,
        name: str | None = None,
        battery_percent: int | None = None,
        lead_off: Iterable[str] | None = None,
        reason: str | None = None,
    ) -> None:
        """What the sensor says of itself; None leaves what was known."""
        given: dict[str, Any] = {"name": name, "battery_percent": battery_percent, "reason": reason}
        if lead_off is not None:
            given["lead_off"] = tuple(lead_off)
        change = {key: value for key, value in given.items() if value is not None}
        with self._lock:
            known = self._of(spec)
            known.state = replace(known.state, **change)
        self._keep()

    def failed(self, spec: SourceSpec, error: AidpostError) -> None:
        """It could not even be opened."""
        with self._lock:
            known = self._of(spec)
            known.state = replace(known.state, link=Link.FAILED, **_why(error))
        self._keep()

    # -- for who shows them

    def of(self, sources: Iterable[str]) -> list[SensorState]:
        """The state of each source, by its text; one that does not parse fails with what is wrong with it."""
        out = []
        for text in sources:
            try:
                spec = parse_source(text)
            except AidpostError as error:
                out.append(SensorState(text, Link.FAILED, **_why(error)))
                continue
            with self._lock:
                known = self._known.get(str(spec))
                out.append(_unread(spec) if known is None else _now(known, self._clock()))
        return out

    def now(self) -> list[SensorState]:
        """Every sensor that this process has tried."""
        with self._lock:
            return [_now(known, self._clock()) for known in self._known.values()]

    def keep_in(self, path: Path | None) -> None:
        """Also keep the states in a file, from now on (None: no more)."""
        self._path, self._written = path, (-WRITE_EVERY_S, "")
        self._keep()

    def clear(self) -> None:
        """Forget everything; for tests."""
        with self._lock:
            self._known.clear()

    # -- inside

    def _of(self, spec: SourceSpec) -> _Known:
        return self._known.setdefault(str(spec), _Known(_unread(spec)))

    def _opened(self, spec: SourceSpec) -> None:
        with self._lock:
            known = self._of(spec)
            if known.readers == 0:
                known.heard_since_open = False
            known.readers += 1
        self._keep()

    def _closed(self, spec: SourceSpec, link: Link, error: AidpostError | None = None) -> None:
        with self._lock:
            known = self._of(spec)
            known.readers = max(0, known.readers - 1)
            known.state = replace(known.state, link=link, **_why(error))
        self._keep()

    def _keep(self) -> None:
        path = self._path
        if path is None:
            return
        with self._lock:
            states = [_now(known, self._clock()) for known in self._known.values()]
            now, what = self._clock(), json.dumps([_plain(replace(one, heard_ms=None)) for one in states])
            if what == self._written[1] and now - self._written[0] < WRITE_EVERY_S:
                return
            self._written = (now, what)
            document = {"pid": os.getpid(), "wall_ms": round(time.time() * 1000), "sensors": list(map(_plain, states))}
            # for people to look at: the next one replaces it, so that it is renamed into place and not synced
            with contextlib.suppress(OSError):
                fresh = path.with_suffix(".new")
                fresh.write_text(json.dumps(document))
                fresh.replace(path)


def _why(error: AidpostError | None) -> dict[str, Any]:
    if error is None:
        return {"reason": "", "remedy": "", "fault": ""}
    return {"reason": error.cause, "remedy": error.remedy, "fault": type(error).__name__}


def _unread(spec: SourceSpec) -> SensorState:
    return SensorState(str(spec), Link.NO_DEVICE if spec.name in NOT_DEVICES else Link.UNTRIED)


def _now(known: _Known, now: float) -> SensorState:
    ago = None if known.heard_s is None else now - known.heard_s
    state = known.state
    if ago is not None:
        state = replace(state, heard_ago_s=round(ago, 1), heard_ms=round((time.time() - ago) * 1000))
    if not known.readers:
        return state
    if not known.heard_since_open or ago is None:
        return replace(state, link=Link.WAITING)
    return replace(state, link=Link.CONNECTED if ago <= FRESH_S else Link.SILENT)


def _plain(state: SensorState) -> dict[str, Any]:
    """A state for JSON. How long ago it was heard is left out: a file's reader reckons it from `heard_ms`."""
    values = {**vars(state), "link": state.link.name}
    del values["heard_ago_s"]
    return values


def read_kept(path: Path) -> list[SensorState]:
    """The states that a process keeps in that file; none where it has ended or never kept any.

    A sensor that was connected when the file was written is silent where nothing was written for long after.
    """
    try:
        document = json.loads(path.read_text())
        with contextlib.suppress(PermissionError):  # it runs, as another user
            os.kill(document["pid"], 0)
        states = [_read(one) for one in document["sensors"]]
        written_s = document["wall_ms"] / 1000
    except (OSError, ValueError, KeyError, TypeError):
        return []
    now = time.time()
    late = now - written_s > WRITE_EVERY_S + FRESH_S
    return [
        replace(
            one,
            link=Link.SILENT if late and one.alive else one.link,
            heard_ago_s=None if one.heard_ms is None else round(max(0.0, now - one.heard_ms / 1000), 1),
        )
        for one in states
    ]


def _read(values: dict[str, Any]) -> SensorState:
    off = values["lead_off"]
    return SensorState(**{**values, "link": Link[values["link"]], "lead_off": None if off is None else tuple(off)})


STATES = SensorStates()
"""This process's sensors."""
