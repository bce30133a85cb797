"""What the tests of firmware_bridge share: a clock that stands still, and the folder of public recordings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aidpost.records import Timestamp


class FixedClock:
    """A clock that always says the same."""

    def now(self) -> Timestamp:
        return Timestamp(wall_ms=1_700_000_000_000, monotonic_ms=1000, boot=3, synced=True)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture(scope="session")
def public_data() -> Path:
    top = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("AIDPOST_DATA", top / ".." / "shared" / "data"))
    if not (folder / "ecg").is_dir():
        pytest.skip(f"no public recordings at {folder} (AIDPOST_DATA names the folder)")
    return folder
