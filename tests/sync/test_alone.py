"""One process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from aidpost.errors import StoreLockedError
from aidpost.sync._alone import alone


def test_second_holder_is_told_and_the_first_ones_own_error_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with alone(path, operation="first", cause="nobody"):
        with (
            pytest.raises(StoreLockedError, match="it is held") as caught,
            alone(path, operation="second", cause="it is held", remedy="Wait."),
        ):
            raise AssertionError("two hold it")
        assert (caught.value.operation, caught.value.target) == ("second", str(tmp_path))
    with pytest.raises(BlockingIOError), alone(path, operation="third", cause="nobody"):
        raise BlockingIOError("of the work itself")
    with alone(path, operation="fourth", cause="nobody"):
        assert path.stat().st_mode & 0o777 == 0o600
