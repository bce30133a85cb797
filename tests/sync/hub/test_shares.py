"""Workers that share the devices among themselves: one owner each, and nobody's share is left lying."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from aidpost.errors import ConfigurationError
from aidpost.sync.hub import schema
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.shares import SILENT_S, Shares, _weight

DEVICES = [f"unit-{number}" for number in range(60)]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database(config: HubConfig) -> Iterator[Database]:
    made = Database(config.url)
    yield made
    made.close()


def owners(workers: list[Shares]) -> dict[str, list[str]]:
    return {device: [worker._name for worker in workers if worker.is_mine(device)] for device in DEVICES}


@pytest.mark.both_databases
def test_each_device_has_one_worker_and_a_silent_one_is_replaced(database: Database) -> None:
    clocks = [Clock(), Clock(), Clock()]
    workers = [Shares(database, name, clock) for name, clock in zip("abc", clocks, strict=True)]
    assert workers[0].is_mine("unit-1"), "who is alone takes everything"
    for _ in range(2):
        for worker in workers:
            worker.beat()
    before = owners(workers)
    assert {len(found) for found in before.values()} == {1}
    assert {found[0] for found in before.values()} == set("abc")
    for step in range(1, 4):
        for worker, clock in zip(workers[:2], clocks, strict=False):
            clock.now = 1000 + step * SILENT_S / 2
            worker.beat()
    left = owners(workers[:2])
    for device, found in before.items():
        assert len(left[device]) == 1
        assert found == ["c"] or left[device] == found, "only the share of who is gone moves"
    workers[2].beat()
    for worker in workers:
        worker.beat()
    assert owners(workers) == before, "who comes back has the same share again"


def test_who_leaves_in_order_is_replaced_at_once_and_a_name_is_not_kept_for_ever(database: Database) -> None:
    clock = Clock()
    here, there, gone = (Shares(database, name, clock) for name in ("here", "there", "gone"))
    for worker in (here, there, gone):
        worker.beat()
    assert here.beat()
    there.leave()
    assert here.beat()
    assert here.alive == ("gone", "here")
    for _ in range(400):
        clock.now += SILENT_S
        here.beat()
    with database.read() as connection:
        assert connection.execute(select(schema.workers.c.name)).scalars().all() == ["here"]


@given(st.sets(st.text("abcdef", min_size=1), min_size=2), st.text(min_size=1, max_size=64))
def test_a_device_moves_only_with_its_own_worker(names: set[str], device: str) -> None:
    owner = max(names, key=lambda name: _weight(name, device))
    for other in names - {owner}:
        assert max(names - {other}, key=lambda name: _weight(name, device)) == owner


def test_workers_that_share_need_names_and_share_in_one_way() -> None:
    with pytest.raises(ConfigurationError, match="worker"):
        HubConfig(state_dir="x", share_devices=True)
    with pytest.raises(ConfigurationError, match="share_devices"):
        HubConfig(state_dir="x", share_devices=True, worker="a", shared_group="g")
