"""The clinic's patient index: what each device of a clinic is sent of its patients, one entry a person.

Whose exams were made on a clinic's devices are its patients. A person who refuses that their results are passed on, or
has withdrawn that, is not in it; merged records are one entry, under the number seen last there.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, case, delete, select, update

from aidpost.errors import AidpostError
from aidpost.records import ConsentPurpose, Patient, Timestamp, TriageLevel, encode
from aidpost.sync.bodies import IndexEntry, LastVisit, OverdueReferral
from aidpost.sync.hub import _rows, clocks, consents, deliveries, exports, outgoing, patients, referrals, schema
from aidpost.sync.hub.clocks import day
from aidpost.sync.hub.database import Database

_log = logging.getLogger(__name__)

CLASS = "index"
_AT_ONCE = 50
_RESULT = 300
_LEVELS = list(TriageLevel)


def begin(connection: Connection, device: str) -> None:
    """A device says hello: one that has none of its clinic's index yet is to get it."""
    entries, devices = schema.index_entries, schema.devices
    if connection.execute(select(entries.c.patient).where(entries.c.device == device).limit(1)).first() is not None:
        return
    clinic = connection.execute(select(devices.c.clinic).where(devices.c.name == device)).scalar()
    if clinic:
        _touch_clinic(connection, clinic)


def enrolled_again(connection: Connection, known: Any, public_key: bytes, clinic: str, now_ms: int) -> None:
    """A device, a row of `devices`, is enrolled anew: with another key it has a new store with nothing in it, and in
    another clinic other patients."""
    if bytes(known.public_key) != public_key:
        deliveries.new_store(connection, known.name, now_ms)
    if known.clinic != clinic:
        table = schema.index_entries
        had = connection.execute(select(table.c.patient).where(table.c.device == known.name)).scalars()
        exports.touch(connection, list(had))
        if clinic:
            _touch_clinic(connection, clinic)


def _touch_clinic(connection: Connection, clinic: str) -> None:
    devices, exams = schema.devices, schema.exams
    theirs = select(exams.c.patient).join(devices, devices.c.name == exams.c.device)
    found = connection.execute(theirs.where(devices.c.clinic == clinic).distinct()).scalars()
    exports.touch(connection, list(found))


def bring_up(database: Database, now_ms: int, going_on: Callable[[], None] = lambda: None) -> int:
    """Sends what changed, a few people a transaction, each of which `going_on` tells; gives how many were looked
    at."""
    due, looked = schema.index_due, 0
    while True:
        going_on()
        with database.read() as connection:
            if connection.execute(select(due.c.patient).limit(1)).first() is None:
                return looked
        with database.write() as connection:
            # of several workers each takes its own: they would make the same entries, one after the other
            mine = select(due.c.patient).limit(_AT_ONCE).with_for_update(skip_locked=True)
            found = list(connection.execute(mine).scalars())
            if not found:
                return looked
            _lock_devices(connection, found)
            # first, so that what changes meanwhile in another transaction makes them due again
            connection.execute(delete(due).where(due.c.patient.in_(found)))
            sends: dict[tuple[str, uuid.UUID], IndexEntry] = {}
            for patient in _concerned(connection, found):
                try:
                    sends |= _person(connection, patient, now_ms)
                except (AidpostError, LookupError, TypeError, ValueError):
                    # what is wrong with one person's records must not keep reviews from going down
                    _log.exception("the index entry of %s cannot be made", patient)
            _send(connection, database.epoch, sends, now_ms)
        looked += len(found)


def _concerned(connection: Connection, people: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Those of whom a device was sent something or may be: asked of all at once, since of many it is none."""
    exams, devices, entries, links = schema.exams, schema.devices, schema.index_entries, schema.patient_links
    of_clinic = select(exams.c.patient).join(devices, devices.c.name == exams.c.device)
    queries = (
        of_clinic.where(exams.c.patient.in_(people), devices.c.clinic != ""),
        select(entries.c.patient).where(entries.c.patient.in_(people)),
        select(links.c.patient).where(links.c.patient.in_(people)),
        select(links.c.same_as).where(links.c.same_as.in_(people)),
    )
    found = {patient for query in queries for patient in connection.execute(query).scalars()}
    return [patient for patient in people if patient in found]


def _lock_devices(connection: Connection, people: Sequence[uuid.UUID]) -> None:
    """Locks the devices that may be sent something, all at once in the order of their names, as the ingest does: two
    who lock them one by one as they come would wait for each other."""
    devices, exams = schema.devices, schema.exams
    clinics = select(devices.c.clinic).join(exams, exams.c.device == devices.c.name).where(exams.c.patient.in_(people))
    theirs = select(devices.c.name).where(devices.c.clinic != "", devices.c.clinic.in_(clinics))
    connection.execute(theirs.order_by(devices.c.name).with_for_update())


def new_day(database: Database, now_ms: int) -> None:
    """A day later other referrals are overdue."""
    table = schema.referrals
    late = select(table.c.patient).where(
        table.c.current.is_(True), table.c.status.in_(referrals.OPEN), table.c.due < day(now_ms)
    )
    with database.write() as connection:
        exports.touch(connection, list(connection.execute(late.distinct()).scalars()))


def _person(connection: Connection, patient: uuid.UUID, now_ms: int) -> dict[tuple[str, uuid.UUID], IndexEntry]:
    """What is to be sent of a person, by device and number: entries to all who are to have them, and entries that take
    them back from others."""
    everybody = patients.group(connection, patient)
    exams = _exams(connection, everybody)
    table = schema.index_entries
    clinics = {row.of_clinic for row in exams if row.of_clinic}
    had = connection.execute(select(table.c.device, table.c.patient).where(table.c.patient.in_(everybody))).all()
    if not clinics and not had:
        return {}
    found: dict[tuple[str, uuid.UUID], IndexEntry] = {}
    for clinic in () if consents.refuses(connection, patient, ConsentPurpose.SHARING) else clinics:
        entry = _entry(connection, everybody, exams, clinic, now_ms)
        if entry is not None:
            found |= {(device, entry.patient.id): entry for device in _devices(connection, clinic)}
    at = clocks.hub_time(now_ms)
    gone = {(row.device, row.patient): IndexEntry(patient=Patient(id=row.patient), at=at, removed=True) for row in had}
    return gone | found


def _exams(connection: Connection, everybody: Sequence[uuid.UUID]) -> list[Any]:
    exams, devices = schema.exams, schema.devices
    query = (
        select(exams, devices.c.clinic.label("of_clinic"))
        .join(devices, devices.c.name == exams.c.device)
        .where(exams.c.patient.in_(everybody), exams.c.state != "withdrawn")
    )
    return list(connection.execute(query.order_by(exams.c.started_ms, exams.c.id)).all())


def _entry(
    connection: Connection, everybody: Sequence[uuid.UUID], exams: Sequence[Any], clinic: str, now_ms: int
) -> IndexEntry | None:
    here = [row for row in exams if row.of_clinic == clinic][-1]
    report = exports.report_of(connection, here.id)
    if report is None:
        return None
    known = report.patient
    last = exams[-1]
    return IndexEntry(
        patient=Patient(
            id=known.id,
            name=known.name,
            birth_date=known.birth_date,
            sex=known.sex,
            identifiers=known.identifiers,
            telephone=known.telephone,
        ),
        at=clocks.hub_time(now_ms),
        last=LastVisit(
            exam=last.id,
            day=day(last.started_ms),
            triage=_LEVELS[last.triage],
            result=last.summary[:_RESULT],
            confirmed=last.state == "reviewed",
        ),
        overdue=_overdue(connection, exams, day(now_ms)),
        same_as=tuple(sorted(set(everybody) - {known.id}, key=str)),
    )


def _overdue(connection: Connection, exams: Sequence[Any], today: str) -> tuple[OverdueReferral, ...]:
    found = [referral for row in exams for _, referral in referrals.of_exam(connection, row.id)]
    late = [one for one in found if one.status.value in referrals.OPEN and one.due < today]
    return tuple(OverdueReferral(to=one.to, due=one.due, reason=one.reason) for one in late[:5])


def _devices(connection: Connection, clinic: str) -> list[str]:
    table = schema.devices
    return list(
        connection.execute(
            select(table.c.name).where(table.c.clinic == clinic, table.c.revoked_ms.is_(None)).order_by(table.c.name)
        ).scalars()
    )


def _send(
    connection: Connection, hub_epoch: bytes, sends: Mapping[tuple[str, uuid.UUID], IndexEntry], now_ms: int
) -> None:
    """Sends the entries that differ from those sent before; one that still waits is replaced."""
    table, numbers = schema.index_entries, list({number for _, number in sends})
    known = {
        (row.device, row.patient): bytes(row.digest)
        for row in connection.execute(select(table).where(table.c.patient.in_(numbers)))
    }
    digests = {key: hashlib.sha256(encode(_timeless(entry))).digest() for key, entry in sends.items()}
    new = sorted(key for key, digest in digests.items() if digest != known.get(key))
    if not new:
        return
    put = _rows.insert(connection, table)
    put = put.on_conflict_do_update(index_elements=["device", "patient"], set_={"digest": put.excluded.digest})
    rows = [{"device": device, "patient": number, "digest": digests[device, number]} for device, number in new]
    connection.execute(put, rows)
    down = schema.outgoing
    # what the device has had is not kept here: the exams have it
    waits = down.c.received_ms.is_(None) & (down.c.refused == "")
    refused = case((waits, "a later one was sent"), else_=down.c.refused)
    before = (down.c.device == bindparam("its"), down.c.cls == CLASS, down.c.patient == bindparam("whose"))
    connection.execute(
        update(down).where(*before).values(body=b"", refused=refused),
        [{"its": device, "whose": number} for device, number in new],
    )
    outgoing.put_all(connection, hub_epoch, CLASS, [(*key, sends[key]) for key in new], now_ms)


def _timeless(entry: IndexEntry) -> IndexEntry:
    return msgspec.structs.replace(entry, at=Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True))
