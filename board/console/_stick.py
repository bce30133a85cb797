"""The USB stick by two buttons: what the hub lacks goes onto it, and the hub's answer comes back from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from aidpost.board import device
from aidpost.board.console._who import BREAK_GLASS
from aidpost.board.console.site import Form, Session, Site
from aidpost.board.console.words import N_
from aidpost.board.console.workspace import Workspace
from aidpost.errors import UsageError
from aidpost.sync import stick

ENDING = ".aidpost"
RECEIPTS = f"{ENDING}.receipts"


def copy(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Write what the hub lacks onto the stick."""
    workspace, folder = _workspace(site, session), find(Path(site.configuration.console.stick_dir))
    link = device.link(site.configuration, workspace.store)
    at = datetime.fromtimestamp(workspace.store.now().wall_ms / 1000, timezone.utc)
    path = folder / f"{workspace.store.identity.name}-{at:%Y%m%d-%H%M%S}{ENDING}"
    done = stick.export_stick(workspace.store, path, hub_name=link.hub_name, hub_key=link.hub_key)
    _note(workspace, session, f"copied {done.records} records to a stick")
    said = [
        (N_("records are on the stick"), done.records),
        (N_("photographs and waveforms are on the stick"), done.blobs),
    ]
    if done.unreadable:
        said.append((N_("photographs or waveforms do not open any more and were left out"), done.unreadable))
    after = N_("They stay queued here until the hub's answer is loaded from the stick. You may pull it out now.")
    return _said(site, request, session, said, after)


def load(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Take in every answer of the hub that lies on the stick; one that was taken before changes nothing."""
    workspace, folder = _workspace(site, session), find(Path(site.configuration.console.stick_dir))
    link = device.link(site.configuration, workspace.store)
    answers = sorted(folder.glob(f"{workspace.store.identity.name}-*{RECEIPTS}"))
    if not answers:
        raise UsageError(
            operation="loading from a stick",
            target=folder.name,
            cause=N_("there is no answer of the hub for this device on it"),
            remedy=N_("Take the stick to the hub first, where `aidpost hub import` reads it."),
        )
    taken = [
        stick.import_receipts(workspace.store, path, hub_name=link.hub_name, hub_key=link.hub_key) for path in answers
    ]
    _note(workspace, session, f"loaded {len(taken)} answers from a stick")
    said = [(N_("reviews, referrals and other records came from the hub"), sum(one.received for one in taken))]
    if refused := sum(one.refused for one in taken):
        said.append((N_("records from the hub were refused"), refused))
    return _said(site, request, session, said, N_("You may pull the stick out now."))


def find(folder: Path, mounted: Callable[[Path], bool] = os.path.ismount) -> Path:
    """The one stick that is mounted at `folder`, in it, or one folder deeper (as `/media/USER/LABEL`).

    Raises
    ------
    UsageError
        There is none, or more than one: which is meant is not guessed.
    """
    places = [folder, *folder.glob("*"), *folder.glob("*/*")]
    found = [place for place in places if place.is_dir() and mounted(place)]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        operation="looking for a USB stick",
        target=str(folder),
        cause=N_("there is no USB stick") if not found else N_("there is more than one USB stick"),
        remedy=N_("Plug one stick in, wait for a moment, and try again."),
    )


def _workspace(site: Site, session: Session) -> Workspace:
    workspace = site.workspace(session)
    if session.worker == BREAK_GLASS or workspace.practice:
        raise HTTPException(403, N_("Practice and emergency exams use no stick."))
    return workspace


def _note(workspace: Workspace, session: Session, what: str) -> None:
    workspace.database.audit(workspace.store.now().wall_ms, session.worker, what)


def _said(site: Site, request: Request, session: Session, said: list[tuple[str, int]], after: str) -> Response:
    return site.render(request, "stick.html", session, said=said, after=after)
