"""The sender's thread: whatever the store or the broker does, it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from device_records import make_item
from failing_card import FailingCard
from hub_end import HubEnd

from aidpost.errors import StoreError
from aidpost.sync import publisher as module
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.service import HubService
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store


@pytest.fixture
def card(store: Store, monkeypatch: pytest.MonkeyPatch) -> FailingCard:
    monkeypatch.setattr(module, "_RECONNECT_S", (0.01, 0.02))
    card = FailingCard(store._reader)
    monkeypatch.setattr(store, "_reader", card)
    return card


def test_what_the_store_cannot_read_is_said_in_its_own_words(store: Store, card: FailingCard) -> None:
    card.broken = True
    with pytest.raises(StoreError, match=r"reading the store.*disk I/O error"):
        store.reports()


def test_sender_outlives_a_card_that_fails_while_connected(
    tmp_path: Path, mosquitto: Any, store: Store, card: FailingCard
) -> None:
    end = HubEnd(tmp_path / "hub", mosquitto.port)
    link, database = end.enroll(store), Database(end.config.url)
    hub = HubService(end.config, database, BlobFiles(end.config.blobs))
    hub.start()
    try:
        with Publisher(store, link) as sender:
            store.append(make_item())
            assert sender.wait_until_empty(30), sender.last_error
            card.fails(20)
            store.append(make_item())
            assert sender.wait_until_empty(30), sender.last_error
    finally:
        hub.stop()
        database.close()
    assert set(end.committed().values()) == {1}
    assert len(end.reports()) == 2


def test_sender_outlives_a_card_that_fails_while_no_broker_is_there(store: Store, card: FailingCard) -> None:
    with Publisher(store, Link("127.0.0.1", 1, "hub", store.identity.public)) as sender:
        card.fails(20)
        assert sender._thread is not None
        assert sender._thread.is_alive()
