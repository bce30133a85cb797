"""Imports point one way, and the five folders are only ever imported as parts of aidpost."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
FOLDERS = ("kernels", "inference", "firmware_bridge", "sync", "board")

# what each part may import of aidpost, besides itself; `records` stands for the values and their helpers
VALUES = {"records", "errors", "__version__"}
VALUES |= {"_course", "_people", "_record", "_recordings", "_results", "_terms"}
ALLOWED: dict[str, set[str]] = {
    "aidpost": VALUES,
    "kernels": VALUES,
    "inference": VALUES | {"kernels"},
    "firmware_bridge": VALUES,
    "sync": VALUES | {"kernels"},
    "board": VALUES | {"kernels", "inference", "firmware_bridge", "sync"},
}


def python_files() -> list[Path]:
    roots = ("aidpost", *FOLDERS, "training", "benchmarks", "tests")
    return [path for root in roots for path in sorted((TOP / root).rglob("*.py")) if "work" not in path.parts]


def imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    paths = list((TOP / "aidpost").glob("*.py")) if folder == "aidpost" else list((TOP / folder).rglob("*.py"))
    wrong = []
    for path in paths:
        for name in imported_names(path):
            parts = name.split(".")
            if parts[0] == "aidpost" and len(parts) > 1 and parts[1] not in ALLOWED[folder] | {folder}:
                wrong.append(f"{path.relative_to(TOP)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_hub_imports_neither_inference_nor_board() -> None:
    for path in (TOP / "sync" / "hub").rglob("*.py"):
        for name in imported_names(path):
            assert not name.startswith(("aidpost.inference", "aidpost.board", "aidpost.firmware_bridge")), (
                f"{path}: {name}"
            )


def test_sync_takes_only_the_codec_from_the_kernels() -> None:
    for path in (TOP / "sync").rglob("*.py"):
        for name in imported_names(path):
            assert not name.startswith("aidpost.kernels") or "codec" in name, f"{path}: {name}"


def test_no_file_imports_the_five_folders_at_the_top() -> None:
    # `board`, `kernels` and the rest are names of other people's packages
    for path in python_files():
        for name in imported_names(path):
            assert name.split(".")[0] not in FOLDERS, f"{path.relative_to(TOP)} imports {name}; say aidpost.{name}"


def test_links_lead_to_the_folders() -> None:
    for folder in FOLDERS:
        link = TOP / "aidpost" / folder
        assert link.is_symlink()
        assert link.resolve() == TOP / folder
