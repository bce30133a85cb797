"""A patient who is watched while they wait: the sensors are read again and again, and somebody is called in time.

One patient at a time, since the sensors are on one patient. That somebody is watched is part of the open exam, so it
goes on after a power cut. What calls is inference/watch.py; here is the reading, on a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import TYPE_CHECKING

from aidpost.board.console.words import N_
from aidpost.errors import AidpostError, UsageError
from aidpost.firmware_bridge.sources import Source, open_source
from aidpost.inference.watch import Call, Watch
from aidpost.records import VitalKind, VitalSign

if TYPE_CHECKING:
    from aidpost.board.console.drafts import Draft
    from aidpost.board.console.workspace import Workspace

_log = logging.getLogger(__name__)

EVERY_S = 2.0
"""Between two readings of a sensor that answers at once; one that waits for its own next value sets the pace."""
KEEP_S = 300.0
"""Of what is watched the exam keeps a reading of each kind so often, and every one that changes a call."""
QUIET_S = 600.0
LET_GO_S = 3.0


class Watching:
    """Who is watched. Methods may be called from any thread; `close` before the workspace is."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._watched: _Watched | None = None
        self._asked = threading.Lock()

    def resume(self) -> None:
        """Go on with whom was watched when the power was cut."""
        for draft in self._workspace.drafts.all():
            if draft.watched:
                try:
                    self.start(draft.exam.id)
                except AidpostError as error:
                    _log.warning("not watching %s any more: %s", draft.exam.id, error.cause)

    def start(self, exam: uuid.UUID) -> None:
        """Watch this patient.

        Raises
        ------
        UsageError
            Another patient is watched, or the device has no sensor of vital signs.
        ConfigurationError
            The site's limits contradict one another.
        """
        with self._asked:
            if self._watched is not None and self._watched.exam == exam:
                return
            if self._watched is not None:
                remedy = N_("Stop that first: the sensors are on that patient.")
                raise _cannot(exam, N_("another patient is watched"), remedy)
            sources = [one for one in self._workspace.source("vitals", exam).split(",") if one]
            if not sources:
                raise _cannot(exam, N_("this device has no sensor of vital signs"), N_("Set it under [sensors]."))
            watched = _Watched(self._workspace, self._workspace.watched(exam, True), sources)
            watched.start()
            self._watched = watched

    def stop(self, exam: uuid.UUID) -> None:
        """Stop watching; nothing where this patient is not watched. What the exam kept stays."""
        with self._asked:
            if self._watched is None or self._watched.exam != exam:
                return
            self._watched.stop()
            self._watched = None
            if self._workspace.drafts.find(exam) is not None:
                self._workspace.watched(exam, False)

    def close(self) -> None:
        """Let go of the sensors; the patient is watched again when the device is back."""
        with self._asked:
            if self._watched is not None:
                self._watched.stop()
                self._watched = None

    @property
    def exam(self) -> uuid.UUID | None:
        """Whose exam it is that is watched."""
        watched = self._watched
        return watched.exam if watched is not None else None

    def calls(self) -> list[Call]:
        """Why somebody is called now; the gravest first, what is quiet last."""
        watched = self._watched
        return watched.calls() if watched is not None else []

    def latest(self) -> dict[VitalKind, VitalSign]:
        """The last reading of each kind."""
        watched = self._watched
        return watched.latest() if watched is not None else {}

    def trouble(self) -> str:
        """What a sensor said the last time it could not be read; empty where all could."""
        watched = self._watched
        return watched.trouble if watched is not None else ""

    def quiet(self) -> None:
        """Not called again for what is known now, for a while."""
        watched = self._watched
        if watched is not None:
            watched.quiet()


class _Watched:
    """One patient, and the thread that reads."""

    def __init__(self, workspace: Workspace, draft: Draft, sources: list[str]) -> None:
        self._workspace, self._sources, self.exam = workspace, sources, draft.exam.id
        self._watch = Watch(
            draft.patient,
            workspace.store.now(),
            draft.answers,
            (*workspace.store.history(draft.patient.id), *draft.vitals),
            workspace.configuration.limits.get("watch"),
        )
        self._lock, self._end = threading.Lock(), threading.Event()
        self._latest: dict[VitalKind, VitalSign] = {}
        self._kept: dict[VitalKind, int] = {}
        self.trouble = ""
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)
        self.start, self._join = self._thread.start, self._thread.join

    def stop(self) -> None:
        """Nothing is kept any more; a sensor that is just being waited for is let go of when it answers."""
        self._end.set()
        self._join(LET_GO_S)

    def calls(self) -> list[Call]:
        with self._lock:
            return self._watch.calls(self._workspace.store.now())

    def latest(self) -> dict[VitalKind, VitalSign]:
        with self._lock:
            return dict(self._latest)

    def quiet(self) -> None:
        with self._lock:
            self._watch.quiet(self._workspace.store.now(), QUIET_S)

    def _run(self) -> None:
        opened: dict[str, Source] = {}
        try:
            while not self._end.is_set():
                self.trouble = "; ".join(filter(None, [self._read(source, opened) for source in self._sources]))
                self._end.wait(EVERY_S)
        finally:
            for source in opened.values():
                source.close()

    def _read(self, source: str, opened: dict[str, Source]) -> str:
        """Read one sensor; what was wrong, in words. It is opened afresh after that."""
        try:
            if source not in opened:
                opened[source] = open_source(source, clock=self._workspace.store, marks=self._workspace.marks)
            readings = opened[source].read_vitals()
            arrived = self._workspace.tray.sort(readings)
            self._workspace.tray.keep(arrived.others)
            records = opened[source].read_up_to
            if self._take(arrived.mine, every=bool(records)):
                self._workspace.marks.keep(records)
        except AidpostError as error:
            broken = opened.pop(source, None)
            if broken is not None:
                broken.close()
            return error.cause
        return ""

    def _take(self, readings: list[VitalSign], *, every: bool) -> bool:
        """Whether all is kept that is to be kept: of a sensor that keeps records, and will not give them again, `every`
        one."""
        if self._end.is_set():
            return False
        now = self._workspace.store.now()
        with self._lock:
            changed = self._watch.take(readings, now)
            self._latest.update({one.kind: one for one in readings if one.value is not None})
        due = [
            one
            for one in readings
            if every or changed or now.monotonic_ms - self._kept.get(one.kind, -(10**12)) >= KEEP_S * 1000
        ]
        if due:
            self._workspace.add_vitals(self.exam, tuple(due))
            self._kept.update({one.kind: now.monotonic_ms for one in due})
        return True


def _cannot(exam: uuid.UUID, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="watching a patient", target=str(exam), cause=cause, remedy=remedy)
