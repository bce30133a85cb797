"""Readings that are nobody's, as pages: ticked by the sensor they came from, then given to one patient, or thrown
away."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.board.console._exam import again_of
from aidpost.board.console._who import BREAK_GLASS
from aidpost.board.console.drafts import Draft
from aidpost.board.console.site import Form, Session, Site
from aidpost.board.console.words import N_
from aidpost.board.console.workspace import Workspace
from aidpost.board.measurements import Measurement

SHOWN = 40
"""Measurements on one page, each a field of its form."""
_TICK = "m-"


def page(site: Site, request: Request, session: Session) -> Response:
    """What waits, one sensor at a time, the newest first."""
    tray = site.workspace(session).tray
    sensors: defaultdict[str, list[Measurement]] = defaultdict(list)
    for one in tray.waiting():
        sensors[one.sensor].append(one)
    ordered = [sensors[key] for key in sorted(sensors)]
    place = min(_number(request, "sensor"), max(0, len(ordered) - 1))
    waiting, start = (ordered[place] if ordered else []), _number(request, "from")
    last = tray.last if tray.last is not None and tray.last.worker == session.worker else None
    return site.render(
        request,
        "unassigned.html",
        session,
        sensors=ordered,
        place=place,
        shown=waiting[start : start + SHOWN],
        start=start,
        step=SHOWN,
        older=len(waiting) > start + SHOWN,
        ticked=len(waiting) == 1 or request.query_params.get("all") == "1",
        last=last,
        given=_draft(site.workspace(session), session, str(last.exam)) if last and last.exam else None,
        thrown=tray.thrown_number(),
        again=again_of(request),
    )


def _number(request: Request, name: str) -> int:
    said = request.query_params.get(name, "")
    return int(said) if re.fullmatch(r"\d{1,4}", said) else 0


def _drafts(workspace: Workspace, session: Session) -> list[Draft]:
    """The open exams that whoever is at the screen may see."""
    return [
        one for one in workspace.drafts.all() if session.worker != BREAK_GLASS or one.exam.operator.id == BREAK_GLASS
    ]


def _draft(workspace: Workspace, session: Session, exam: str) -> Draft | None:
    return next((one for one in _drafts(workspace, session) if str(one.exam.id) == exam), None)


def _ticked(form: Form) -> list[uuid.UUID]:
    """The measurements that a form names.

    Raises
    ------
    HTTPException
        None is ticked.
    """
    found = [name.removeprefix(_TICK) for name in form if name.startswith(_TICK)]
    if not found:
        raise HTTPException(400, N_("Tick the readings first."))
    try:
        return [uuid.UUID(one) for one in found]
    except ValueError:
        raise HTTPException(400, N_("The form is incomplete.")) from None


def choose(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Throw what is ticked away; or ask whose it is; or, once that is said, show both for a last look."""
    workspace, ids = site.workspace(session), _ticked(form)
    if form.get("to") == "nobody":
        workspace.tray.throw_away(ids, session.worker)
        return RedirectResponse("/unassigned", 303)
    drafts = _drafts(workspace, session)
    draft = _draft(workspace, session, form.get("exam", "")) or (drafts[0] if len(drafts) == 1 else None)
    chosen = workspace.tray.chosen(ids)
    if draft is None:
        return site.render(request, "whose.html", session, chosen=chosen, drafts=drafts)
    return site.render(request, "give.html", session, chosen=chosen, draft=draft)


def give(site: Site, request: Request, session: Session, form: Form) -> Response:
    """The worker has seen whose they are to be, and which."""
    workspace = site.workspace(session)
    draft = _draft(workspace, session, form.get("exam", ""))
    if draft is None:
        raise HTTPException(400, N_("Choose a patient."))
    workspace.tray.give(_ticked(form), draft.exam.id, session.worker)
    return RedirectResponse("/unassigned", 303)


def undo(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Take the last decision back."""
    site.workspace(session).tray.undo(session.worker)
    return RedirectResponse("/unassigned", 303)


def thrown_page(site: Site, request: Request, session: Session) -> Response:
    """What was thrown away, by whom and when, and how often it was sent again."""
    found, start = site.workspace(session).tray.thrown(), _number(request, "from")
    shown, older = found[start : start + SHOWN], len(found) > start + SHOWN
    return site.render(request, "thrown.html", session, thrown=shown, start=start, step=SHOWN, older=older)


def take_back(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Let what is ticked wait again."""
    site.workspace(session).tray.take_back(_ticked(form), session.worker)
    return RedirectResponse("/unassigned", 303)
