"""A card that damages the screen's own records costs what it hit: workers, patients and open exams go on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from device_records import KEY
from killed_at import killed_at

from aidpost.board.configuration import Configuration
from aidpost.board.console.database import DATABASE
from aidpost.board.console.people import Known, Workers
from aidpost.board.console.workspace import Workspace
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import Device, Eye, Origin, Patient, VitalKind, VitalSign
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

from .conftest import Dead

PAGE = 4096
TABLES = dict.fromkeys(("draft", "body", "patient", "unassigned", "worker", "read_review", "settled"), "*")
TABLES["audit"] = "at_ms, worker, what, about"  # without its number, which is given anew


@contextmanager
def opened(folder: Path) -> Iterator[Workspace]:
    with Store.open(folder, KEY, clock=SystemClock(), name="unit-1") as store:
        workspace = Workspace(Configuration(), store, Dead(), practice=False)
        yield workspace
        workspace.close()


def contents(workspace: Workspace) -> dict[str, set[tuple[Any, ...]]]:
    """Every row of every table, but for what says that it was recovered."""
    return {
        table: {row for row in workspace.database.read(f"SELECT {columns} FROM {table}") if "recovered" not in row}
        for table, columns in TABLES.items()
    }


def reading(workspace: Workspace, device_time: str) -> VitalSign:
    return VitalSign(
        id=uuid.uuid4(), kind=VitalKind.SYSTOLIC_BP, value=140.0, unit="mm[Hg]", at=workspace.store.now(),
        origin=Origin.LIVE, device=Device(name="cuff"), device_time=device_time,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workers, patients, open exams, one of them with a photograph, and readings that wait or were thrown away."""
    folder = tmp_path_factory.mktemp("made") / "state"
    with opened(folder) as workspace:
        workers = Workers(workspace.database, workspace.store)
        for name in ("Rose", "Baba", "Amani"):
            workers.add(name, "4711", supervisor=name == "Rose")
        for number in range(12):
            known = Known(patient=Patient(id=uuid.uuid4(), name=f"Patient {number}"))
            workspace.patients.keep(known)
            draft = workspace.begin(known, "Rose")
            workspace.answer(draft.exam.id, "chest-pain", "no")
            workspace.database.audit(workspace.store.now().wall_ms, "Rose", "began", str(draft.exam.id))
        source = open_source("sim:fundus?format=jpeg&seed=1", clock=workspace.store)
        workspace.take_photo(draft.exam.id, source.read_photo(Eye.LEFT))
        source.close()
        workspace.tray.keep([reading(workspace, f"2026-01-{day:02d}T08:00:00") for day in range(1, 20)])
        workspace.tray.throw_away([one.id for one in workspace.tray.waiting()[:6]], "Rose")
        row = (uuid.uuid4().bytes, "Rose", workspace.store.now().wall_ms)
        workspace.database.write(lambda db: db.execute("INSERT INTO read_review VALUES (?, ?, ?)", row))
    return folder


def test_each_damaged_page_costs_the_rows_on_it_and_the_screen_goes_on(made: Path, tmp_path: Path) -> None:
    with opened(shutil.copytree(made, tmp_path / "whole")) as workspace:
        whole = contents(workspace)
        assert all(whole.values()), "a row of every table is there to be lost"
    pages, lost = (made / DATABASE).stat().st_size // PAGE, 0
    for number in {0, 1, 2, *range(3, pages, max(1, pages // 16))}:
        state = shutil.copytree(made, tmp_path / f"page-{number}")
        noise = random.Random(number).randbytes(PAGE)
        with (state / DATABASE).open("r+b") as file:
            file.seek(number * PAGE)
            file.write(noise)
        with opened(state) as workspace:
            left = contents(workspace)
            altered = [row for table, rows in left.items() for row in rows - whole[table]]
            assert len(altered) <= 1, "the photograph, a piece of which lies on that page: sealed, it does not open"
            assert {row[:2] for row in altered} <= {row[:2] for row in whole["body"]}, "exam and hash"
            lost += sum(len(whole[table] - left[table]) for table in whole)
            assert sum(len(whole[table] - left[table]) for table in whole) <= 40
            workers = Workers(workspace.database, workspace.store)
            for worker in workers.all():
                assert workers.check(worker.id, "4711") is not None
            assert workspace.drafts.all() or whole["draft"] - left["draft"]
            workspace.begin(Known(patient=Patient(id=uuid.uuid4(), name="new")), "Rose")
            again = workspace.database.read("SELECT about FROM audit WHERE what = 'recovered'")
            assert len(again) == 1
        assert (state / "quarantine/1" / DATABASE).read_bytes()[number * PAGE :][:PAGE] == noise
        with opened(state) as workspace:
            assert len(workspace.database.read("SELECT about FROM audit WHERE what = 'recovered'")) == 1, "once"
    assert lost > 0


def test_killed_at_every_step_the_recovery_begins_again_or_ends(made: Path, tmp_path: Path) -> None:
    with opened(shutil.copytree(made, tmp_path / "whole")) as workspace:
        whole = contents(workspace)
    damaged = shutil.copytree(made, tmp_path / "damaged")
    with (damaged / DATABASE).open("r+b") as file:
        file.write(os.urandom(100))
    step, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        step += 2
        state = shutil.copytree(damaged, tmp_path / f"killed-{step}")
        imports = "from aidpost.board.console.database import ConsoleDatabase"
        code = killed_at(step, state, imports, "ConsoleDatabase(Path(folder)).close()")
        with opened(state) as workspace:
            assert contents(workspace) == whole, step
    assert code == 0
    assert step > 6
