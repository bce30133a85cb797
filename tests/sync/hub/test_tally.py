"""The counts that are kept are those of a full recount, whatever came, changed, or was erased, in any order."""

from __future__ import annotations

import random
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, select

from aidpost.records import (
    Beats,
    Clinic,
    Device,
    DrGrade,
    EcgMeasurements,
    EcgResult,
    ExamReport,
    Eye,
    FundusResult,
    ModelRef,
    Operator,
    Origin,
    Patient,
    Quality,
    Referral,
    ReferralStatus,
    ReviewDecision,
    Rhythm,
    Sex,
    Triage,
    TriageLevel,
    VitalKind,
)
from aidpost.sync.envelope import Hello
from aidpost.sync.hub import (
    _facts,
    _quality_data,
    clocks,
    operations,
    patients,
    readings,
    referrals,
    reviews,
    schema,
    tally,
)
from aidpost.sync.hub._calls import TASKS
from aidpost.sync.hub._erasure import erase
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.quality import share
from aidpost.sync.hub.tally import Tally
from aidpost.sync.hub.users import Role, Session

from . import recount
from .conftest import FakeDevice, Hub, at, make_report, make_vital, wait_for

DAY_MS = 86_400_000
NOW_MS = 20_400 * DAY_MS - 1  # the last millisecond of a day, so that windows of milliseconds and of days are the same
CLINICS = ("North clinic", "South clinic")
EVERYBODY = Session("root", "", Role.ADMINISTRATOR, "", 0)
NORTH = Session("nora", "", Role.CLINICIAN, "", 0, clinics=CLINICS[:1])
NORTH_OUTCOME = share("Patients whose last systolic BP is under 140 mmHg", 0, 1)
UNITS = {VitalKind.SYSTOLIC_BP: "mm[Hg]", VitalKind.GLUCOSE: "mmol/L", VitalKind.HBA1C: "%"}


def photo(chance: random.Random, eye: Eye) -> FundusResult:
    positive, abstained, score = chance.random() < 0.5, chance.random() < 0.2, round(chance.random(), 3)
    return FundusResult(
        id=uuid.uuid4(), eye=eye, width=64, height=48, at=at(), origin=Origin.LIVE,
        camera=Device(name="camera", manufacturer="Kowa", model=chance.choice(("VX-10", "VX-20"))),
        quality=Quality(usable=chance.random() < 0.8, score=round(chance.random(), 2), label="good"),
        dr=DrGrade(grade=2 if positive else 0, probability=(0.2,) * 5, threshold=0.4,
                   referable_probability=score, referable=positive, abstained=abstained),
        models=(ModelRef(name="fundus-dr", version=chance.choice("12"), sha256="ab" * 32, runtime="r"),),
    )  # fmt: skip


def ecg(chance: random.Random) -> EcgResult:
    label = chance.choice("NAO~")
    return EcgResult(
        id=uuid.uuid4(), fs_hz=300.0, duration_s=30.0, leads=("I",), lsb_mv=(0.001,), baseline=(0,), lead="I", at=at(),
        origin=Origin.LIVE, device=Device(name="ecg"), quality=Quality(usable=label != "~", score=0.7),
        beats=Beats(sample=(250,), label=("N",)), measurements=EcgMeasurements(),
        rhythm=Rhythm(label=label, probability={"N": 0.4, "A": 0.6}, abstained=chance.random() < 0.1),
    )  # fmt: skip


class Story:
    """A hub, and what happens there: each method is one event, drawn by `chance`."""

    EVENTS = (
        "exam",
        "exam",
        "correct",
        "sign",
        "sign",
        "vital",
        "refer",
        "attend",
        "erase",
        "withdraw",
        "link",
        "hello",
        "turn",
    )

    def __init__(self, hub: Hub, chance: random.Random) -> None:
        self.hub, self.chance, self.tally = hub, chance, Tally(hub.database)
        self.devices = [FakeDevice(name) for name in ("unit-1", "unit-2")]
        for device in self.devices:
            operations.enroll(hub.config, device.name, device.public_key)
        born = ("1931", None, "1990", "1955", "1965-11", "1985")
        self.people = [Patient(id=uuid.uuid4(), name=f"P {year}", birth_date=year, sex=Sex.FEMALE) for year in born]
        self.reports: list[tuple[FakeDevice, ExamReport]] = []
        self.referrals: list[Referral] = []
        self.late: list[tuple[FakeDevice, Any]] = []

    def tell(self, event: str) -> None:
        getattr(self, event)()

    def now(self) -> int:
        return NOW_MS - self.chance.randrange(150 * DAY_MS)

    def exam(self) -> None:
        chance, when = self.chance, self.now()
        patient, device = chance.choice(self.people), chance.choice(self.devices)
        report = make_report(patient=patient, origin=Origin.LIVE)
        started = at(when, synced=chance.random() < 0.7, monotonic_ms=chance.randrange(10**8), boot=chance.randrange(2))
        exam = msgspec.structs.replace(
            report.exam, id=uuid.uuid4(), patient=patient.id, started=started,
            clinic=Clinic(id="c", name=chance.choice(CLINICS)), operator=Operator(id="o", name=chance.choice("AB")),
        )  # fmt: skip
        self._send(device, self._filled(msgspec.structs.replace(report, exam=exam)))

    def correct(self) -> None:
        if self.reports:
            device, before = self.chance.choice(self.reports)
            again = msgspec.structs.replace(before, id=uuid.uuid4(), supersedes=before.id)
            patient = self.chance.choice(self.people) if self.chance.random() < 0.2 else before.patient
            clinic = Clinic(id="c", name=self.chance.choice(CLINICS))
            exam = msgspec.structs.replace(again.exam, clinic=clinic, patient=patient.id)
            self._send(device, self._filled(msgspec.structs.replace(again, exam=exam, patient=patient)))

    def _filled(self, report: ExamReport) -> ExamReport:
        chance, level = self.chance, TriageLevel.ROUTINE if self.chance.random() < 0.5 else TriageLevel.URGENT
        fundus = tuple(photo(chance, eye) for eye in Eye) if chance.random() < 0.7 else ()
        return msgspec.structs.replace(
            report, fundus=fundus, ecg=(ecg(chance),) if chance.random() < 0.6 else (), triage=Triage(level=level),
            findings=(), vitals=(self._vital(),) if chance.random() < 0.5 else (),
        )  # fmt: skip

    def _send(self, device: FakeDevice, report: ExamReport) -> None:
        self.reports.append((device, report))
        envelope = device.envelope(report)
        if self.chance.random() < 0.2:  # comes later than what follows it
            self.late.append((device, envelope))
        else:
            self._take(device, envelope)

    def _take(self, device: FakeDevice, envelope: Any) -> None:
        self.hub.take(device, device.message(envelope), received_ms=self.now())

    def _vital(self) -> Any:
        kind = self.chance.choice(list(UNITS))
        value = self.chance.choice((5.0, 8.0, 130.0, 180.0, None))
        if value is None:
            return make_vital()
        return make_vital(kind=kind, value=value, unit=UNITS[kind], at=at(self.now()))

    def vital(self) -> None:
        if self.reports:
            device, report = self.chance.choice(self.reports)
            about = {"patient": report.patient.id, "exam": report.exam.id}
            self._take(device, device.envelope(self._vital(), "vitals", **about))

    def sign(self) -> None:
        if not self.reports:
            return
        device, report = self.chance.choice(self.reports)
        decision = self.chance.choice((ReviewDecision.CONFIRMED, ReviewDecision.CORRECTED, ReviewDecision.RETAKE))
        grades = {"dr_right": self.chance.choice("0123x"), "rhythm": self.chance.choice(("af", "sinus", "unreadable"))}
        opened = self.chance.choice((None, NOW_MS - 10**9))
        user = self.chance.choice(("okoro", "adeyemi", "nora"))
        signature = reviews.Signature(user, user, decision, None, "", grades, opened)
        rules = readings.Rules(self.chance.choice((1, 2)), against_device=self.chance.random() < 0.3)
        with self.hub.database.write() as connection:
            row = connection.execute(select(schema.exams).where(schema.exams.c.id == report.exam.id)).one_or_none()
            if row is not None and row.report == report.id:
                of = [part for part in readings.parts(connection, row) if part.may_be_read_by(user)]
                reviews.sign(connection, self.hub.database.epoch, report, device.name, signature, of, rules, self.now())

    def refer(self) -> None:
        if self.reports:
            _, report = self.chance.choice(self.reports)
            due = clocks.day(self.now() + 30 * DAY_MS)
            self._refer(
                Referral(
                    id=uuid.uuid4(), exam=report.exam.id, patient=report.patient.id, to="hospital", due=due, reason="x",
                    status=ReferralStatus.DUE, at=at(self.now()),
                )
            )  # fmt: skip

    def attend(self) -> None:
        if self.referrals:
            before = self.chance.choice(self.referrals)
            status = self.chance.choice((ReferralStatus.ATTENDED, ReferralStatus.UNREACHABLE))
            self._refer(
                msgspec.structs.replace(
                    before, id=uuid.uuid4(), supersedes=before.id, status=status, at=at(self.now() + DAY_MS)
                )
            )

    def _refer(self, referral: Referral) -> None:
        self.referrals.append(referral)
        with self.hub.database.write() as connection:
            referrals.add(connection, referral, "okoro")

    def erase(self) -> None:
        if self.chance.random() < 0.3:
            patient = self.people.pop(self.chance.randrange(len(self.people)))
            self.people.append(msgspec.structs.replace(patient, id=uuid.uuid4()))
            with self.hub.database.write() as connection:
                erase(connection, patient.id, "root", self.now())

    def withdraw(self) -> None:
        if self.reports:
            _, report = self.chance.choice(self.reports)
            with self.hub.database.write() as connection:
                row = connection.execute(select(schema.exams).where(schema.exams.c.id == report.exam.id)).one_or_none()
                if row is None:
                    return
                if patients.withdrawal(connection, row.id) is None:
                    right = self.chance.choice((None, self.people[0].id))
                    patients.withdraw(connection, row, right, "okoro", "mixed up", self.now())
                else:
                    patients.undo_withdrawal(connection, row, "okoro", self.now())

    def link(self) -> None:
        """Two records are read as one person, or two again."""
        patient, other = self.chance.sample([one.id for one in self.people], 2)
        with self.hub.database.write() as connection:
            if holding := patients.links(connection, [patient]):
                patients.part(connection, holding[0].id, "okoro", self.now())
            else:
                patients.link(connection, patient, other, "okoro", "same telephone", self.now())

    def hello(self) -> None:
        device = self.chance.choice(self.devices)
        clock = at(0, synced=False, monotonic_ms=self.chance.randrange(10**8), boot=self.chance.randrange(2))
        hello = Hello(nonce=bytes(16), at=clock, epoch=device.epoch, last=dict(device.last))
        self.hub.take(device, device.sign(hello), received_ms=self.now())

    def turn(self) -> None:
        self.tally.turn()

    def end(self) -> None:
        for device, envelope in self.late:
            self._take(device, envelope)
        while self.tally.turn():
            pass


def assert_equal_to_a_recount(hub: Hub, session: Session) -> None:
    with hub.database.read() as connection:
        for task in TASKS:
            assert _quality_data.rows_of(connection, session, task) == recount.rows_of(connection, session, task)
        assert _quality_data.rates(connection, session) == recount.rates(connection, session)
        assert _quality_data.drifts(connection, session, NOW_MS) == recount.drifts(connection, session, NOW_MS)
        kept, counted = (
            _quality_data.outcomes(connection, session, NOW_MS),
            recount.outcomes(connection, session, clocks.day(NOW_MS), NOW_MS),
        )
        assert kept[:2] == counted[:2]
        if session is EVERYBODY:  # a clinic's are of patients whose last value was measured there
            assert kept == counted
        lengths = recount.turnaround(connection, session)
        for found in _quality_data.turnaround(connection, session, NOW_MS):
            exact = lengths[found.name]
            assert found.number == len(exact)
            if exact:
                middle = exact[len(exact) // 2] / 3_600_000
                assert found.median_h == pytest.approx(middle, rel=0.025, abs=1 / 60)


def assert_nothing_else_is_counted(hub: Hub) -> None:
    """Cell by cell, also those that no figure is made of."""
    exams, vitals, due = schema.exams, schema.vitals, schema.quality_due
    with hub.database.write() as connection:
        numbers = list(connection.execute(select(exams.c.id)).scalars())
        people = set(connection.execute(select(vitals.c.patient)).scalars()) - {None}
        tally.changed(connection, [(None, one) for one in people])
        ids = list(connection.execute(select(due.c.id)).scalars())
        facts: dict[uuid.UUID, Any] = {**_facts.of_exams(connection, numbers), **_facts.of_patients(connection, ids)}
        connection.execute(delete(due))
        wanted = Counter(cell for one in facts.values() for cell in _facts.cells_of(one))
        table = schema.quality_counts
        kept = {_facts.Cell(*row[:4]): row[4] for row in connection.execute(select(table)) if row[4]}
        subjects = set(connection.execute(select(schema.quality_facts.c.subject)).scalars())
    assert kept == dict(wanted)
    assert subjects == set(facts)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), events=st.lists(st.sampled_from(Story.EVENTS), min_size=10, max_size=40))
def test_counts_that_are_kept_are_those_of_a_full_recount(seed: int, events: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        hub = Hub(HubConfig(state_dir=str(Path(folder) / "hub"), name="hub-1", broker_host=""))
        story = Story(hub, random.Random(seed))
        for event in events:
            story.tell(event)
        story.end()
        for session in (EVERYBODY, NORTH):
            assert_equal_to_a_recount(hub, session)
        assert_nothing_else_is_counted(hub)
        hub.close()


@pytest.mark.both_databases
def test_long_story_is_counted_alike_on_either_database(hub: Hub) -> None:
    chance = random.Random(7)
    story = Story(hub, chance)
    for _ in range(250):
        story.tell(chance.choice(Story.EVENTS))
    story.end()
    for session in (EVERYBODY, NORTH):
        assert_equal_to_a_recount(hub, session)
    assert_nothing_else_is_counted(hub)


@pytest.mark.both_databases
def test_of_two_turns_that_read_the_same_one_counts(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(hub, random.Random(3))
    for _ in range(5):
        story.exam()
    other, after = Tally(hub.database), tally._after

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(tally, "_after", after)
        assert other.turn()
        return after(*arguments)

    monkeypatch.setattr(tally, "_after", meanwhile)  # one that read before the other wrote
    assert story.tally.turn()
    story.end()
    assert_equal_to_a_recount(hub, EVERYBODY)
    assert_nothing_else_is_counted(hub)


def test_change_that_is_committed_while_a_turn_counts_is_counted_by_the_next(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    story, after = Story(hub, random.Random(5)), tally._after
    story.exam()

    def meanwhile(*arguments: Any) -> Any:
        found = after(*arguments)
        monkeypatch.setattr(tally, "_after", after)
        story.correct()
        story.exam()
        return found

    monkeypatch.setattr(tally, "_after", meanwhile)
    story.turn()
    story.end()
    assert_equal_to_a_recount(hub, EVERYBODY)
    assert_nothing_else_is_counted(hub)


def test_exam_whose_clock_is_known_later_counts_by_its_right_time(hub: Hub) -> None:
    story, years = Story(hub, random.Random(11)), 6 * 365 * DAY_MS
    device, report = story.devices[0], make_report()
    patient = msgspec.structs.replace(report.patient, birth_date="1983")
    exam = msgspec.structs.replace(report.exam, started=at(0, synced=False, monotonic_ms=60_000, boot=5))
    report = msgspec.structs.replace(report, exam=exam, patient=patient, fundus=(photo(story.chance, Eye.LEFT),))
    hub.take(device, device.message(device.envelope(report)), received_ms=NOW_MS)
    story.end()
    clock = at(0, synced=False, monotonic_ms=60_000, boot=5)
    hello = Hello(nonce=bytes(16), at=clock, epoch=device.epoch, last=dict(device.last))
    hub.take(device, device.sign(hello), received_ms=NOW_MS - years)
    story.end()
    with hub.database.read() as connection:
        rows = _quality_data.rows_of(connection, EVERYBODY, "dr", ["age"])
    assert [row.name for row in rows] == ["under 40"]
    assert_equal_to_a_recount(hub, EVERYBODY)


def test_correction_that_moves_an_exam_is_counted_of_the_patient_who_had_it(hub: Hub) -> None:
    story, (amina, baba) = Story(hub, random.Random(17)), [Patient(id=uuid.uuid4(), name=one) for one in ("A", "B")]
    device, report = story.devices[0], make_report(patient=amina, origin=Origin.LIVE)
    pressure = make_vital(kind=VitalKind.SYSTOLIC_BP, value=180.0, unit="mm[Hg]", at=at(NOW_MS - DAY_MS))

    def send(patient: Patient, clinic: str, supersedes: uuid.UUID | None, *vitals: Any) -> ExamReport:
        exam = msgspec.structs.replace(report.exam, patient=patient.id, clinic=Clinic(id="c", name=clinic))
        told = msgspec.structs.replace(
            report, id=uuid.uuid4(), exam=exam, patient=patient, supersedes=supersedes, vitals=vitals
        )
        story._take(device, device.envelope(told))
        story.end()
        return told

    first = send(amina, CLINICS[1], None, pressure)
    with hub.database.read() as connection:
        assert NORTH_OUTCOME not in _quality_data.outcomes(connection, NORTH, NOW_MS)
    send(baba, CLINICS[0], first.id)
    with hub.database.read() as connection:
        assert NORTH_OUTCOME in _quality_data.outcomes(connection, NORTH, NOW_MS)
    assert_equal_to_a_recount(hub, EVERYBODY)
    assert_nothing_else_is_counted(hub)


def test_what_takes_a_page_long_is_prepared_beside_the_work(hub: Hub) -> None:
    story, seen = Story(hub, random.Random(13)), list[int]()

    def prepare(connection: Connection) -> None:
        seen.append(tally.standing(connection).due)

    story.exam()
    runs = Tally(hub.database, prepare)
    runs.start()
    wait_for(lambda: seen, "it was prepared")
    runs.stop()
    assert seen[0] == 0, "from counts that are up to date"


def test_page_says_how_much_is_not_counted_yet(hub: Hub) -> None:
    story = Story(hub, random.Random(9))
    with hub.database.read() as connection:
        assert tally.standing(connection) == (None, 0)
    for _ in range(3):
        story.exam()
    with hub.database.read() as connection:
        assert tally.standing(connection).due >= 3
    story.end()
    with hub.database.read() as connection:
        standing = tally.standing(connection)
    assert standing.due == 0
    assert standing.at_ms is not None
