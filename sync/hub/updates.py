"""Updates of devices, as the hub sees them: what each device's came to, and the halt of a bad one. The releases
themselves are signed elsewhere; the hub can only keep devices from one, and a person lets it go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from aidpost.errors import UsageError
from aidpost.sync.envelope import Installed
from aidpost.sync.hub import audit, schema
from aidpost.sync.hub._rows import clean, insert_new
from aidpost.sync.hub.config import HubConfig


def note(connection: Connection, config: HubConfig, device: str, installed: Sequence[Installed], now_ms: int) -> None:
    """Keeps what a device says of its updates, and halts what too many devices have taken back."""
    table = schema.device_updates
    said = {(one.name, one.version): (one.state, clean(one.why, 300)) for one in installed}
    rows = connection.execute(select(table).where(table.c.device == device)).all()
    known = {(row.name, row.version): (row.state, row.why) for row in rows}
    if said == known:
        return
    for name, version in (key for key in known if said.get(key) != known[key]):
        connection.execute(
            delete(table).where(table.c.device == device, table.c.name == name, table.c.version == version)
        )
    new = {key: value for key, value in said.items() if known.get(key) != value}
    if new:
        rows_of = [
            {"device": device, "name": name, "version": version, "state": state, "why": why, "since_ms": now_ms}
            for (name, version), (state, why) in new.items()
        ]
        connection.execute(insert(table), rows_of)
    for (name, version), (state, why) in new.items():
        if state == "failed":
            audit.append(connection, device, "update-failed", f"{name} {version}"[:64], why)
            _judge(connection, config, name, version, now_ms)


class Rollout(NamedTuple):
    """One version in the fleet: on how many devices it serves, is on trial and failed, why at the last, and since when
    it is halted (None: it is not)."""

    name: str
    version: str
    serves: int
    trial: int
    failed: int
    why: str
    halted_ms: int | None


def rollouts(connection: Connection) -> list[Rollout]:
    """Every version that a device told of and every halt, by name, the one told of last first. Devices that were
    revoked do not count."""
    table, devices, halts = schema.device_updates, schema.devices, schema.update_halts
    query = (
        select(table.c.name, table.c.version, table.c.state, table.c.why, table.c.since_ms)
        .join(devices, devices.c.name == table.c.device)
        .where(devices.c.revoked_ms.is_(None))
        .order_by(table.c.since_ms)
    )
    found: dict[tuple[str, str], Rollout] = {}
    last: dict[tuple[str, str], int] = {}
    for row in connection.execute(query):
        key = row.name, row.version
        one = found.get(key, Rollout(row.name, row.version, 0, 0, 0, "", None))
        counted = {row.state: getattr(one, row.state) + 1}
        found[key], last[key] = one._replace(why=row.why or one.why, **counted), row.since_ms
    for halt in connection.execute(select(halts).where(halts.c.lifted_ms.is_(None))):
        key = halt.name, halt.version
        one = found.get(key, Rollout(halt.name, halt.version, 0, 0, 0, "", None))
        found[key] = one._replace(halted_ms=halt.halted_ms, why=one.why or halt.why)
        last.setdefault(key, halt.halted_ms)
    return sorted(found.values(), key=lambda one: (one.name, -last[one.name, one.version]))


def halted(connection: Connection) -> list[tuple[str, str]]:
    """Names and versions that no device takes now."""
    table = schema.update_halts
    query = (
        select(table.c.name, table.c.version).where(table.c.lifted_ms.is_(None)).order_by(table.c.name, table.c.version)
    )
    return sorted((row.name, row.version) for row in connection.execute(query))


def _judge(connection: Connection, config: HubConfig, name: str, version: str, now_ms: int) -> None:
    """Halts a version when so many devices, and so large a share of those where it came to an end, took it back."""
    table, devices, halts = schema.device_updates, schema.devices, schema.update_halts
    # two hubs on one database, or two messages, must not both count to one below the limit
    connection.execute(select(schema.hub.c.id).with_for_update())
    query = (
        select(table.c.state, func.count())
        .join(devices, devices.c.name == table.c.device)
        .where(table.c.name == name, table.c.version == version, devices.c.revoked_ms.is_(None))
        .group_by(table.c.state)
    )
    counted = {row[0]: row[1] for row in connection.execute(query)}
    failed, ended = counted.get("failed", 0), counted.get("failed", 0) + counted.get("serves", 0)
    if failed < config.update_halt_failures or failed < config.update_halt_share * ended:
        return
    known = connection.execute(select(halts).where(halts.c.name == name, halts.c.version == version)).one_or_none()
    # one that a person has let go on is theirs from then on
    if known is None:
        halt(connection, name, version, f"{failed} of {ended} devices took it back", "hub", now_ms)


def halt(connection: Connection, name: str, version: str, why: str, by: str, now_ms: int) -> None:
    """Keeps every device that has not taken it yet from a version."""
    table = schema.update_halts
    row = {"name": name, "version": version, "halted_ms": now_ms, "why": clean(why, 300), "by": by}
    insert_new(connection, table, [row])
    connection.execute(
        update(table).where(table.c.name == name, table.c.version == version).values(**row, lifted_ms=None)
    )
    audit.append(connection, by, "update-halted", f"{name} {version}"[:64], why)


def resume(connection: Connection, name: str, version: str, by: str, now_ms: int) -> None:
    """Lets a halted version go on; the hub does not halt it by itself again.

    Raises
    ------
    UsageError
        It is not halted.
    """
    table = schema.update_halts
    halting = (table.c.name == name, table.c.version == version, table.c.lifted_ms.is_(None))
    if connection.execute(update(table).where(*halting).values(lifted_ms=now_ms)).rowcount == 0:
        raise UsageError(
            operation="letting an update go on",
            target=f"{name} {version}",
            cause="it is not halted",
            remedy="aidpost hub updates",
        )
    audit.append(connection, by, "update-resumed", f"{name} {version}"[:64])
