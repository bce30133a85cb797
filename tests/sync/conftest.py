"""A device's store in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from device_records import KEY, FakeClock

from aidpost.sync._space import Budget
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def open_store(tmp_path: Path, clock: FakeClock) -> Iterator[Callable[..., Store]]:
    """Opens stores, the same folder each time unless told otherwise, and closes them at the end."""
    opened: list[Store] = []

    def opener(folder: str = "state", key: DeviceKey = KEY, budget: Budget | None = None) -> Store:
        store = Store.open(tmp_path / folder, key, clock=clock, name="unit-1", budget=budget)
        opened.append(store)
        return store

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()
