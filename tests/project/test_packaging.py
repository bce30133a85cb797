"""The source distribution carries real files where the checkout has links, and everything that the software needs."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
NEEDED = (
    "aidpost/py.typed",
    "aidpost/kernels/_rpeaks.pyx",
    "aidpost/kernels/_rpeaks_front.pxd",
    "aidpost/kernels/_fundus_loops.h",
    "aidpost/inference/rules/vitals.toml",
    "aidpost/inference/models/ecg-rhythm/model.tflite",
    "aidpost/inference/models/fundus-dr/card.toml",
    "aidpost/sync/hub/templates/worklist.html",
    "aidpost/firmware_bridge/firmware/aidpost_frame.c",
    "tests/aidpost/test_records.py",
    "LICENSE",
)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[tarfile.TarInfo]:
    """The source distribution's contents, built from a copy of what git tracks."""
    folder = tmp_path_factory.mktemp("sdist")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=TOP, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    build = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=folder, capture_output=True, check=True)
    (made,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(made) as file:
        return file.getmembers()


def test_source_distribution_has_real_files_and_all_that_is_needed(members: list[tarfile.TarInfo]) -> None:
    names = {member.name.split("/", 1)[1] for member in members if "/" in member.name}
    assert set(NEEDED) <= names
    assert not [member.name for member in members if member.issym() or member.islnk()]


def test_source_distribution_has_nothing_compiled(members: list[tarfile.TarInfo]) -> None:
    assert not [member.name for member in members if member.name.endswith((".so", ".pyc", ".o"))]
