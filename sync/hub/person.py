"""All that the hub has of one person: given out as one file, or erased."""

from __future__ import annotations

import csv
import io
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import msgspec
from sqlalchemy import Connection, select

from aidpost.records import decode
from aidpost.sync.bodies import BODY_KINDS
from aidpost.sync.hub import _erasure, exports, fhir, patients, reviews, schema
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database, now_ms

_ENDINGS = {"image/jpeg": ".jpg", "image/png": ".png"}
_README = """\
All that this hub has of one person.

records.jsonl  what devices and clinicians recorded, one record a line, as it came
fhir/          each exam as a FHIR R4 Bundle
files/         photographs as taken; ECG traces in the waveform codec of Aidpost, by SHA-256
access.csv     who opened, changed or passed on what, and when
"""


def export(connection: Connection, files: BlobFiles, patient: uuid.UUID, out: IO[bytes]) -> int:
    """Writes a ZIP of the person, under whichever records; returns how many records it holds, 0 where there is nobody.

    The caller audits it.
    """
    everybody = patients.group(connection, patient)
    kept = schema.envelopes
    rows = connection.execute(
        select(kept.c.kind, kept.c.exam, kept.c.received_ms, kept.c.body)
        .where(kept.c.patient.in_(everybody), kept.c.body != b"")
        .order_by(kept.c.received_ms)
    ).all()
    exams = list(connection.execute(select(schema.exams.c.id).where(schema.exams.c.patient.in_(everybody))).scalars())
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", _README)
        lines = [*map(_line, rows), *_hub_lines(connection, everybody)]
        archive.writestr("records.jsonl", b"".join(line + b"\n" for line in lines))
        for exam in exams:
            report = exports.report_of(connection, exam)
            if report is not None:
                bundle = fhir.bundle(report, reviews.settled(connection, report.id))
                archive.writestr(f"fhir/{exam}.json", msgspec.json.format(msgspec.json.encode(bundle)))
        for name, sha256 in _blobs(connection, everybody):
            if files.is_complete(sha256):
                archive.write(files.path(sha256), name)
        archive.writestr("access.csv", _access(connection, [*everybody, *exams]))
    return len(lines)


def erase(database: Database, files: BlobFiles, patient: uuid.UUID, actor: str) -> int:
    """Erases the person under all their records, for good; returns under how many there was something."""
    found = 0
    unwanted: list[str] = []
    with database.write() as connection:
        for one in patients.group(connection, patient):
            known = select(schema.envelopes.c.seq).where(schema.envelopes.c.patient == one).limit(1)
            if connection.execute(known).first() is not None:
                unwanted += _erasure.erase(connection, one, actor, now_ms())
                found += 1
    for sha256 in unwanted:
        files.erase(sha256)
    return found


def _line(row: Any) -> bytes:
    kind = BODY_KINDS.get(row.kind)
    body = decode(kind, bytes(row.body)) if kind else bytes(row.body)
    return msgspec.json.encode({"kind": row.kind, "exam": row.exam, "received_ms": row.received_ms, "record": body})


def _hub_lines(connection: Connection, everybody: Sequence[uuid.UUID]) -> Iterator[bytes]:
    """What was written at the hub itself: reviews, and referrals as they went on."""
    for kind, table in (("Review", schema.reviews), ("Referral", schema.referrals)):
        query = select(table.c.exam, table.c.at_ms, table.c.body).where(table.c.patient.in_(everybody))
        for row in connection.execute(query.order_by(table.c.at_ms)):
            record = decode(BODY_KINDS[kind], bytes(row.body))
            yield msgspec.json.encode({"kind": kind, "exam": row.exam, "received_ms": row.at_ms, "record": record})


def _blobs(connection: Connection, everybody: Sequence[uuid.UUID]) -> list[tuple[str, str]]:
    table = schema.manifests
    query = select(table.c.sha256, table.c.media_type).where(table.c.patient.in_(everybody)).distinct()
    rows = connection.execute(query.order_by(table.c.sha256))
    return [(f"files/{row.sha256}{_ENDINGS.get(row.media_type, '.bin')}", row.sha256) for row in rows]


def _access(connection: Connection, about: Sequence[uuid.UUID]) -> str:
    table = schema.audit
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("at_ms", "who", "what", "to_what"))
    targets = [str(number) for number in about]
    query = select(table.c.at_ms, table.c.actor, table.c.action, table.c.target).where(table.c.target.in_(targets))
    writer.writerows(connection.execute(query.order_by(table.c.id)))
    return out.getvalue()
