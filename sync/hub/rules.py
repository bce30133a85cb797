"""Changes of clinical limits: proposed, signed by two people of two roles with their passwords, and only then sent."""

from __future__ import annotations

import hashlib
import uuid
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, insert, select, update

from aidpost.errors import UsageError
from aidpost.sync.hub import audit, deliveries, schema, users
from aidpost.sync.hub._rows import clean
from aidpost.sync.rules import ROLES, SUBJECT, Limits, RuleChange, RuleSignature, lacking


class Proposed(NamedTuple):
    """A change: for the devices of `clinic`. `state`: proposed, sent, withdrawn."""

    id: uuid.UUID
    clinic: str
    limits: Limits
    why: str
    proposed_ms: int
    proposed_by: str
    state: str
    signatures: tuple[RuleSignature, ...]


def propose(connection: Connection, clinic: str, limits: Limits, why: str, by: str, now_ms: int) -> uuid.UUID:
    """Puts a change before those who are to sign it; nothing is sent yet.

    Parameters
    ----------
    limits
        All limits that the clinic sets; none: as published again.

    Raises
    ------
    UsageError
        It has no reason.
    """
    if not why.strip():
        raise _refused(clinic, "it says no reason", "Say why, for those who sign.")
    table, number = schema.rule_changes, uuid.uuid4()
    text = msgspec.json.encode(limits, order="sorted").decode()
    row = {"id": number, "name": clean(clinic, 64), "text": text, "why": clean(why, 500), "state": "proposed"}
    connection.execute(insert(table).values(**row, proposed_ms=now_ms, proposed_by=by))
    audit.append(connection, by, "limits-proposed", f"{clinic} {number}"[:200], text[:1000])
    return number


def sign(
    connection: Connection, hub_epoch: bytes, change: uuid.UUID, user: str, password: str, now_ms: int
) -> Proposed:
    """Signs a change as a user in their role; the second signature sends it to the clinic's devices.

    Raises
    ------
    UsageError
        The password is wrong; or as `add_signature`.
    """
    if not users.check_password(connection, user, password):
        raise _refused(user, "the password is not this user's", "Try again.")
    return add_signature(connection, hub_epoch, change, user, now_ms)


def add_signature(connection: Connection, hub_epoch: bytes, change: uuid.UUID, user: str, now_ms: int) -> Proposed:
    """Signs as a user who has just proven to be there.

    Raises
    ------
    UsageError
        Nothing of that number is open, the user's role does not sign, or somebody in this role, or this person, signed
        before.
    """
    table, signatures = schema.rule_changes, schema.rule_signatures
    open_ = (table.c.id == change, table.c.state == "proposed")
    if connection.execute(select(table.c.id).where(*open_).with_for_update()).one_or_none() is None:
        raise _refused(str(change), "no change of that number is open", "aidpost hub rules list")
    person = connection.execute(select(schema.users).where(schema.users.c.name == user)).one()
    if person.role not in ROLES:
        raise _refused(user, f"a {person.role} does not sign clinical limits", f"Ask a {' or '.join(ROLES)}.")
    before = _signatures(connection, change)
    if any(one.role == person.role or one.user == user for one in before):
        raise _refused(user, f"a {person.role}, or this person, signed it before", "Two people of two roles sign.")
    row = {"change": change, "role": person.role, "user": user, "full_name": person.full_name or user}
    connection.execute(insert(signatures).values(**row, at_ms=now_ms))
    audit.append(connection, user, "limits-signed", str(change), person.role)
    signed = _signatures(connection, change)
    if not lacking(signed):
        connection.execute(update(table).where(*open_).values(state="sent"))
        found = get(connection, change)
        for device in connection.execute(
            select(schema.devices.c.name).where(
                schema.devices.c.clinic == found.clinic, schema.devices.c.revoked_ms.is_(None)
            )
        ).scalars():
            send_due(connection, hub_epoch, device, now_ms)
    return get(connection, change)


def withdraw(connection: Connection, change: uuid.UUID, by: str) -> None:
    """Takes an open change back; raises UsageError where none of that number is open."""
    table = schema.rule_changes
    open_ = (table.c.id == change, table.c.state == "proposed")
    if connection.execute(update(table).where(*open_).values(state="withdrawn")).rowcount == 0:
        raise _refused(str(change), "no change of that number is open", "aidpost hub rules list")
    audit.append(connection, by, "limits-withdrawn", str(change))


def send_due(connection: Connection, hub_epoch: bytes, device: str, now_ms: int) -> bool:
    """Sends a device the last signed change of its clinic, where that is not what it was sent last."""
    devices, sent = schema.devices, schema.deliveries
    clinic = connection.execute(select(devices.c.clinic).where(devices.c.name == device)).scalar()
    last = serving(connection, clinic) if clinic else None
    if last is None:
        return False
    body = msgspec.json.encode(RuleChange(limits=last.limits, why=last.why, signatures=last.signatures), order="sorted")
    version = f"{hashlib.sha256(body).hexdigest()[:12]}"
    mine = (sent.c.device == device, sent.c.subject == SUBJECT, sent.c.state != "withdrawn")
    had = connection.execute(select(sent.c.version).where(*mine).order_by(sent.c.serial.desc()).limit(1)).scalar()
    if had == version:
        return False
    by = " and ".join(one.user for one in last.signatures)[:100]
    deliveries.send(connection, hub_epoch, device, SUBJECT, version, body, by=by, now_ms=now_ms)
    return True


def serving(connection: Connection, clinic: str) -> Proposed | None:
    """The last change of a clinic that two people signed; None: its limits are as published, or its devices' own."""
    table = schema.rule_changes
    query = select(table.c.id).where(table.c.name == clinic, table.c.state == "sent")
    signed = [get(connection, number) for number in connection.execute(query).scalars()]
    return max(signed, key=lambda one: max(signature.at_ms for signature in one.signatures), default=None)


def get(connection: Connection, change: uuid.UUID) -> Proposed:
    """A change by its number; raises UsageError where there is none."""
    table = schema.rule_changes
    row = connection.execute(select(table).where(table.c.id == change)).one_or_none()
    if row is None:
        raise _refused(str(change), "there is no such change", "aidpost hub rules list")
    limits = msgspec.json.decode(row.text, type=Limits)
    found = _signatures(connection, change)
    return Proposed(row.id, row.name, limits, row.why, row.proposed_ms, row.proposed_by, row.state, found)


def listed(connection: Connection) -> list[Proposed]:
    """All changes, newest first."""
    table = schema.rule_changes
    query = select(table.c.id).order_by(table.c.proposed_ms.desc(), table.c.id)
    return [get(connection, number) for number in connection.execute(query).scalars()]


def _signatures(connection: Connection, change: uuid.UUID) -> tuple[RuleSignature, ...]:
    table = schema.rule_signatures
    rows = connection.execute(select(table).where(table.c.change == change).order_by(table.c.at_ms, table.c.role))
    return tuple(RuleSignature(row.user, row.full_name, row.role, row.at_ms) for row in rows)


def _refused(target: str, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="changing clinical limits", target=target, cause=cause, remedy=remedy)
