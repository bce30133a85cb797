"""A power cut at any moment keeps every promise, and each fsync is there because one would be broken without it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

# every fsync of ours, by the functions that lead to it; the test below proves the list complete
PLACES = (
    "write_file<write",
    "write_file<replace_file",
    "sync_folder<replace_file",
    "sync_folder<make_folder",
    "sync_folder<write",
)


def test_no_promise_is_broken_by_a_cut_at_any_moment(harness: ModuleType, shim: Path, tmp_path: Path) -> None:
    trace = harness.traced(shim, tmp_path, 1)
    assert sum(one.path == "acknowledged" and b'"seq"' in one.data for one in trace) == 14
    looked, found = harness.violations(trace, tmp_path)
    assert looked > 200
    assert found == []


def test_no_promise_is_broken_by_a_cut_at_any_moment_of_a_migration(
    harness: ModuleType, shim: Path, tmp_path: Path
) -> None:
    trace = harness.traced(shim, tmp_path, 2, AIDPOST_OLD_STORE="1")
    assert sum(one.path == "acknowledged" and b'"seq"' in one.data for one in trace) == 3 + 14
    looked, found = harness.violations(trace, tmp_path, variants=("nothing more", "bytes survive", "some"))
    assert looked > 150
    assert found == []


def test_the_places_above_are_all_that_there_are(harness: ModuleType, shim: Path, tmp_path: Path) -> None:
    listing = tmp_path / "places"
    harness.traced(shim, tmp_path, 1, AIDPOST_LIST_SYNCS=str(listing))
    assert set(listing.read_text().split()) == set(PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_leaving_out_any_one_fsync_breaks_a_promise(
    harness: ModuleType, shim: Path, tmp_path: Path, place: str
) -> None:
    trace = harness.traced(shim, tmp_path, 1, AIDPOST_LEAVE_OUT=place)
    _, found = harness.violations(trace, tmp_path, stop_at_first=True)
    assert found, f"nothing goes wrong without {place}"


@pytest.mark.parametrize("file", ["store.sqlite3-wal", "store.sqlite3"])
def test_leaving_out_the_database_s_own_fsyncs_breaks_a_promise(
    harness: ModuleType, shim: Path, tmp_path: Path, file: str
) -> None:
    trace = harness.traced(shim, tmp_path, 1)
    path = f"state/{file}"
    _, found = harness.violations(trace, tmp_path, skip=lambda one: one.path == path, stop_at_first=True)
    assert found, f"nothing goes wrong without the fsync of {file}"
