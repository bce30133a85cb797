"""A patient who is watched, as pages: the numbers, the calls, and asking for quiet."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.board.console import steps
from aidpost.board.console._exam import draft_of
from aidpost.board.console.drafts import Draft
from aidpost.board.console.site import Form, Session, Site
from aidpost.board.console.workspace import Workspace


def page(site: Site, request: Request, session: Session) -> Response:
    """The numbers of this patient as they come; or the offer to watch."""
    return _shown(site, request, session, "watch.html")


def numbers(site: Site, request: Request, session: Session) -> Response:
    """The numbers alone, for the page that looks again."""
    return _shown(site, request, session, "_numbers.html")


def _shown(site: Site, request: Request, session: Session, template: str) -> Response:
    workspace, draft = draft_of(site, request, session)
    watching = workspace.watching
    mine = watching.exam == draft.exam.id
    other = workspace.drafts.find(watching.exam) if watching.exam and not mine else None
    return site.render(
        request,
        template,
        session,
        draft=draft,
        measures=steps.MEASURES,
        last=watching.latest() if mine else {},
        trouble=watching.trouble() if mine else "",
        other=other.patient.name if other else "",
    )


def start(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Watch this patient from now on."""
    workspace, draft = draft_of(site, request, session)
    workspace.watching.start(draft.exam.id)
    _note(workspace, session, draft, "watches a patient")
    return _back(draft)


def quiet(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """What is known now calls nobody for a while; anything worse does."""
    workspace, draft = draft_of(site, request, session)
    if workspace.watching.exam == draft.exam.id:
        workspace.watching.quiet()
        _note(workspace, session, draft, "asked for quiet")
    return _back(draft)


def stop(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Nobody is watched any more."""
    workspace, draft = draft_of(site, request, session)
    workspace.watching.stop(draft.exam.id)
    _note(workspace, session, draft, "stopped watching")
    return _back(draft)


async def calls(site: Site, request: Request) -> Response:
    """Why somebody is called, for every page, the locked one too: there it names nobody."""
    session = site.session(request, touch=False)
    return await run_in_threadpool(site.render, request, "_calls.html", session)


def _note(workspace: Workspace, session: Session, draft: Draft, what: str) -> None:
    workspace.database.audit(workspace.store.now().wall_ms, session.worker, what, str(draft.exam.id))


def _back(draft: Draft) -> Response:
    return RedirectResponse(f"/exams/{draft.exam.id}/watch", 303)
