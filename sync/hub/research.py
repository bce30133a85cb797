"""What people agreed to give to research, without who they are.

Names, numbers, telephones, free text, dates, places and serial numbers stay here. A person and a clinic have a
pseudonym that only this hub's key makes, the same in every export, so that a later export goes on with an earlier one
and a withdrawal can be followed. Ages over 89 are 90; times are days since the person's first exam in the export.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import struct
import uuid
import zipfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np
from sqlalchemy import Connection, select

from aidpost.errors import AidpostError
from aidpost.kernels import codec
from aidpost.records import BlobRef, ConsentPurpose, EcgResult, ExamReport, FundusResult, ModelRef, Origin
from aidpost.sync.hub import audit, consents, exports, identity, patients, schema
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database

_DAY_MS = 86_400_000
_OLDEST = 90
_CODED = frozenset((0x00, *range(0xD0, 0xD8)))
_README = """\
exams.jsonl   one exam a line: pseudonyms, age, sex, day, vital signs, results of the models, calls of the readers
photographs/  as the camera coded them, without EXIF and comments; a picture may itself be turned
ecg/          int32 counts (leads, samples), NumPy; millivolt = (count - baseline) * lsb_mv

Retinal vessels and heart beats can in principle tell who somebody is: use it under the terms that people agreed to.
"""


class Exported(NamedTuple):
    """People and exams of an export."""

    people: int
    exams: int


def export(config: HubConfig, purpose: ConsentPurpose, out: IO[bytes], actor: str) -> Exported:
    """Writes a ZIP of the live exams of everybody who agrees to `purpose` now. Audited."""
    database, files = Database(config.url), BlobFiles(config.blobs)
    names = _Pseudonyms(identity.signing_key(config.state).private_bytes_raw())
    people = exams = 0
    lines = io.BytesIO()
    try:
        with database.read() as connection, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README.txt", _README)
            for person in _people(connection):
                if not consents.agrees(connection, person, purpose):
                    continue
                found = list(_exams(connection, person))
                for row, report in found:
                    line = _exam(names, person, row, report, found[0][0].started_ms)
                    line["readers"] = _readings(connection, report.id)
                    lines.write(msgspec.json.encode(line) + b"\n")
                    _add_files(archive, files, names, report)
                people, exams = people + bool(found), exams + len(found)
            archive.writestr("exams.jsonl", lines.getvalue())
        with database.write() as connection:
            audit.append(connection, actor, "research-export", purpose.value, f"{people} people, {exams} exams")
    finally:
        database.close()
    return Exported(people, exams)


class _Pseudonyms:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, what: str, value: object) -> str:
        return hmac.new(self._key, f"research:{what}:{value}".encode(), hashlib.sha256).hexdigest()[:20]


def _people(connection: Connection) -> Iterator[uuid.UUID]:
    """One record of each person, in no order that tells when they came."""
    done: set[uuid.UUID] = set()
    for patient in connection.execute(select(schema.exams.c.patient).distinct()).scalars().all():
        if patient not in done:
            everybody = patients.group(connection, patient)
            done.update(everybody)
            yield min(everybody)


def _exams(connection: Connection, person: uuid.UUID) -> Iterator[tuple[Any, ExamReport]]:
    table = schema.exams
    everybody = patients.group(connection, person)
    query = select(table).where(patients.exams_of(connection, everybody), table.c.origin == Origin.LIVE.value)
    for row in connection.execute(query.order_by(table.c.started_ms)).all():
        report = exports.report_of(connection, row.id)
        if report is not None:
            yield row, report


def _exam(names: _Pseudonyms, person: uuid.UUID, row: Any, report: ExamReport, first_ms: int) -> dict[str, Any]:
    return {
        "person": names.of("person", person),
        "exam": names.of("exam", report.exam.id),
        "clinic": names.of("clinic", row.clinic),
        "age": _age(report, row.started_ms),
        "sex": report.patient.sex.value,
        "day": (row.started_ms - first_ms) // _DAY_MS,
        "triage": report.triage.level.value,
        "findings": sorted({finding.code for finding in report.findings}),
        "vitals": [{"kind": one.kind.value, "value": one.value, "unit": one.unit} for one in report.vitals],
        "fundus": [_photo(names, one) for one in report.fundus],
        "ecg": [_ecg(names, one) for one in report.ecg],
    }


def _age(report: ExamReport, at_ms: int) -> int | None:
    born = report.patient.birth_date or ""
    if not born[:4].isdigit():
        return None
    return max(0, min(_OLDEST, 1970 + int(at_ms / (365.2425 * _DAY_MS)) - int(born[:4])))


def _photo(names: _Pseudonyms, one: FundusResult) -> dict[str, Any]:
    return {
        "id": names.of("record", one.id),
        "eye": one.eye.value if one.eye else None,
        "camera": f"{one.camera.manufacturer} {one.camera.model}".strip(),
        "usable": one.quality.usable,
        "grade": one.dr.grade if one.dr else None,
        "probability": one.dr.probability if one.dr else None,
        "models": [_model(model) for model in one.models],
    }


def _ecg(names: _Pseudonyms, one: EcgResult) -> dict[str, Any]:
    return {
        "id": names.of("record", one.id),
        "fs_hz": one.fs_hz,
        "leads": one.leads,
        "lsb_mv": one.lsb_mv,
        "baseline": one.baseline,
        "missing": one.missing,
        "lead_off": one.lead_off,
        "usable": one.quality.usable,
        "rhythm": one.rhythm.label,
        "probability": one.rhythm.probability,
        "heart_rate_bpm": one.measurements.heart_rate_bpm,
        "models": [_model(model) for model in one.models],
    }


def _model(model: ModelRef) -> str:
    return f"{model.name} {model.version}"


def _readings(connection: Connection, report: uuid.UUID) -> list[dict[str, Any]]:
    table = schema.readings
    query = select(table.c.part, table.c.number, table.c.state, table.c.call).where(table.c.report == report)
    return [row._asdict() for row in connection.execute(query.order_by(table.c.part, table.c.number))]


def _add_files(archive: zipfile.ZipFile, files: BlobFiles, names: _Pseudonyms, report: ExamReport) -> None:
    for photo in report.fundus:
        data = _body(files, photo.body)
        if data is not None and (bare := without_metadata(data)) is not None:
            archive.writestr(f"photographs/{names.of('record', photo.id)}.jpg", bare)
    for ecg in report.ecg:
        data = _body(files, ecg.body)
        if data is None:
            continue
        try:
            samples = codec.decode(data)
        except AidpostError:
            continue
        out = io.BytesIO()
        np.save(out, samples, allow_pickle=False)
        archive.writestr(f"ecg/{names.of('record', ecg.id)}.npy", out.getvalue())


def _body(files: BlobFiles, ref: BlobRef | None) -> bytes | None:
    return files.path(ref.sha256).read_bytes() if ref is not None and files.is_complete(ref.sha256) else None


def without_metadata(jpeg: bytes) -> bytes | None:
    """The JPEG without comments and application segments, but for those that its colours need; nothing after its end.
    None where it is no JPEG: what cannot be cleaned is not given out."""
    if jpeg[:2] != b"\xff\xd8":
        return None
    kept, position = [jpeg[:2]], 2
    while position + 2 <= len(jpeg) and jpeg[position] == 0xFF:
        marker = jpeg[position + 1]
        if marker == 0xD9:
            return b"".join([*kept, jpeg[position : position + 2]])
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack(">H", jpeg[position + 2 : position + 4].ljust(2, b"\0"))
        end = position + 2 + length
        if marker == 0xDA:  # of coded data, 0xFF is followed by 0 or a restart
            while end + 1 < len(jpeg) and (jpeg[end] != 0xFF or jpeg[end + 1] in _CODED):
                end += 1
        segment = jpeg[position:end]
        # JFIF's APP0, without its thumbnail, and Adobe's APP14 say how colours are coded
        if marker == 0xE0 and segment[4:9] == b"JFIF\0":
            kept.append(b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0")
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (marker == 0xEE and segment[4:9] == b"Adobe"):
            kept.append(segment)
        position = end
    return None
