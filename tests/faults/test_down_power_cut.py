"""A power cut at any moment of taking up what the hub sent: what was said to be taken up is, once, and chunks that were
asked for no more are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from aidpost.board import remote
from aidpost.board.configuration import Configuration
from aidpost.errors import AidpostError
from aidpost.sync import ranges

from .conftest import load


@pytest.fixture(scope="module")
def down(harness: ModuleType) -> ModuleType:
    return load("down_workload")


@pytest.fixture(autouse=True)
def without_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at lies in a folder of the test's: no need to wait for the machine's own disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Check:
    """What must hold of a device's folder after a cut."""

    def __init__(self, down: ModuleType) -> None:
        self._down = down

    def __call__(self, image: Path, acknowledged: Iterable[bytes]) -> str | None:
        told = [json.loads(line) for lines in acknowledged for line in lines.splitlines()]
        state = image / "state"
        if not state.exists():
            return "nothing is there" if told else None
        try:
            return self._kept(state, {key: value for one in told for key, value in one.items()})
        except AidpostError as error:
            return f"it cannot be read: {error}"

    def _kept(self, state: Path, told: dict[str, int]) -> str | None:
        down, at = self._down, told.get("settings", -1)
        now = remote.applied(Configuration(), state).clinic.emergency_telephone
        if at >= 0 and now not in down.SETTINGS[at:]:
            return f"{down.SETTINGS[at]} was taken up, and {now!r} serves"
        store, applier = down.opened(state)
        try:
            if store.deliveries.last_applied("config") < at + 1:
                return "the store does not know any more what was taken up"
            held = ranges.count(store.deliveries.held(down.chunks()[0].sha256, len(down.LARGE)))
            ended = told.get("round") or store.deliveries.last_applied("round")
            if not ended and held < min(told.get("chunks", 0) * down.CHUNK, len(down.LARGE)):
                return "chunks are gone"
            # the hub sends the rest again, and what the device knows is held and not taken up twice
            rows = store.read("SELECT cls, seq FROM delivery WHERE state = 'applied'")
            store.inbox.keep([down.large(), *(down.number(one) for one in range(len(down.SETTINGS)))], 1)
            store.deliveries.keep_chunks(down.chunks())
            while applier.turn():
                pass
            outcomes = store.read("SELECT count(*) FROM record WHERE kind = 'Outcome'")[0][0]
            if store.read("SELECT count(*) FROM delivery WHERE state IN ('waiting', 'held')") != [(0,)]:
                return "it does not come to an end"
            if outcomes != len(down.SETTINGS) + 1 or len(rows) > outcomes:
                return f"{outcomes} outcomes of {len(down.SETTINGS) + 1} deliveries"
        finally:
            store.close()
        now = remote.applied(Configuration(), state).clinic.emergency_telephone
        return None if now == down.SETTINGS[-1] else f"in the end {now!r} serves"


@pytest.fixture(scope="module")
def trace(harness: ModuleType, shim: Path, down: ModuleType, tmp_path_factory):  # type: ignore[no-untyped-def]
    return harness.traced(shim, tmp_path_factory.mktemp("traced"), workload="down_workload.py")


def test_what_was_taken_up_stays_so_after_a_cut_at_any_moment(  # type: ignore[no-untyped-def]
    harness: ModuleType, down: ModuleType, trace, tmp_path: Path
) -> None:
    looked, found = harness.violations(trace, tmp_path, check=Check(down))
    assert looked > 100
    assert found == []


@pytest.mark.parametrize(
    ("what", "left_out"),
    [
        ("the settings", lambda one: "hub-settings" in one.path),
        ("their name", lambda one: one.path == "state"),
        ("the store", lambda one: "store.sqlite3" in one.path),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_leaving_out_any_sync_breaks_a_promise(  # type: ignore[no-untyped-def]
    what: str, left_out, harness: ModuleType, down: ModuleType, trace, tmp_path: Path
) -> None:
    variants = ("nothing more", "names survive")
    _, found = harness.violations(
        trace, tmp_path, skip=left_out, variants=variants, stop_at_first=True, check=Check(down)
    )
    assert found, f"nothing goes wrong without the sync of {what}"
