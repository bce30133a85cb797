"""Everything that an exam needs, apart for real patients and for practice: store, open exams, patients, sensors."""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import msgspec

from aidpost.board import device
from aidpost.board.configuration import Configuration
from aidpost.board.console.database import ConsoleDatabase
from aidpost.board.console.drafts import ATTEMPTS, Draft, Drafts
from aidpost.board.console.people import Known, Patients
from aidpost.board.console.sensors import Sensor, look
from aidpost.board.console.steps import Measure
from aidpost.board.console.tray import Tray
from aidpost.board.console.watching import Watching
from aidpost.board.console.words import N_
from aidpost.board.exam import Analyst, ExamOutcome, ExamRunner, Plan, begin_exam
from aidpost.board.measurements import stays_known
from aidpost.errors import UsageError
from aidpost.firmware_bridge import marks
from aidpost.firmware_bridge.marks import FileMarks
from aidpost.firmware_bridge.together import read_together
from aidpost.records import (
    VITAL_UNITS,
    Answer,
    Device,
    EcgRecording,
    EcgResult,
    ExamReport,
    FundusPhoto,
    FundusResult,
    Operator,
    Origin,
    TriageLevel,
    VitalSign,
)
from aidpost.sync.store import Store

SCENES = (
    {"ecg": "sim:ecg", "right": "sim:fundus?eye=right", "left": "sim:fundus?eye=left", "vitals": "sim:vitals"},
    {
        "ecg": "sim:ecg?rhythm=af",
        "right": "sim:fundus?eye=right&grade=2",
        "left": "sim:fundus?eye=left&grade=1",
        "vitals": "sim:vitals?profile=hypertensive",
    },
    {
        "ecg": "sim:ecg?rhythm=sinus",
        "right": "sim:fundus?eye=right&blur=40",
        "left": "sim:fundus?eye=left&grade=2&seed=4",
        "vitals": "sim:vitals?profile=diabetic",
    },
)
"""What the simulated patients of practice have, one after the other."""


SENSOR_USES = (
    ("ecg", N_("ECG")),
    ("right", N_("Right eye")),
    ("left", N_("Left eye")),
    ("vitals", N_("Vital signs")),
    ("code", N_("Codes")),
)
"""What the screen takes from sensors, and how it calls it."""


class Arrived(NamedTuple):
    """What a reading of the sensors brought besides the exam's own: readings that are perhaps another person's, and
    measurements that had come before, which are not taken twice."""

    apart: int
    again: int


class Workspace:
    """The exams of one kind: real, or practice. Every method may be called from any thread.

    Parameters
    ----------
    analyst
        Interprets recordings; shared by both kinds.
    practice
        Sensors are simulated, and everything is marked so.
    """

    def __init__(self, configuration: Configuration, store: Store, analyst: Analyst, *, practice: bool) -> None:
        self.configuration, self.store, self.practice = configuration, store, practice
        self._analyst = analyst
        self.database = ConsoleDatabase(store.folder)
        self.drafts = Drafts(self.database, store)
        self.patients = Patients(self.database, store)
        self._lock = threading.RLock()
        self.turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        """One reader of a SOURCE at a time: a trial and a recording do not take the port from each other."""
        self.marks = FileMarks(store.folder / marks.NAME)
        self.watching = Watching(self)
        self.tray = Tray(self)

    def close(self) -> None:
        """Let go of sensors and files; the store is its opener's."""
        self.watching.close()
        self.database.close()

    # -- sensors

    def source(self, what: str, exam: uuid.UUID) -> str:
        """The SOURCE of "ecg", "right", "left", "vitals" or "code"; empty where there is no such sensor."""
        sensors = self.configuration.sensors
        configured = {
            "ecg": sensors.ecg,
            "right": sensors.fundus_right,
            "left": sensors.fundus_left or sensors.fundus_right,
            "vitals": ",".join(sensors.vitals),
            "code": sensors.code,
        }[what]
        if not self.practice or configured.startswith("sim:") or what == "code":
            return configured
        return SCENES[exam.int % len(SCENES)][what]

    def sensors_now(self) -> list[Sensor]:
        """How each sensor that the screen uses is; in practice, what stands in for it."""
        uses: dict[str, tuple[str, ...]] = {}
        for what, use in SENSOR_USES:
            for source in filter(None, self.source(what, uuid.UUID(int=0)).split(",")):
                uses[source] = tuple(dict.fromkeys((*uses.get(source, ()), use)))
        return look(uses)

    # -- the path

    def begin(self, known: Known, operator: str) -> Draft:
        """A new exam of a patient, on the disk when this returns."""
        now = self.store.now()
        exam = begin_exam(self.configuration, known.patient.id, Operator(id=operator), now)
        return self.drafts.save(Draft(exam=exam, patient=known.patient, consents=known.consents))

    def answer(self, exam: uuid.UUID, question: str, answer: str) -> Draft:
        """Keep an answer; a later one to the same question replaces it."""
        return self._change(exam, lambda draft: {"answers": self._answered(draft, question, answer)})

    def _answered(self, draft: Draft, question: str, answer: str) -> tuple[Answer, ...]:
        rest = tuple(one for one in draft.answers if one.question != question)
        return (*rest, Answer(question=question, answer=answer, at=self.store.now()))

    def measure(
        self, exam: uuid.UUID, measure: Measure, values: list[float], method: str, context: str, number: uuid.UUID
    ) -> Draft:
        """Keep numbers that were typed in.

        Parameters
        ----------
        number
            Of this entry: the same one twice (a double tap) is kept once.

        Raises
        ------
        UsageError
            A number is not plausible.
        """
        for field, value in zip(measure.fields, values, strict=True):
            if not field.low <= value <= field.high:
                cause = N_("{value:g} is not within {low:g} to {high:g} {unit}")
                raise implausible(
                    field.label, cause.format(value=value, low=field.low, high=field.high, unit=field.unit)
                )
        if measure.code == "blood-pressure" and values[0] <= values[1]:
            raise implausible("blood pressure", N_("the upper number must be larger than the lower"))
        at = self.store.now()
        origin = Origin.SIMULATED if self.practice else Origin.LIVE
        made = tuple(
            VitalSign(
                id=uuid.uuid5(number, field.kind.value),
                kind=field.kind,
                value=round(value, field.decimals),
                unit=VITAL_UNITS[field.kind],
                at=at,
                origin=origin,
                device=Device(name="typed in"),
                method=method,
                context=context,
                group=number if len(values) > 1 else None,
                source="console",
            )
            for field, value in zip(measure.fields, values, strict=True)
        )
        return self.add_vitals(exam, made)

    def read_sensors(self, exam: uuid.UUID) -> Arrived:
        """Read the vital-sign sensors into the exam.

        Raises
        ------
        DeviceError
            One gives nothing. What others gave is kept.
        """
        sources = [one for one in self.source("vitals", exam).split(",") if one]
        patience_s = self.configuration.exam.sensor_deadline_s
        arrived, failed = Arrived(0, 0), []
        with ExitStack() as turns:
            for source in sorted(set(sources)):
                turns.enter_context(self.turns[source])
            for reading in read_together(sources, clock=self.store, marks=self.marks, patience_s=patience_s):
                kept = self.keep_readings(exam, reading.vitals, reading.read_up_to)
                arrived = Arrived(arrived.apart + kept.apart, arrived.again + kept.again)
                failed += [reading.error] if reading.error is not None else []
        if failed:
            raise failed[0]
        return arrived

    def keep_readings(self, exam: uuid.UUID, readings: Sequence[VitalSign], read_up_to: Mapping[str, int]) -> Arrived:
        """Keep what a sensor gave, in the exam or as nobody's, and only then let the sensor go on from there."""
        split = self.tray.sort(readings)
        self.tray.keep(split.others)
        if split.mine:
            self.add_vitals(exam, tuple(split.mine))
        self.marks.keep(read_up_to)
        return Arrived(len(split.others), split.again)

    def add_vitals(self, exam: uuid.UUID, made: tuple[VitalSign, ...]) -> Draft:
        """Keep readings; one that is there already is kept once."""

        def change(draft: Draft) -> dict[str, Any]:
            have = {one.id for one in draft.vitals}
            return {"vitals": (*draft.vitals, *(one for one in made if one.id not in have))}

        return self._change(exam, change)

    def drop_vitals(self, exam: uuid.UUID, ids: set[uuid.UUID]) -> Draft:
        """Take readings out of an open exam; those that might be lost by that wait for a person."""
        with self._lock:
            self._let_wait([one for one in self.drafts.get(exam).vitals if one.id in ids])
            return self._change(exam, lambda draft: {"vitals": tuple(one for one in draft.vitals if one.id not in ids)})

    def _let_wait(self, dropped: Sequence[VitalSign]) -> None:
        self.tray.keep([one for one in dropped if stays_known(one)])

    def watched(self, exam: uuid.UUID, watched: bool) -> Draft:
        """Keep that the patient is watched, or is not any more."""
        return self._change(exam, lambda _: {"watched": watched})

    def take_ecg(self, exam: uuid.UUID, recording: EcgRecording) -> EcgResult:
        """Interpret a recording and keep both."""
        runner = self._runner()
        result = runner.interpret_ecg(recording)
        self._change(exam, lambda draft: {"ecg": (*draft.ecg, result), **_problems(draft, runner)}, runner)
        return result

    def take_photo(self, exam: uuid.UUID, photo: FundusPhoto) -> FundusResult:
        """Interpret a photograph and keep both.

        Raises
        ------
        UsageError
            The eye was tried `ATTEMPTS` times already.
        """
        assert photo.eye is not None
        attempt = len(self.drafts.get(exam).photos(photo.eye)) + 1
        if attempt > ATTEMPTS:
            raise UsageError(
                operation="taking a photograph",
                target=photo.eye.value,
                cause=N_("it was tried {times} times").format(times=ATTEMPTS),
            )
        runner = self._runner()
        result = runner.interpret_photo(photo, attempt)
        self._change(exam, lambda draft: {"fundus": (*draft.fundus, result), **_problems(draft, runner)}, runner)
        return result

    def close_step(self, exam: uuid.UUID, step: str) -> Draft:
        """The worker is content with a step."""
        return self._change(exam, lambda draft: {"done": tuple(dict.fromkeys((*draft.done, step)))})

    def undo(self, exam: uuid.UUID) -> Draft:
        """Take the last step back. An acknowledgement is not taken back with it."""
        with self._lock:
            before = self.drafts.get(exam)
            stays = {one.id for one in self.drafts.before(exam).vitals}
            self._let_wait([one for one in before.vitals if one.id not in stays])
            draft = self.drafts.undo(exam)
            if before.acknowledged != draft.acknowledged:
                draft = msgspec.structs.replace(
                    draft, alarm=None, acknowledged=before.acknowledged, acknowledged_by=before.acknowledged_by
                )
                self.drafts.save(draft)
            return draft

    def acknowledge(self, exam: uuid.UUID, operator: str) -> Draft:
        """A human has seen the alarm."""

        def change(draft: Draft) -> dict[str, Any]:
            return {"alarm": None, "acknowledged": draft.alarm or draft.acknowledged, "acknowledged_by": operator}

        return self._change(exam, change, alarm=False)

    def give_up(self, exam: uuid.UUID) -> None:
        """End an exam without a report: what was recorded in it is gone. With an urgent finding it is finished, and so
        is any whose recordings have an answer that is hidden here, or the refusal would tell which are urgent.

        Raises
        ------
        UsageError
            There is an urgent finding, or a recording whose answer is not shown.
        """
        with self._lock:
            draft = self.drafts.get(exam)
            hidden = self.hidden()
            urgent = self.shown(self._conclude(draft)).triage.level >= TriageLevel.URGENT
            if urgent or ("dr" in hidden and draft.fundus) or ("af" in hidden and draft.ecg):
                raise UsageError(
                    operation="giving up an exam",
                    target=str(exam),
                    cause=N_("it has an urgent finding") if urgent else N_("it has recordings that a clinician reads"),
                    remedy=N_("Finish and send it: the hub must know."),
                )
            self.drafts.close(exam)
        self.watching.stop(exam)

    def correct(self, known: Known) -> None:
        """Keep a patient's corrected data, in the list and in an exam that is open. Reports that were made stay as they
        were; the next one carries the new data."""
        with self._lock:
            self.patients.keep(known)
            for draft in self.drafts.all():
                if draft.patient.id == known.patient.id:
                    self.drafts.save(msgspec.structs.replace(draft, patient=known.patient))

    def alarms(self) -> list[Draft]:
        """Open exams whose urgent finding nobody has acknowledged."""
        return [one for one in self.drafts.all() if one.alarm is not None]

    # -- the end

    def preview(self, exam: uuid.UUID) -> ExamReport:
        """What the exam comes to so far."""
        return self._conclude(self.drafts.get(exam))

    def hidden(self) -> tuple[str, ...]:
        """The tasks whose model's answer workers here do not see. Practice hides nothing."""
        return () if self.practice else device.hidden_tasks(self.configuration, self.store)

    def shown(self, report: ExamReport) -> ExamReport:
        """The report as workers see it; the hub gets it whole."""
        return report if self.practice else device.shown(self.configuration, self.store, report)

    def finish(self, exam: uuid.UUID) -> ExamReport:
        """Queue the report: in the store and on the disk when this returns, then the draft is gone.

        Raises
        ------
        StoreError
            It could not be kept; the draft stands.
        """
        self.watching.stop(exam)
        with self._lock:
            draft = self.drafts.get(exam)
            report = self._conclude(draft)
            report = msgspec.structs.replace(report, exam=msgspec.structs.replace(report.exam, ended=self.store.now()))
            bodies = tuple(self.drafts.bodies(draft))
            device.accept(self.store, ExamOutcome(report=report, bodies=bodies, problems=()))
            self.tray.settle(draft.vitals)
            self.drafts.close(exam)
        return report

    def _conclude(self, draft: Draft) -> ExamReport:
        plan = Plan(
            patient=draft.patient,
            answers=draft.answers,
            consents=draft.consents,
            history=tuple(self.store.history(draft.patient.id)),
        )
        report = self._runner().conclude(plan, draft.exam, draft.ecg, draft.fundus, draft.vitals, draft.problems)
        # an exam of practice is simulated whatever was recorded in it
        return msgspec.structs.replace(report, origin=Origin.SIMULATED) if self.practice else report

    def _runner(self) -> ExamRunner:
        return ExamRunner(self.configuration, self.store, self._analyst)

    def _change(
        self,
        exam: uuid.UUID,
        change: Callable[[Draft], dict[str, Any]],
        runner: ExamRunner | None = None,
        *,
        alarm: bool = True,
    ) -> Draft:
        with self._lock:
            draft = self.drafts.get(exam)
            draft = msgspec.structs.replace(draft, **change(draft))
            if alarm:
                draft = self._with_alarm(draft)
            return self.drafts.save(draft, runner.bodies if runner else ())

    def _with_alarm(self, draft: Draft) -> Draft:
        level = self.shown(self._conclude(draft)).triage.level
        seen = draft.acknowledged or TriageLevel.ROUTINE
        raised = level if level >= TriageLevel.URGENT and level > seen else None
        return msgspec.structs.replace(draft, alarm=raised)

    # -- today

    def today(self) -> list[ExamReport]:
        """Reports of this day by the device's clock, newest first."""
        zone = timezone(timedelta(minutes=self.configuration.device.utc_offset_min or 0))

        def day(ms: int) -> Any:
            return datetime.fromtimestamp(ms / 1000, zone).date()

        today = day(self.store.now().wall_ms)
        return [one for one in self.store.reports(60) if day(one.exam.started.wall_ms) == today]


def implausible(what: str, cause: str) -> UsageError:
    """A number that cannot be right, for the worker to look at again."""
    return UsageError(
        operation="typing in", target=what, cause=cause, remedy=N_("Measure again, or correct the number.")
    )


def _problems(draft: Draft, runner: ExamRunner) -> dict[str, Any]:
    new = tuple(f"{problem.step}: {problem.error.cause}" for problem in runner.problems)
    return {"problems": (*draft.problems, *new)}
