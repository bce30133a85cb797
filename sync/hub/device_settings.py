"""What devices are set to from here: of a clinic, and over that of one device. The whole goes down as one delivery when
it differs from what the device was sent last; the device checks it as its own file, and says what came of it."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, delete, insert, select

from aidpost.errors import UsageError
from aidpost.sync import settings
from aidpost.sync.hub import audit, deliveries, schema
from aidpost.sync.settings import REMOTE, SUBJECT, Value

Scope = Literal["clinic", "device"]


def change(
    connection: Connection,
    hub_epoch: bytes,
    scope: Scope,
    name: str,
    key: str,
    value: Value | None,
    by: str,
    now_ms: int,
) -> list[str]:
    """Sets a key of a clinic's devices or of one device, or with None leaves it to the device's own file again; it is
    sent down with the caller's commit.

    Returns
    -------
    list of str
        The devices that it was sent to.

    Raises
    ------
    UsageError
        It is not a key that may be set from here, or there is no such device or clinic.
    """
    if key not in REMOTE:
        raise _refused(key, "a hub may not change this key", f"It may change {', '.join(REMOTE)}.")
    affected = devices_of(connection, scope, name)
    if not affected:
        raise _refused(
            name, f"no device is enrolled of this {scope if scope == 'clinic' else 'name'}", "See the devices page."
        )
    table = schema.device_settings
    here = (table.c.scope == scope, table.c.name == name, table.c.key == key)
    connection.execute(delete(table).where(*here))
    if value is not None:
        row = {"scope": scope, "name": name, "key": key, "value": msgspec.json.encode(value).decode()}
        connection.execute(insert(table).values(**row, by=by, at_ms=now_ms))
    said = "as its own file" if value is None else str(value)
    audit.append(connection, by, "setting-changed", f"{scope} {name} {key}"[:200], said[:500])
    return [device for device in affected if send_due(connection, hub_epoch, device, by, now_ms)]


def desired(connection: Connection, device: str) -> dict[str, Value]:
    """What a device is to be set to."""
    table, devices = schema.device_settings, schema.devices
    clinic = connection.execute(select(devices.c.clinic).where(devices.c.name == device)).scalar() or ""
    rows = connection.execute(
        select(table.c.key, table.c.value)
        .where(
            ((table.c.scope == "clinic") & (table.c.name == clinic))
            | ((table.c.scope == "device") & (table.c.name == device))
        )
        .order_by(table.c.scope)  # clinic before device, whose own goes over it
    )
    return {row.key: msgspec.json.decode(row.value) for row in rows}


def send_due(connection: Connection, hub_epoch: bytes, device: str, by: str, now_ms: int) -> bool:
    """Sends a device its settings where they differ from what it was sent last."""
    body = settings.pack(desired(connection, device))
    version = hashlib.sha256(body).hexdigest()[:12]
    table = schema.deliveries
    mine = (table.c.device == device, table.c.subject == SUBJECT, table.c.state != "withdrawn")
    last = connection.execute(select(table.c.version).where(*mine).order_by(table.c.serial.desc()).limit(1)).scalar()
    if last == version or (last is None and body == b"{}"):
        return False
    deliveries.send(connection, hub_epoch, device, SUBJECT, version, body, by=by, now_ms=now_ms)
    return True


def listed(connection: Connection) -> list[Any]:
    """Every setting: scope, name, key, value (JSON), by, at_ms."""
    table = schema.device_settings
    return list(connection.execute(select(table).order_by(table.c.scope, table.c.name, table.c.key)))


def devices_of(connection: Connection, scope: Scope, name: str) -> list[str]:
    """The devices of a clinic, or the one of that name; none where there are none that are enrolled."""
    table = schema.devices
    column = table.c.clinic if scope == "clinic" else table.c.name
    query = select(table.c.name).where(column == name, table.c.revoked_ms.is_(None)).order_by(table.c.name)
    return list(connection.execute(query).scalars())


def _refused(target: str, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="setting devices", target=target, cause=cause, remedy=remedy)
