"""Over a 2G link (100 kbit/s, 800 ms, 5 % loss as stalls) an urgent finding is at the hub within ten seconds."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from device_records import make_item
from hub_end import HubEnd
from slow_link import SlowLink
from sqlalchemy import select

from aidpost.sync import outbox
from aidpost.sync.envelope import RecordClass
from aidpost.sync.hub import schema
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.server import HubServer
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

LIMIT_S = 10.0
PHOTOS = 200
LINK = {"CUT_S": "15", "SEED": "1"}
"""What the environment may set: AIDPOST_LINK_CUT_S=60, AIDPOST_LINK_SEED=7. Cuts come sooner here than a network's, so
that a short test has one."""


@pytest.fixture
def hub_end(tmp_path: Path, mosquitto: Any) -> Iterator[HubEnd]:
    end = HubEnd(tmp_path / "hub", mosquitto.port)
    server = HubServer(end.config)
    server.start()
    yield end
    server.stop()


@pytest.fixture
def link(mosquitto: Any) -> Iterator[SlowLink]:
    cut_every_s, seed = (float(os.environ.get(f"AIDPOST_LINK_{key}", default)) for key, default in LINK.items())
    made = SlowLink(mosquitto.port, cut_every_s=cut_every_s, seed=int(seed))
    yield made
    made.stop()


def seconds_until(end: HubEnd, alerts: int, since: float) -> float:
    database = Database(end.config.url)
    query = select(schema.streams.c.held).where(schema.streams.c.cls == "alert")
    try:
        while time.monotonic() - since < 60:
            with database.read() as connection:
                held = connection.execute(query).scalar_one_or_none()
            if held is not None and end.committed()["alert", alerts]:
                return time.monotonic() - since
            time.sleep(0.1)
    finally:
        database.close()
    raise AssertionError("the alert is not at the hub after a minute")


def wait_for_chunks(end: HubEnd) -> None:
    """Until the hub has a piece of a photograph."""
    database = Database(end.config.url)
    deadline = time.monotonic() + 120
    rows: list[object] = []
    while not rows:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        with database.read() as connection:
            rows = list(connection.execute(select(schema.partials.c.sha256)))
    database.close()


def test_an_alert_behind_200_photographs_is_at_the_hub_within_ten_seconds(
    open_store: Callable[..., Store], hub_end: HubEnd, link: SlowLink
) -> None:
    store = open_store()
    device_link = dataclasses.replace(hub_end.enroll(store), port=link.port)
    store.append(make_item(RecordClass.REPORT, *[os.urandom(20_000) for _ in range(PHOTOS)]))
    store.append(make_item(RecordClass.ALERT))
    with Publisher(store, device_link):
        time.sleep(4)  # without a network: it tries again ever more slowly
        link.up()
        first = seconds_until(hub_end, 1, time.monotonic())
        wait_for_chunks(hub_end)
        recorded = time.monotonic()
        store.append(make_item(RecordClass.ALERT))
        second = seconds_until(hub_end, 2, recorded)
        deadline = time.monotonic() + 180
        while not link.cuts:
            assert time.monotonic() < deadline, "the link is cut every minute"
            time.sleep(0.2)
        recorded = time.monotonic()
        store.append(make_item(RecordClass.ALERT))
        third = seconds_until(hub_end, 3, recorded)
    print(f"alert after the link came up {first:.1f} s, behind photographs {second:.1f} s, after a cut {third:.1f} s")
    assert outbox.blob_status(store).queued > PHOTOS / 2, "there was a backlog all the time"
    assert first < LIMIT_S
    assert second < LIMIT_S
