"""The USB stick by the screen's two buttons: out to a real hub and back; none, two, and an empty one are said."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from device_records import KEY
from starlette.exceptions import HTTPException
from starlette.requests import Request

from aidpost.board import device
from aidpost.board.configuration import Configuration, SyncSection
from aidpost.board.console import _stick, steps
from aidpost.board.console.clock import ConfirmedClock
from aidpost.board.console.people import Known, Workers
from aidpost.board.console.site import Session, Site
from aidpost.board.console.status import look
from aidpost.board.console.workspace import Workspace
from aidpost.errors import UsageError
from aidpost.inference.worker import InferenceWorker
from aidpost.records import Patient
from aidpost.sync import outbox
from aidpost.sync.keys import public_bytes
from aidpost.sync.store import Store

AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()"]
NAME = "kisumu-3"


class Clinic(NamedTuple):
    """A device's screen with a hub's folder and a stick beside it."""

    site: Site
    workspace: Workspace
    session: Session
    folder: Path

    @property
    def stick(self) -> Path:
        return self.folder / "stick"

    def press(self, what: str) -> str:
        scope = {"type": "http", "method": "POST", "path": f"/stick/{what}", "headers": [], "query_string": b""}
        answer = getattr(_stick, what)(self.site, Request(scope), self.session, {})
        return bytes(answer.body).decode()

    def queued(self) -> int:
        return sum(one.queued for one in outbox.status(self.workspace.store))


def hub(folder: Path, *arguments: object) -> str:
    command = [*AIDPOST, "--config", folder / "hub.toml", "--state-dir", folder / "hub", "hub", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    (tmp_path / "stick").mkdir()
    (tmp_path / "hub.toml").write_text("[hub]\naccept_simulated = true\n")
    clock = ConfirmedClock()
    real_one = Store.open(tmp_path / "device", KEY, clock=clock, name=NAME)
    practice_one = Store.open(tmp_path / "practice", KEY, clock=clock, name=NAME)
    with real_one as store, practice_one as practice_store:
        enrolled = json.loads(hub(tmp_path, "enroll", NAME, public_bytes(store.identity.public).hex(), "--json"))
        (tmp_path / "hub.key").write_text(enrolled["hub_public_key"])
        configuration = Configuration(sync=SyncSection(hub_key_file=str(tmp_path / "hub.key")))
        with InferenceWorker(device.worker_settings(configuration), deadline_s=60) as worker:
            real, practice = (
                Workspace(configuration, one, worker, practice=one is practice_store) for one in (store, practice_store)
            )
            site = Site(
                configuration, real, practice, Workers(real.database, store), lambda one: look(one, None), clock
            )
            monkeypatch.setattr(_stick, "find", lambda _folder: tmp_path / "stick")
            yield Clinic(site, real, site.enter("Rose", supervisor=True), tmp_path)
            real.close()
            practice.close()


def finish_an_exam(workspace: Workspace) -> None:
    exam = workspace.begin(Known(patient=Patient(id=uuid.uuid4(), name="Amina")), "Rose").exam.id
    workspace.measure(exam, steps.BY_CODE["spo2"], [97.0], "finger", "", uuid.uuid4())
    workspace.finish(exam)


def test_what_waits_goes_to_the_hub_and_its_answer_comes_back(clinic: Clinic) -> None:
    finish_an_exam(clinic.workspace)
    waiting = clinic.queued()
    assert waiting > 0
    page = clinic.press("copy")
    assert f"<b>{waiting}</b>" in page
    assert "You may pull it out now" in page
    (file,) = clinic.stick.glob(f"{NAME}-*.aidpost")
    assert b"Amina" not in file.read_bytes()
    assert clinic.queued() == waiting  # a lost stick loses nothing
    hub(clinic.folder, "import", file)
    clinic.press("load")
    assert clinic.queued() == 0
    clinic.press("load")  # the same again changes nothing
    assert clinic.queued() == 0


def test_a_stick_without_the_hubs_answer_is_said(clinic: Clinic) -> None:
    with pytest.raises(UsageError, match="no answer of the hub"):
        clinic.press("load")


def test_practice_uses_no_stick(clinic: Clinic) -> None:
    practising = clinic._replace(session=clinic.site.enter("Rose", supervisor=True, practice=True))
    for what in ("copy", "load"):
        with pytest.raises(HTTPException):
            practising.press(what)
    assert list(clinic.stick.iterdir()) == []


@pytest.mark.parametrize(
    ("mounted", "found"),
    [
        (["usb"], "usb"),
        (["rose/KINGSTON"], "rose/KINGSTON"),
        (["."], "."),
        ([], None),
        (["usb", "rose/KINGSTON"], None),
    ],
)
def test_the_one_mounted_stick_is_found_and_two_are_not_guessed_between(
    tmp_path: Path, mounted: list[str], found: str | None
) -> None:
    for one in ("usb", "rose/KINGSTON", "rose/notes"):
        (tmp_path / one).mkdir(parents=True)
    places = {tmp_path / one for one in mounted}
    if found is None:
        with pytest.raises(UsageError, match="more than one" if mounted else "no USB stick"):
            _stick.find(tmp_path, places.__contains__)
    else:
        assert _stick.find(tmp_path, places.__contains__) == tmp_path / found
