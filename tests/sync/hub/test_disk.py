"""A hub whose disk is full says so, keeps its pages, takes what it can, and receipts nothing that it has not."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from aidpost.sync.envelope import CHUNK, Chunk, Chunks
from aidpost.sync.hub import schema
from aidpost.sync.hub._chinese import CHINESE
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, Hub, held_of, hub_with, make_report
from .web_client import Client

FULL = "The hub cannot store anything: is its disk full? Devices keep their records and send them when it can."
SHORT = "The hub&#39;s disk is nearly full: photographs and traces wait on the devices, reports come in."


def photograph() -> tuple[str, Chunks]:
    data = random.Random(1).randbytes(CHUNK // 2)
    digest = hashlib.sha256(data)
    return digest.hexdigest(), Chunks((Chunk(digest.digest(), len(data), 0, data),))


def test_a_disk_that_is_nearly_full_is_kept_for_records(
    hub: Hub, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, chunks = photograph()
    free = [hub.config.reserve_mb * (1 << 20) - 1]
    monkeypatch.setattr(type(hub.files), "free_bytes", lambda self: free[0])
    receipts = hub.take(device, device.sign(chunks), device.message(device.envelope(make_report())))
    assert held_of(receipts, "report") == {1}
    assert [one.blobs for one in receipts] == [()], "no word of the photograph: the device sends it again"
    assert not hub.files.has_partial(device.name, sha256)
    free[0] += 1
    (receipt,) = hub.take(device, device.sign(chunks))
    assert receipt.blobs[0].complete
    free[0] = 0
    (receipt,) = hub.take(device, device.sign(chunks))
    assert receipt.blobs[0].complete, "what is here is here"


@pytest.fixture
def root(server: HubServer) -> Client:
    client = Client(server.url)
    assert client.log_in("root") == 303
    return client


@hub_with(broker_host="127.0.0.1", broker_port=1)
def test_pages_health_and_metrics_say_that_nothing_can_be_stored(server: HubServer, root: Client) -> None:
    assert server.service is not None
    server.service._fault = "database or disk is full"
    for page in ("/", "/devices", "/alerts"):
        assert root.get(page) == 200
        assert FULL in root.text
    assert (root.get("/healthz"), json.loads(root.body)["status"]) == (503, "records cannot be stored")
    root.get("/metrics")
    assert "aidpost_cannot_store 1\n" in root.text
    server.service._fault = ""
    root.get("/")
    assert FULL not in root.text
    assert root.get("/healthz") == 200
    root.get("/metrics")
    assert "aidpost_cannot_store 0\n" in root.text


@hub_with(broker_host="127.0.0.1", broker_port=1, reserve_mb=1 << 40)
def test_pages_say_that_photographs_wait(server: HubServer, root: Client) -> None:
    root.get("/")
    assert SHORT in root.text
    assert (root.get("/healthz"), json.loads(root.body)["status"]) == (200, "disk nearly full")
    root.get("/?lang=zh")
    assert CHINESE[SHORT.replace("&#39;", "'")] in root.text


def test_a_page_that_needs_no_writing_is_there_and_one_that_does_says_why(
    server: HubServer, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def full(*_: Any) -> Iterator[None]:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        yield

    with server.database.write() as connection:  # long enough ago for the next use to be noted
        connection.execute(update(schema.sessions).values(used_ms=now_ms() - 120_000))
    monkeypatch.setattr(server.database, "write", full)
    for page in ("/", "/devices", "/alerts", "/audit"):
        assert root.get(page) == 200, page
    client = Client(server.url)
    assert client.log_in("okoro") == 503
    assert "cannot take this now" in client.text
