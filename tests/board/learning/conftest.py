"""A hub and three clinics with a few confirmed exams each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clinics import Clinic, Hub


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


@pytest.fixture
def clinics(tmp_path: Path, hub: Hub) -> Iterator[list[Clinic]]:
    made = [Clinic(tmp_path, name, hub, 3) for name in ("north", "south", "west")]
    yield made
    for one in made:
        one.store.close()
