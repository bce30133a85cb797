"""A patient who asked to be erased: bodies and files go, a tombstone stays, so that nothing brings them back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, delete, select, update

from aidpost.sync.bodies import Erasure
from aidpost.sync.hub import audit, clocks, dicom, outgoing, schema, tally
from aidpost.sync.hub._rows import insert_new

_ERASED = "this patient was erased"


def tombstones_of(patients: Sequence[uuid.UUID]) -> Select[Any]:
    """Which of the patients were erased."""
    return select(schema.tombstones.c.patient).where(schema.tombstones.c.patient.in_(patients))


def erase(connection: Connection, patient: uuid.UUID, actor: str, now: int) -> list[str]:
    """Empties all that is kept of a patient, in the caller's transaction.

    Returns
    -------
    list of str
        SHA-256 of the blobs that nothing names any longer; their files are to be removed after the commit.
    """
    insert_new(connection, schema.tombstones, [{"patient": patient, "device": actor, "received_ms": now}])
    # key and hash stay: a record that is sent again is receipted again, and is still empty
    connection.execute(
        update(schema.envelopes)
        .where(schema.envelopes.c.patient == patient, schema.envelopes.c.kind != "Erasure")
        .values(body=b"")
    )
    tally.changed(connection, [(None, patient)])
    tally.changed_where(connection, schema.exams.c.patient == patient)
    unwanted = _only_theirs(connection, patient)
    connection.execute(delete(schema.blobs).where(schema.blobs.c.sha256.in_(unwanted)))
    connection.execute(delete(schema.partials).where(schema.partials.c.sha256.in_(unwanted)))
    devices = _devices_with(connection, patient)
    # the row stays: the next number down is counted from it, and the device would refuse one it has had as a conflict
    down = schema.outgoing
    theirs = (down.c.patient == patient, down.c.kind != Erasure.__name__)
    connection.execute(update(down).where(*theirs).values(body=b"", refused=_ERASED))
    _send_down(connection, patient, devices - {actor}, now)
    at_pacs = dicom.stored(connection, schema.dicom_objects.c.patient == patient)
    told = select(schema.alerts.c.id).where(schema.alerts.c.patient == patient)
    connection.execute(delete(schema.alert_steps).where(schema.alert_steps.c.alert.in_(told)))
    for named in (
        schema.exams,
        schema.reports,
        schema.vitals,
        schema.manifests,
        schema.reviews,
        schema.readings,
        schema.calls,
        schema.exports,
        schema.withdrawn_consents,
        schema.index_entries,
        schema.index_due,
        schema.patient_words,
        schema.dicom_objects,
        schema.withdrawals,
        schema.patient_links,
        schema.alerts,
        schema.referrals,
        schema.conflicts,
    ):
        connection.execute(delete(named).where(named.c.patient == patient))
    links, withdrawals = schema.patient_links, schema.withdrawals
    connection.execute(delete(links).where(links.c.same_as == patient))
    connection.execute(update(withdrawals).where(withdrawals.c.right_patient == patient).values(right_patient=None))
    audit.append(connection, actor, "erased", str(patient), f"{len(unwanted)} blobs, {at_pacs} objects at the PACS")
    return unwanted


def _devices_with(connection: Connection, patient: uuid.UUID) -> set[str]:
    """The devices that have something of a patient: what they recorded, or what went down to them."""
    sent, streams, down, entries = schema.envelopes, schema.streams, schema.outgoing, schema.index_entries
    recorded = select(streams.c.device).join(sent, sent.c.stream == streams.c.id).where(sent.c.patient == patient)
    queries = (
        recorded.distinct(),
        select(down.c.device).where(down.c.patient == patient).distinct(),
        select(entries.c.device).where(entries.c.patient == patient),
    )
    return {name for query in queries for name in connection.execute(query).scalars()}


def _send_down(connection: Connection, patient: uuid.UUID, devices: set[str], now: int) -> None:
    """Lets devices erase their copies. One that was told already is not told again."""
    table, down = schema.devices, schema.outgoing
    told = select(down.c.device).where(down.c.patient == patient, down.c.kind == Erasure.__name__)
    live = set(connection.execute(select(table.c.name).where(table.c.revoked_ms.is_(None))).scalars())
    epoch = bytes(connection.execute(select(schema.hub.c.epoch)).scalar_one())
    record = Erasure(patient=patient, at=clocks.hub_time(now), operator="hub")
    for device in sorted((devices & live) - set(connection.execute(told).scalars())):
        outgoing.put(connection, epoch, device, "erasure", record, patient=patient, exam=None, now_ms=now)


def _only_theirs(connection: Connection, patient: uuid.UUID) -> list[str]:
    table = schema.manifests
    theirs = set(connection.execute(select(table.c.sha256).where(table.c.patient == patient)).scalars())
    others = set(
        connection.execute(
            select(table.c.sha256).where(table.c.sha256.in_(theirs), table.c.patient.is_distinct_from(patient))
        ).scalars()
    )
    return sorted(theirs - others)
