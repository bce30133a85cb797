"""The listings: rows of `exams`, `reports`, `vitals` and `manifests`, made from records as they are committed.

They depend on which records the hub holds, never on the order in which they came.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, delete, insert, select, update

from aidpost.records import ExamReport, Origin, TriageLevel, VitalSign, decode
from aidpost.sync.bodies import BlobManifest
from aidpost.sync.envelope import Envelope
from aidpost.sync.hub import exports, readings, schema, search, tally
from aidpost.sync.hub._calls import calls_of
from aidpost.sync.hub._rows import clean, insert_new
from aidpost.sync.hub.clocks import Clock
from aidpost.sync.hub.quality import in_sample


class Stored(NamedTuple):
    """A record that is being committed, and where its envelope stands."""

    device: str
    stream: int
    envelope: Envelope
    hash: bytes
    record: Any
    origin: Origin | None
    received_ms: int


def add_reports(connection: Connection, stored: Sequence[Stored]) -> None:
    """Lists the exams of new reports; of several reports of one exam, the one that no other supersedes is shown."""
    if not stored:
        return
    known = _known(connection, schema.reports, [item.record.id for item in stored])
    fresh = {item.record.id: item for item in stored if item.record.id not in known}
    insert_new(connection, schema.reports, [_report_row(item) for item in fresh.values()])
    by_exam: dict[uuid.UUID, list[Stored]] = {}
    for item in fresh.values():
        by_exam.setdefault(item.record.exam.id, []).append(item)
    listed = _known(connection, schema.exams, list(by_exam))
    first = [items[0] for exam, items in by_exam.items() if exam not in listed and len(items) == 1]
    rows = _exam_rows(connection, first)
    if rows:
        connection.execute(insert(schema.exams), rows)
    for exam in by_exam.keys() - {item.record.exam.id for item in first}:
        show_current(connection, exam)
    add_vitals(connection, [item._replace(record=vital) for item in fresh.values() for vital in item.record.vitals])


def show_current(connection: Connection, exam: uuid.UUID) -> None:
    """Makes the row of an exam anew from the report that counts, or removes it when no report is left."""
    rows = connection.execute(select(schema.reports).where(schema.reports.c.exam == exam)).all()
    superseded = {row.supersedes for row in rows}
    # two that supersede the same one: the later sequence, and where even that is equal, one that all hubs agree on
    current = max((row for row in rows if row.id not in superseded), key=lambda r: (r.seq, r.id), default=None)
    old = connection.execute(select(schema.exams).where(schema.exams.c.id == exam)).one_or_none()
    if old is not None and (current is None or old.report != current.id):
        connection.execute(delete(schema.exams).where(schema.exams.c.id == exam))
        tally.changed(connection, [(exam, old.patient)])
    if current is None or (old is not None and old.report == current.id):
        return
    envelope = connection.execute(
        select(schema.envelopes).where(
            schema.envelopes.c.stream == current.stream, schema.envelopes.c.seq == current.seq
        )
    ).one()
    report = decode(ExamReport, bytes(envelope.body))
    origin = Origin(envelope.origin)
    kept: Any = envelope
    item = Stored(current.device, current.stream, kept, bytes(envelope.hash), report, origin, envelope.received_ms)
    connection.execute(insert(schema.exams), _exam_rows(connection, [item]))


def add_vitals(connection: Connection, stored: Sequence[Stored]) -> None:
    """Lists vital signs for the trends of a patient."""
    if not stored:
        return
    rows = []
    clock = Clock(connection)
    for item in stored:
        vital: VitalSign = item.record
        at_ms, _ = clock.best_time(item.device, vital.at, item.received_ms)
        rows.append(
            {
                "id": vital.id,
                "exam": item.envelope.exam,
                "patient": item.envelope.patient,
                "kind": vital.kind.value,
                "value": vital.value,
                "unit": vital.unit,
                "origin": vital.origin.value,
                "at_ms": at_ms,
                "stream": item.stream,
                "seq": item.envelope.seq,
            }
        )
    insert_new(connection, schema.vitals, rows)
    tally.changed(connection, [(None, item.envelope.patient) for item in stored])


def add_manifests(connection: Connection, stored: Sequence[Stored]) -> None:
    """Notes which blobs will come, and for which exam."""
    if not stored:
        return
    hashes = [item.record.blob.sha256 for item in stored]
    complete = set(connection.execute(select(schema.blobs.c.sha256).where(schema.blobs.c.sha256.in_(hashes))).scalars())
    rows = []
    for item in stored:
        manifest: BlobManifest = item.record
        rows.append(
            {
                "stream": item.stream,
                "seq": item.envelope.seq,
                "device": item.device,
                "sha256": manifest.blob.sha256,
                "size": manifest.blob.size,
                "media_type": clean(manifest.blob.media_type, 100),
                "patient": item.envelope.patient,
                "exam": item.envelope.exam,
                "preview": manifest.preview,
                "waiting": manifest.blob.sha256 not in complete,
            }
        )
    insert_new(connection, schema.manifests, rows)
    whole = [item.envelope for item, row in zip(stored, rows, strict=True) if not row["waiting"]]
    exports.changed(connection, list({(one.exam, one.patient) for one in whole if one.exam and one.patient}))


def set_state(connection: Connection, exam: uuid.UUID, report: uuid.UUID) -> None:
    """Takes an exam off the worklist, or back on it for a retake, as the readings of its shown report say."""
    exams = schema.exams
    this = (exams.c.id == exam, exams.c.report == report)
    row = connection.execute(select(exams.c.modalities).where(*this)).one_or_none()
    if row is not None:
        read = readings.standing(connection, [report]).get(report, {})
        standing = _standing(row.modalities, read, withdrawn=bool(_withdrawn(connection, [exam])))
        connection.execute(update(exams).where(*this).values(**standing))


_PAGE = 500
"""Values of one SQL `IN`."""


def _known(connection: Connection, table: Table, ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    known: set[uuid.UUID] = set()
    for start in range(0, len(ids), _PAGE):
        known.update(connection.execute(select(table.c.id).where(table.c.id.in_(ids[start : start + _PAGE]))).scalars())
    return known


def _report_row(item: Stored) -> dict[str, Any]:
    report: ExamReport = item.record
    return {
        "id": report.id,
        "exam": report.exam.id,
        "patient": report.patient.id,
        "device": item.device,
        "stream": item.stream,
        "seq": item.envelope.seq,
        "supersedes": report.supersedes,
    }


def _exam_rows(connection: Connection, items: Sequence[Stored]) -> list[dict[str, Any]]:
    clock = Clock(connection)
    rows = [_exam_row(clock, item) for item in items]
    exports.changed(connection, [(row["id"], row["patient"]) for row in rows])
    search.note(connection, [(row["patient"], row["patient_name"]) for row in rows])
    made = zip(items, rows, strict=True)
    insert_new(connection, schema.calls, [c for item, row in made for c in calls_of(item.record, row["started_ms"])])
    read = readings.standing(connection, [row["report"] for row in rows])
    withdrawn = _withdrawn(connection, [row["id"] for row in rows])
    return [
        row | _standing(row["modalities"], read.get(row["report"], {}), withdrawn=row["id"] in withdrawn)
        for row in rows
    ]


def _withdrawn(connection: Connection, exams: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    table = schema.withdrawals
    found: set[uuid.UUID] = set()
    for start in range(0, len(exams), _PAGE):
        page = exams[start : start + _PAGE]
        query = select(table.c.exam).where(table.c.exam.in_(page), table.c.undone_ms.is_(None))
        found.update(connection.execute(query).scalars())
    return found


def _exam_row(clock: Clock, item: Stored) -> dict[str, Any]:
    report: ExamReport = item.record
    exam, patient, started = report.exam, report.patient, report.exam.started
    started_ms, basis = clock.best_time(item.device, started, item.received_ms)
    grades = [photo.dr.grade for photo in report.fundus if photo.dr and photo.dr.grade is not None]
    qualities = [*(ecg.quality for ecg in report.ecg), *(photo.quality for photo in report.fundus)]
    parts = (("eyes", report.fundus), ("ecg", report.ecg), ("vitals", report.vitals))
    return {
        "id": exam.id,
        "report": report.id,
        "patient": patient.id,
        "device": item.device,
        "clinic": clean(exam.clinic.name or exam.clinic.id, 200),
        "operator": clean(exam.operator.name or exam.operator.id, 200),
        "patient_name": clean(patient.name, 500),
        "birth_date": patient.birth_date,
        "sex": patient.sex.value,
        "triage": report.triage.level.rank,
        "computed_triage": report.triage.computed.rank if report.triage.computed else None,
        "origin": (item.origin or report.origin).value,
        "summary": clean(_summary(report), 1000),
        "dr_grade": max(grades, default=None),
        "dr_referable": readings.device_call(readings.EYES, report),
        "af": readings.device_call(readings.HEART, report),
        "sampled": in_sample(exam.id),
        "abstained": any(e.rhythm.abstained for e in report.ecg) or any(f.dr and f.dr.abstained for f in report.fundus),
        "ungradable": not all(quality.usable for quality in qualities),
        "modalities": " ".join(name for name, records in parts if records),
        "started_ms": started_ms,
        "time_basis": basis.value,
        "device_wall_ms": started.wall_ms,
        "device_monotonic_ms": started.monotonic_ms,
        "device_boot": started.boot,
        "device_synced": started.synced,
        "received_ms": item.received_ms,
    }


def _summary(report: ExamReport) -> str:
    findings = sorted(report.findings, key=lambda finding: -finding.severity.rank)
    worth = [f.text for f in findings if f.severity > TriageLevel.ROUTINE] or [f.text for f in findings]
    return "; ".join(dict.fromkeys(worth))


def _standing(modalities: str, read: dict[str, tuple[Any, ...]], *, withdrawn: bool) -> dict[str, str]:
    """`state` and `waits` of an exam."""
    states = {part: rows[-1].state for part, rows in read.items()}
    state = "withdrawn" if withdrawn else readings.state_of(modalities, states)
    return {"state": state, "waits": " ".join(readings.waiting(modalities, states))}
