"""Clinics that learn together: real stores with confirmed exams, a real hub, and sticks carried between them."""

from __future__ import annotations

import functools
import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confirmed import keep_exam, review
from device_records import KEY, FakeClock
from sqlalchemy import select

from aidpost.board.configuration import FederatedSection
from aidpost.board.learning.ledger import Kept
from aidpost.board.learning.participant import Participant
from aidpost.inference.model import Model, Models
from aidpost.records import Record, ReviewDecision, decode
from aidpost.sync import keys, rounds
from aidpost.sync.hub import _round_phases, operations, readings, reviews, schema
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.rounds import Plan, Progress
from aidpost.sync.hub.stick import import_stick
from aidpost.sync.stick import export_stick, import_receipts
from aidpost.sync.store import Store

SECTION = FederatedSection(enabled=True, least_patients=2)
RHYTHMS = (("sinus", "sinus"), ("af", "af"), ("pvc", "other"))


@functools.cache
def models() -> Models:
    """The shipped ones, loaded once."""
    return Models()


def rhythm() -> Model:
    return models().get("ecg-rhythm")


def plan(**changes: Any) -> Plan:
    """A round of the rhythm model that three devices suffice for."""
    model = rhythm()
    made = Plan(model.card.name, model.card.network, model.card.output.kind, model.head_shape, noise=2.33, rate=16.0)
    return made._replace(**changes)


def confirmed_exams(store: Store, count: int, *, seed: int = 0, consents: tuple[bool, ...] = (True,)) -> list[Any]:
    """So many patients, each with an ECG that a clinician has read."""
    made = []
    for number in range(count):
        simulated, grade = RHYTHMS[number % len(RHYTHMS)]
        report = keep_exam(store, *consents, rhythm=simulated, seed=seed + number)
        review(store, report, seed * 1000 + number + 1, grade)
        made.append(report)
    return made


class Clinic:
    """One device."""

    def __init__(self, folder: Path, name: str, hub: Hub, patients: int, section: FederatedSection = SECTION) -> None:
        self.name, self.hub, self.section, self.clock = name, hub, section, FakeClock()
        self.clock.wall = now_ms()
        self.folder, self.stick = folder / name, folder / f"{name}.aidpost"
        self.store = Store.open(self.folder, KEY, clock=self.clock, name=name)
        operations.enroll(hub.config, name, keys.public_bytes(self.store.identity.public))
        self.reports = confirmed_exams(self.store, patients, seed=sum(name.encode()))
        self.carry()

    @property
    def me(self) -> Participant:
        return Participant(self.store, self.section, models())

    def carry(self) -> None:
        """A stick goes to the hub and comes back."""
        export_stick(self.store, self.stick, hub_name="hub", hub_key=self.hub.key)
        import_stick(self.hub.config, self.stick)
        import_receipts(self.store, Path(f"{self.stick}.receipts"), hub_name="hub", hub_key=self.hub.key)

    def act(self) -> list[Kept]:
        """Everything that is due."""
        done = [self.me.do(due) for due in self.me.due()]
        self.me.forget()
        return done

    def sent(self, kind: type[Record]) -> list[Any]:
        """Records of a kind that it has accepted, as they are sent."""
        found = self.store.read("SELECT seq FROM record WHERE kind = ? ORDER BY seq", (kind.__name__,))
        return [decode(kind, one.body) for one in self.store.envelopes("round", [row[0] for row in found])]


class Hub:
    """A hub with a folder and no broker."""

    def __init__(self, folder: Path) -> None:
        self.config = HubConfig(state_dir=str(folder / "hub"), broker_host="")
        self.key = keys.public_key(operations.public_key(self.config))

    def open(self, **changes: Any) -> Progress:
        return operations.open_round(self.config, plan(**changes))

    def status(self) -> Progress:
        """The last round."""
        return operations.round_progress(self.config)[0]

    def close(self) -> Progress:
        return operations.close_round(self.config, str(self.status().round))

    def later(self, days: float) -> Progress:
        """As it is when so many days have passed."""
        database = Database(self.config.url)
        with database.write() as connection:
            _round_phases.advance(connection, database.epoch, now_ms() + round(days * 86_400_000))
        database.close()
        return self.status()

    def sign(self, device: str, report: Any, grade: str) -> None:
        """A reader at the hub reads the ECG of an exam."""
        signature = reviews.Signature("okoro", "dr.okoro", ReviewDecision.CONFIRMED, None, "", {"rhythm": grade})
        database = Database(self.config.url)
        with database.write() as connection:
            row = connection.execute(select(schema.exams).where(schema.exams.c.report == report.id)).one()
            parts, rules = readings.parts(connection, row), readings.Rules()
            reviews.sign(connection, database.epoch, report, device, signature, parts, rules, now_ms())
        database.close()

    def head(self, number: uuid.UUID | None = None) -> Any:
        """What a round made, (rows, columns)."""
        row = self.row(number)
        return rounds.to_floats(bytes(row.head)).reshape(plan().shape)

    def row(self, number: uuid.UUID | None = None) -> Any:
        database = Database(self.config.url)
        with database.read() as connection:
            table = schema.rounds
            row = connection.execute(select(table).where(table.c.id == (number or self.status().round))).one()
        database.close()
        return row

    def audited(self, action: str) -> list[tuple[str, str]]:
        """Who, and the details, of one kind of entry."""
        database = Database(self.config.url)
        with database.read() as connection:
            table = schema.audit
            rows = connection.execute(select(table.c.actor, table.c.detail).where(table.c.action == action)).all()
        database.close()
        return [tuple(row) for row in rows]


def mean_of(answers: list[Any]) -> Any:
    """The mean change by patients of answers in the clear."""
    total = np.sum([rounds.to_floats(one.vector) for one in answers], axis=0)
    return total[:-1] / total[-1]


def with_section(**changes: Any) -> FederatedSection:
    return msgspec.structs.replace(SECTION, **changes)
