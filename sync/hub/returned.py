"""What this hub signed in a life that it was restored from since, given back by the devices that had it.

A device's receipt names records of an earlier life of the hub; those that are not in `outgoing` the hub asks for. What
comes is believed by the hub's own proof of it (`aidpost.sync.proofs`), and only from the device that it was for. It is
kept like any record, and takes effect once its exam is here: a review as signed by its reader at its time. A review
that is older than one that stands by then is history, and changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select

from aidpost.errors import InvalidRecordError
from aidpost.records import ExamReport, Referral, Review, ReviewDecision, decode
from aidpost.sync import proofs, ranges
from aidpost.sync.bodies import Acknowledgement, Erasure, Returned
from aidpost.sync.envelope import Envelope, Held, Receipt, RecordClass
from aidpost.sync.hub import (
    _erasure,
    alerts,
    audit,
    exports,
    identity,
    patients,
    readings,
    referrals,
    reviews,
    schema,
)
from aidpost.sync.hub._judge import Refusal
from aidpost.sync.hub._rows import insert_new
from aidpost.sync.hub._views import Stored, set_state

CLASSES = (reviews.CLASS, "referral", alerts.CLASS, "erasure")
"""The classes down of what is asked for again."""
_MOST_RANGES = 1000
_PAGE = 500

Signed = Review | Referral | Acknowledgement | Erasure


def lacking(connection: Connection, device: str, receipt: Receipt, hub_epoch: bytes) -> list[Held]:
    """What a device has of this hub's earlier lives, and this hub has not."""
    table = schema.outgoing
    found = []
    for held in receipt.held:
        if held.epoch == hub_epoch or held.cls not in CLASSES:
            continue
        mine = (table.c.device == device, table.c.cls == held.cls, table.c.epoch == held.epoch)
        known = connection.execute(select(func.count()).select_from(table).where(*mine)).scalar_one()
        numbers = connection.execute(select(table.c.seq).where(*mine)).scalars() if known else ()
        here = ranges.from_numbers(numbers)
        gaps = [gap for start, stop in held.ranges for gap in ranges.missing(here, start, stop)]
        if gaps:
            found.append(Held(held.epoch, held.cls, tuple(gaps[:_MOST_RANGES])))
    return found


def refusal(state: Path, device: str, envelope: Envelope, returned: Returned) -> Refusal | None:
    """Why what a device gives back is not taken: this hub never sent it to that device, or it was altered since."""
    try:
        about = _about(_signed(returned))
    except (InvalidRecordError, RecursionError, LookupError) as error:
        return Refusal("invalid", f"what was given back cannot be read: {getattr(error, 'cause', error)}"[:500])
    sent = Envelope(returned.epoch, returned.cls, returned.seq, returned.kind, *about, returned.body)
    if returned.cls not in CLASSES or not proofs.is_proven(_key(state), device, sent, returned.proof):
        return Refusal("foreign", "this hub did not sign that for this device")
    expected = (None, None) if returned.kind == Erasure.__name__ else about
    if (envelope.patient, envelope.exam) != expected:
        return Refusal("invalid", "the envelope names another patient or exam than what was given back")
    return None


def take(connection: Connection, stored: Sequence[Stored], now_ms: int) -> list[str]:
    """Lets what is new of a batch take effect, and what waited for a report of it. Gives the blobs of patients who are
    erased again; their files go after the commit."""
    came = [item for item in stored if isinstance(item.record, Returned)]
    reports = [item for item in stored if isinstance(item.record, ExamReport)]
    unwanted: list[str] = []
    for item in came:
        _note_sent(connection, item, now_ms)
    exams = {item.envelope.exam for item in came if item.envelope.exam} | _waited_for(connection, reports)
    for exam in sorted(exams):
        row = connection.execute(select(schema.exams).where(schema.exams.c.id == exam)).one_or_none()
        if row is not None:  # else the report is still to come, and everything waits for it
            _Exam(connection, row, now_ms).apply()
    for item in came:
        # last, so that nothing of them is written after it
        if isinstance(record := _signed(item.record), Erasure):
            unwanted += _erase(connection, item.device, record, now_ms)
    return unwanted


def _signed(returned: Returned) -> Signed:
    record: Signed = decode(proofs.KINDS[returned.kind], returned.body)
    return record


def _about(record: Signed) -> tuple[uuid.UUID, uuid.UUID | None]:
    return record.patient, None if isinstance(record, Erasure) else record.exam


def _key(state: Path) -> Any:
    return identity.signing_key(state).public_key()


def _note_sent(connection: Connection, item: Stored, now_ms: int) -> None:
    """As if it had not been lost: it went to the device, which has it."""
    record: Returned = item.record
    patient, exam = _about(_signed(record))
    row = {
        "device": item.device,
        "cls": record.cls,
        "epoch": record.epoch,
        "seq": record.seq,
        "kind": record.kind,
        "patient": patient,
        "exam": exam,
        "body": record.body,
        "created_ms": now_ms,
        "sent_ms": now_ms,
        "received_ms": now_ms,
    }
    insert_new(connection, schema.outgoing, [row])


def _erase(connection: Connection, device: str, record: Erasure, now_ms: int) -> list[str]:
    if connection.execute(_erasure.tombstones_of([record.patient])).first() is not None:
        return []
    audit.append(connection, device, "returned-erasure", str(record.patient), f"made here at {record.at.wall_ms}")
    return _erasure.erase(connection, record.patient, device, now_ms)


def _waited_for(connection: Connection, reports: Sequence[Stored]) -> set[uuid.UUID]:
    """Of the exams of new reports those of which something was given back before; there is any only after a restore."""
    if not reports:
        return set()
    streams, sent = schema.streams, schema.envelopes
    devices = {item.device for item in reports}
    query = select(streams.c.id).where(streams.c.device.in_(devices), streams.c.cls == RecordClass.RETURNED.value)
    mine = connection.execute(query).scalars().all()
    found: set[uuid.UUID] = set()
    exams = list({item.record.exam.id for item in reports}) if mine else []
    for start in range(0, len(exams), _PAGE):
        these = sent.c.exam.in_(exams[start : start + _PAGE])
        found.update(connection.execute(select(sent.c.exam).where(sent.c.stream.in_(mine), these)).scalars())
    return found


class _Exam:
    """All that was given back of an exam, applied again whenever some of it or the report comes: each piece once."""

    def __init__(self, connection: Connection, row: Any, now_ms: int) -> None:
        self._connection, self._row, self._now_ms = connection, row, now_ms

    def apply(self) -> None:
        # answers last: a device's clock, by which some of them are dated, may be anything
        came = sorted(self._came(), key=lambda one: (isinstance(one[1], Acknowledgement), one[1].at.wall_ms))
        for device, record, given_back in came:
            if device != self._row.device or record.patient != self._row.patient:
                continue
            match record:
                case Review():
                    self._review(device, record)
                case Referral():
                    self._referral(device, record)
                case Acknowledgement() if given_back:
                    self._answer(device, record)
                case Acknowledgement():
                    # came up in its own right, perhaps before the recall that it answers was here again
                    alerts.from_device(self._connection, device, record, self._now_ms)

    def _came(self) -> Iterable[tuple[str, Review | Referral | Acknowledgement, bool]]:
        sent, streams = schema.envelopes, schema.streams
        kinds = (Returned.__name__, Acknowledgement.__name__)
        query = select(streams.c.device, sent.c.kind, sent.c.body).join(streams, streams.c.id == sent.c.stream)
        for row in self._connection.execute(query.where(sent.c.exam == self._row.id, sent.c.kind.in_(kinds))):
            if row.kind == Acknowledgement.__name__:
                yield row.device, decode(Acknowledgement, bytes(row.body)), False
            else:
                record = _signed(decode(Returned, bytes(row.body)))
                assert not isinstance(record, Erasure)
                yield row.device, record, True

    def _review(self, device: str, review: Review) -> None:
        if not review.parts:
            self._withdrawal(device, review)
            return
        table = schema.reviews
        report = self._report(review.report)
        if report is None or _has(self._connection, table, review.id):
            return
        read = readings.standing(self._connection, [review.report]).get(review.report, {})
        overtaken = [name for name in review.parts if any(one.at_ms > review.at.wall_ms for one in read.get(name, ()))]
        self._connection.execute(insert(table).values(**reviews.row_of(review)))
        reader, state = self._login(review.reviewer), _state(review)
        for name in review.parts:
            if name not in overtaken:
                part = readings.Part(name, read.get(name, ()))
                readings.note(self._connection, part, review, reader, state, None)
        detail = f"review {review.id} by {review.reviewer}, signed at {review.at.wall_ms}: {', '.join(review.parts)}"
        audit.append(self._connection, device, "returned-review", str(review.exam), detail)
        if overtaken:
            later = f"review {review.id} changes nothing: later ones stand on {', '.join(overtaken)}"
            audit.append(self._connection, device, "returned-overtaken", str(review.exam), later)
        set_state(self._connection, review.exam, review.report)
        exports.changed(self._connection, [(review.exam, review.patient)])
        if len(overtaken) < len(review.parts):
            if review.triage is not None and review.triage > report.triage.level:
                alerts.open_recall(self._connection, review, self._now_ms)
            if self._row.triage >= alerts.LEAST:
                # it would be opened a moment later, and wake people for what was read a week ago
                alerts.open_finding(self._connection, self._row, self._now_ms)
            alerts.read(self._connection, review.report, reader, review.reviewer, self._now_ms)

    def _withdrawal(self, device: str, told: Review) -> None:
        """The word to a device that an exam was withdrawn, or not any longer. Whose it was, the hub alone knew."""
        table = schema.withdrawals
        last = self._connection.execute(
            select(func.max(func.coalesce(table.c.undone_ms, table.c.at_ms))).where(table.c.exam == told.exam)
        ).scalar_one()
        at = told.at.wall_ms
        if last is not None and last >= at:
            return
        by = self._login(told.reviewer)
        if told.text.startswith(patients.WITHDRAWN):
            reason = told.text.removeprefix(patients.WITHDRAWN).strip()
            patients.withdraw(self._connection, self._row, None, by, reason, at)
        elif patients.withdrawal(self._connection, told.exam) is not None:
            patients.undo_withdrawal(self._connection, self._row, by, at)
        else:
            return
        audit.append(self._connection, device, "returned-withdrawal", str(told.exam), f"signed at {at}")

    def _referral(self, device: str, referral: Referral) -> None:
        if not _has(self._connection, schema.referrals, referral.id):
            referrals.add(self._connection, referral, device)
            audit.append(self._connection, device, "returned-referral", str(referral.exam), str(referral.id))

    def _answer(self, device: str, answer: Acknowledgement) -> None:
        table = schema.alerts
        about = select(table.c.id).where(table.c.about == answer.about)
        if self._connection.execute(about).first() is None and answer.about == self._row.report:
            alerts.open_finding(self._connection, self._row, self._now_ms)
        for number in self._connection.execute(about).scalars().all():
            by = self._login(answer.by)
            if alerts.acknowledge(self._connection, None, number, by, answer.by, answer.text, self._now_ms):
                audit.append(self._connection, device, "returned-answer", str(answer.exam), str(number))

    def _report(self, report: uuid.UUID) -> ExamReport | None:
        table, sent = schema.reports, schema.envelopes
        of = (sent.c.stream == table.c.stream) & (sent.c.seq == table.c.seq)
        query = select(sent.c.body).join(table, of).where(table.c.id == report, table.c.exam == self._row.id)
        body = self._connection.execute(query).scalar_one_or_none()
        return decode(ExamReport, bytes(body)) if body else None

    def _login(self, name: str) -> str:
        """The account of the reader whose name is printed; their name, where no account or more than one has it."""
        table = schema.users
        query = select(table.c.name).where(
            (table.c.full_name == name) | ((table.c.full_name == "") & (table.c.name == name))
        )
        found = self._connection.execute(query.limit(2)).scalars().all()
        return str(found[0]) if len(found) == 1 else name[:64]


def _has(connection: Connection, table: Any, number: uuid.UUID) -> bool:
    """Whether a row with that id is here."""
    return connection.execute(select(table.c.id).where(table.c.id == number)).first() is not None


def _state(review: Review) -> str:
    """Only what was settled went down."""
    return "retake" if review.decision is ReviewDecision.RETAKE else "signed"
