"""What a person does with a hub: enrol a device, erase a patient, open a round. One call each, for the command line;
users are in `accounts`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import insert, select, update
from sqlalchemy.exc import DataError, SQLAlchemyError

from aidpost.errors import StoreError, UsageError
from aidpost.sync.envelope import Chunks, Envelope, Receipt, pack_message
from aidpost.sync.hub import (
    _round_phases,
    audit,
    deliveries,
    device_settings,
    enrolment,
    identity,
    index,
    outgoing,
    person,
    rounds,
    rules,
    schema,
    updates,
)
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.rules import Limits
from aidpost.sync.settings import Value
from aidpost.sync.topics import is_device_name

_RECORD_FAULTS = (DataError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError)
"""What a record's values can do to a database or to this program, as in `ingest`."""


def enroll(
    config: HubConfig,
    device_id: str,
    public_key: bytes,
    *,
    clinic: str = "",
    accept_simulated: bool | None = None,
    replace: bool = False,
) -> None:
    """Makes a device known to this hub.

    Parameters
    ----------
    public_key
        The 32 bytes of the Ed25519 key made on the device.
    accept_simulated
        None: as the hub's configuration says for all.
    replace
        Take a new key for a device that is enrolled already.

    Raises
    ------
    UsageError
        The name cannot stand in a topic, the key is not one, or another key is enrolled under this name.
    """
    if not is_device_name(device_id):
        raise _refused(repr(device_id), "a name has 1 to 64 of A-Z a-z 0-9 _ . -", "Choose another name.")
    identity.device_key(public_key, device_id)
    table = schema.devices
    values = {"public_key": public_key, "clinic": clinic, "accept_simulated": accept_simulated, "revoked_ms": None}
    with opened(config) as database, database.write() as connection:
        row = connection.execute(select(table).where(table.c.name == device_id)).one_or_none()
        if row is not None and bytes(row.public_key) != public_key and not replace:
            raise _refused(device_id, "another key is enrolled under this name", "If the device is new, replace it.")
        if row is None:
            connection.execute(insert(table).values(name=device_id, enrolled_ms=now_ms(), **values))
        else:
            index.enrolled_again(connection, row, public_key, clinic, now_ms())
            connection.execute(update(table).where(table.c.name == device_id).values(**values))
        audit.append(connection, "command-line", "enrolled", device_id, public_key.hex())


def enrolment_code(config: HubConfig, device_id: str, *, clinic: str = "", hours: float = 24.0) -> str:
    """A code with which a device enrols itself, once: `enrolment.make_code`."""
    with opened(config) as database:
        return enrolment.make_code(config, database, device_id, clinic=clinic, hours=hours)


def revoke(config: HubConfig, device_id: str) -> None:
    """Takes nothing from a device any longer: lost or stolen. What it sent before stays.

    Raises
    ------
    UsageError
        No such device.
    """
    table = schema.devices
    with opened(config) as database, database.write() as connection:
        changed = connection.execute(update(table).where(table.c.name == device_id).values(revoked_ms=now_ms()))
        if changed.rowcount == 0:
            raise UsageError(
                operation="revoking a device", target=device_id, cause="no such device", remedy="See the devices page."
            )
        audit.append(connection, "command-line", "revoked", device_id)


def export_patient(config: HubConfig, patient: uuid.UUID, out: IO[bytes]) -> int:
    """All that the hub has of one person: `person.export`.

    Raises
    ------
    UsageError
        There is nobody of that number.
    """
    with opened(config) as database, database.write() as connection:
        records = person.export(connection, BlobFiles(config.blobs), patient, out)
        if not records:
            raise _nobody("exporting a patient", patient)
        audit.append(connection, "command-line", "patient-exported", str(patient))
    return records


def erase_patient(config: HubConfig, patient: uuid.UUID) -> int:
    """Erases one person for good: `person.erase`.

    Raises
    ------
    UsageError
        There is nobody of that number.
    """
    with opened(config) as database:
        found = person.erase(database, BlobFiles(config.blobs), patient, "command-line")
    if not found:
        raise _nobody("erasing a patient", patient)
    return found


def public_key(config: HubConfig) -> bytes:
    """The hub's 32-byte public key, which devices are given at enrolment. Made if there is none."""
    return identity.public_key(config.state)


def verify_audit(config: HubConfig) -> audit.AuditState:
    """Recomputes the whole audit log."""
    with opened(config) as database, database.read() as connection:
        return audit.verify(connection)


def rollouts(config: HubConfig) -> list[updates.Rollout]:
    """Each version of releases and models in the fleet."""
    with opened(config) as database, database.read() as connection:
        return updates.rollouts(connection)


def halt_update(config: HubConfig, name: str, version: str, why: str) -> None:
    """Keeps devices from a version."""
    with opened(config) as database, database.write() as connection:
        updates.halt(connection, name, version, why, "command-line", now_ms())


def resume_update(config: HubConfig, name: str, version: str) -> None:
    """Lets a halted version go on; raises UsageError where it is not halted."""
    with opened(config) as database, database.write() as connection:
        updates.resume(connection, name, version, "command-line", now_ms())


def open_round(config: HubConfig, plan: rounds.Plan) -> rounds.Progress:
    """Announces a federated round: `rounds.open_round`."""
    with opened(config) as database, database.write() as connection:
        number = rounds.open_round(connection, database.epoch, plan, "command-line", now_ms())
        return rounds.progress(connection, schema.rounds.c.id == number)[0]


def close_round(config: HubConfig, which: str) -> rounds.Progress:
    """Ends the phase of a round now, whoever is missing.

    Raises
    ------
    UsageError
        There is no such round, or it is over.
    """
    with opened(config) as database, database.write() as connection:
        row = rounds.find(connection, which)
        if row.state != "open":
            raise UsageError(
                operation="closing a round", target=which, cause=f"it is {row.state}", remedy="Open another one."
            )
        audit.append(connection, "command-line", "round-phase-ended", str(row.id), row.phase)
        _round_phases.advance(connection, database.epoch, now_ms(), close=row.id)
        return rounds.progress(connection, schema.rounds.c.id == row.id)[0]


def round_progress(config: HubConfig, which: str = "") -> list[rounds.Progress]:
    """All rounds, or one, as they stand now."""
    with opened(config) as database, database.write() as connection:
        _round_phases.advance(connection, database.epoch, now_ms())
        where = schema.rounds.c.id == rounds.find(connection, which).id if which else None
        return rounds.progress(connection, where)


def set_devices(config: HubConfig, scope: device_settings.Scope, name: str, key: str, value: Value | None) -> list[str]:
    """Sets a key of a clinic's devices, or of one; gives those it was sent to. Raises as `device_settings.change`."""
    with opened(config) as database, database.write() as connection:
        return device_settings.change(connection, database.epoch, scope, name, key, value, "command-line", now_ms())


def settings_of(config: HubConfig) -> list[dict[str, object]]:
    """Every setting that devices are sent."""
    with opened(config) as database, database.read() as connection:
        return [dict(row._mapping) for row in device_settings.listed(connection)]


def send_update(config: HubConfig, scope: device_settings.Scope, name: str, bundle: Path, version: str) -> list[str]:
    """Sends a signed bundle down to a clinic's devices, or to one; gives those that it was sent to.

    Raises
    ------
    UsageError
        There is no such device or clinic.
    """
    with opened(config) as database, database.write() as connection:
        found = device_settings.devices_of(connection, scope, name)
        if not found:
            raise UsageError(
                operation="sending an update", target=name, cause="no such device or clinic", remedy="aidpost hub sent"
            )
        for device in found:
            deliveries.send(
                connection, database.epoch, device, "update", version, bundle, by="command-line", now_ms=now_ms()
            )
    return found


def propose_limits(config: HubConfig, clinic: str, limits: Limits, why: str) -> uuid.UUID:
    """Puts a change of clinical limits before those who are to sign it; raises as `rules.propose`."""
    with opened(config) as database, database.write() as connection:
        return rules.propose(connection, clinic, limits, why, "command-line", now_ms())


def sign_limits(config: HubConfig, change: uuid.UUID, user: str, password: str) -> rules.Proposed:
    """Signs it as a user; raises as `rules.sign`."""
    with opened(config) as database, database.write() as connection:
        return rules.sign(connection, database.epoch, change, user, password, now_ms())


def withdraw_limits(config: HubConfig, change: uuid.UUID) -> None:
    """Takes a change back that is not signed yet; raises as `rules.withdraw`."""
    with opened(config) as database, database.write() as connection:
        rules.withdraw(connection, change, "command-line")


def limit_changes(config: HubConfig) -> list[rules.Proposed]:
    """Every change of clinical limits, newest first."""
    with opened(config) as database, database.read() as connection:
        return rules.listed(connection)


def take_messages(config: HubConfig, messages: Sequence[bytes]) -> list[bytes]:
    """Ingests signed messages that came another way than by MQTT, from a stick, and returns the signed receipts to
    carry back. What also came by MQTT counts once. A running hub is not disturbed.

    Raises
    ------
    StoreError
        The database or the disk failed; nothing of this call was receipted, and it may be repeated.
    """
    key = identity.signing_key(config.state)
    batch = [Incoming(None, message, now_ms()) for message in messages]
    with opened(config) as database:
        ingest = Ingest(database, BlobFiles(config.blobs), config)
        try:
            try:
                replies = ingest.ingest(batch)
            except _RECORD_FAULTS:
                # one record that cannot be kept must not hold up the rest of the stick
                replies = [reply for incoming in batch for reply in ingest.ingest_singly(incoming)]
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(
                operation="taking messages from a stick",
                target=str(config.state),
                cause=str(getattr(error, "orig", error)),
                remedy="Make room on the disk, or repair the database, and take the stick again.",
            ) from None
    # what the device asked for in chunks, the stick carries whole: `delivery_chunks`
    receipts = [reply for reply in replies if isinstance(reply.content, Receipt)]
    return [pack_message(reply.content, sender=config.name, key=key, recipient=reply.device) for reply in receipts]


def device_keys(config: HubConfig) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The public keys of the devices that are enrolled and not revoked; and the keys before, of those whose are taken
    still."""
    table = schema.devices
    with opened(config) as database, database.read() as connection:
        rows = connection.execute(select(table).where(table.c.revoked_ms.is_(None))).all()
    before = {row.name: key for row in rows if (key := identity.previous_key(row, now_ms()))}
    return {row.name: bytes(row.public_key) for row in rows}, before


def waiting_for(config: HubConfig, device: str) -> Iterator[Envelope]:
    """What waits to go down to a device, for a stick; rounds first go on by what it brought."""
    with opened(config) as database:
        index.bring_up(database, now_ms())
        with database.write() as connection:
            _round_phases.advance(connection, database.epoch, now_ms())
        with database.read() as connection:
            yield from outgoing.waiting_for(connection, device)


def delivery_chunks(config: HubConfig, device: str) -> Iterator[Chunks]:
    """What a device lacks of the large bodies that go down to it, for a stick."""
    with opened(config) as database, database.read() as connection:
        yield from deliveries.lacking(connection, device)


def fleet(config: HubConfig) -> list[deliveries.Sent]:
    """What each device has of what was last sent down to it."""
    with opened(config) as database, database.read() as connection:
        return deliveries.latest(connection)


@contextmanager
def opened(config: HubConfig) -> Iterator[Database]:
    """The hub's database, closed afterwards."""
    database = Database(config.url)
    try:
        yield database
    finally:
        database.close()


def _nobody(operation: str, patient: uuid.UUID) -> UsageError:
    return UsageError(
        operation=operation, target=str(patient), cause="the hub has nobody of that number", remedy="See their page."
    )


def _refused(device_id: str, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="enrolling a device", target=device_id, cause=cause, remedy=remedy)
