"""The board's own measurements of its models."""

from __future__ import annotations

from pathlib import Path

from aidpost.inference import model
from aidpost.inference.bench import bench
from aidpost.inference.runtime import available_runtimes


def test_every_model_is_measured_on_every_runtime() -> None:
    rows = bench((model.SHIPPED,), repeats=2)
    assert len(rows) == len(model.list_models((model.SHIPPED,))) * len(available_runtimes())
    for row in rows:
        assert 0 < row.median_ms <= row.p95_ms
        assert row.load_ms > 0
        assert row.runtime in available_runtimes()


def test_a_system_that_tells_no_memory_gives_none(tmp_path: Path) -> None:
    rows = bench((model.SHIPPED,), repeats=1, statm=tmp_path / "missing")
    assert {row.memory_mb for row in rows} == {None}
