"""The tracer and its replay, which are scripts of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    """A script of this folder as a module."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    load("replay")
    return load("power_cut")


@pytest.fixture(scope="session")
def shim(harness: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    built: Path = harness.build_shim(tmp_path_factory.mktemp("shim"))
    return built


@pytest.fixture(scope="session")
def workload(harness: ModuleType) -> ModuleType:
    return load("update_workload")


@pytest.fixture(scope="session")
def rotation_workload(harness: ModuleType) -> ModuleType:
    return load("rotation_workload")
