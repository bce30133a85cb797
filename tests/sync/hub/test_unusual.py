"""Access unlike a user's own is flagged; their usual work is not."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from aidpost.sync.hub import schema, unusual
from aidpost.sync.hub.server import HubServer
from aidpost.sync.hub.unusual import DAY_MS, HOUR_MS

from .conftest import Hub
from .web_client import logged_in

NOW = 20_000 * DAY_MS + 15 * HOUR_MS


def note(hub: Hub, who: str, action: str, number: int, at_ms: int) -> None:
    with hub.database.write() as connection:
        last = connection.execute(schema.audit.select()).all()
        row = {"actor": who, "action": action, "target": "", "detail": "", "hash": b""}
        rows = [row | {"id": len(last) + n + 1, "at_ms": at_ms + n} for n in range(number)]
        connection.execute(insert(schema.audit), rows)


def found(hub: Hub) -> list[tuple[str, str, int]]:
    with hub.database.read() as connection:
        return [(one.who, one.what, one.number) for one in unusual.find(connection, NOW)]


@pytest.mark.both_databases
def test_many_patients_in_an_hour_and_a_strange_hour_are_flagged_against_the_users_own(hub: Hub) -> None:
    for day in range(1, 21):
        note(hub, "okoro", "exam-opened", 12, NOW - day * DAY_MS)
        note(hub, "adeyemi", "exam-opened", 3, NOW - day * DAY_MS)
    assert found(hub) == []
    note(hub, "okoro", "exam-opened", 40, NOW - HOUR_MS)  # a busy day of hers
    note(hub, "adeyemi", "exam-opened", 40, NOW - HOUR_MS)
    assert found(hub) == [("adeyemi", "many", 40)]
    note(hub, "okoro", "patient-opened", 1, NOW - 13 * HOUR_MS)  # two in the night
    assert found(hub) == [("adeyemi", "many", 40), ("okoro", "hour", 1)]


def test_exports_and_searching_through_names_are_flagged_and_old_ones_are_not(hub: Hub) -> None:
    note(hub, "root", "exported", 1, NOW - HOUR_MS)
    note(hub, "viewer", "patients-searched", 31, NOW - 2 * HOUR_MS)
    note(hub, "viewer", "patients-searched", 29, NOW - 4 * HOUR_MS)
    note(hub, "root", "patient-exported", 1, NOW - 8 * DAY_MS)
    assert found(hub) == [("root", "export", 1), ("viewer", "searches", 31)]


def test_audit_page_and_metrics_show_it(server: HubServer) -> None:
    client = logged_in(server, "root")
    assert client.get("/export.csv") == 200
    assert client.get("/audit") == 200
    assert "Unusual access" in client.text
    assert client.get("/metrics") == 200
    assert "aidpost_unusual_access 1" in client.text
