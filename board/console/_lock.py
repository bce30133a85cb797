"""The locked screen: PIN, the first worker, an emergency without PIN, and a code by telephone for who is locked out."""

from __future__ import annotations

import uuid

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.board.console._who import BREAK_GLASS, let_in
from aidpost.board.console.people import Known
from aidpost.board.console.site import Site, read_form
from aidpost.board.console.words import N_
from aidpost.errors import AidpostError
from aidpost.records import Patient
from aidpost.sync.telephone import spaced


def lock_page(
    site: Site, request: Request, failed: str = "", status: int = 200, *, worker: str = "", said: str = ""
) -> Response:
    """The locked screen; on a new device the one that makes the first worker."""
    workers = site.workers.all()
    chosen = worker or request.query_params.get("worker", workers[0].id if len(workers) == 1 else "")
    known = next((one for one in workers if one.id == chosen), None)
    name = "lock.html" if workers else "setup.html"
    locked = int(site.workers.locked_s(known.id)) if known else 0
    return site.render(
        request,
        name,
        None,
        status,
        workers=workers,
        chosen=known,
        choosing=request.query_params.get("language") == "choose",
        failed=failed,
        said=said,
        by_telephone=bool(locked) and site.telephone() is not None,
        locked_min=-(-locked // 60),
    )


async def lock(site: Site, request: Request) -> Response:
    """Shows the locked screen."""
    return await run_in_threadpool(lock_page, site, request)


async def unlock(site: Site, request: Request) -> Response:
    """Takes a PIN."""
    form = await read_form(request)

    def respond() -> Response:
        name = form.get("worker", "")
        worker = site.workers.check(name, form.get("pin", ""))
        at = site.main.store.now().wall_ms
        if worker is None:
            site.main.database.audit(at, name[:40], "unlock failed")
            minutes = -(-int(site.workers.locked_s(name)) // 60)
            text = N_("Too many wrong PINs. Wait, or ask a supervisor.") if minutes else N_("Wrong PIN.")
            return lock_page(site, request, text, 401, worker=name)
        site.main.database.audit(at, worker.id, "unlocked")
        if form.get("clock") == "right":
            site.clock.confirm()
            site.main.database.audit(at, worker.id, "confirmed the clock")
        return let_in(site.enter(worker.id, supervisor=worker.supervisor))

    return await run_in_threadpool(respond)


async def setup(site: Site, request: Request) -> Response:
    """Makes the first worker, who is a supervisor; only on a device that has none."""
    form = await read_form(request)

    def respond() -> Response:
        if site.workers.all():
            return RedirectResponse("/lock", 303)
        try:
            if form.get("pin") != form.get("again"):
                return lock_page(site, request, N_("The two PINs differ."), 400)
            worker = site.workers.add(form.get("name", ""), form.get("pin", ""), supervisor=True)
        except AidpostError as error:
            return lock_page(site, request, error.cause, 400)
        return let_in(site.enter(worker.id, supervisor=True))

    return await run_in_threadpool(respond)


async def break_glass(site: Site, request: Request) -> Response:
    """An exam in an emergency without a PIN: audited, and only to examine somebody new."""
    await read_form(request)

    def respond() -> Response:
        session = site.enter(BREAK_GLASS, supervisor=False)
        workspace = site.workspace(session)
        patient = Patient(id=uuid.uuid4(), name=f"Emergency {site.moment(workspace.store.now())}")
        draft = workspace.begin(Known(patient=patient), BREAK_GLASS)
        workspace.database.audit(workspace.store.now().wall_ms, BREAK_GLASS, "exam without PIN", str(draft.exam.id))
        return let_in(session, f"/exams/{draft.exam.id}")

    return await run_in_threadpool(respond)


async def leave(site: Site, request: Request) -> Response:
    """Locks."""
    await read_form(request)
    site.leave()
    return RedirectResponse("/lock", 303)


async def telephone(site: Site, request: Request) -> Response:
    """The digits to read out at the hub, and where its answer is typed in."""
    return await run_in_threadpool(_telephone_page, site, request, request.query_params.get("worker", ""))


async def answer(site: Site, request: Request) -> Response:
    """Takes the hub's answer: the right one lets the worker try their PIN again, and nothing else."""
    form = await read_form(request)

    def respond() -> Response:
        worker, line = form.get("worker", ""), site.telephone()
        right = line is not None and line.answer(worker, form.get("code", ""))
        what = "unlocked by telephone" if right else "wrong code by telephone"
        site.main.database.audit(site.main.store.now().wall_ms, worker[:40], what)
        if right:
            return lock_page(site, request, worker=worker, said=N_("You may try your PIN again."))
        return _telephone_page(site, request, worker, N_("This code is not right."))

    return await run_in_threadpool(respond)


def _telephone_page(site: Site, request: Request, worker: str, failed: str = "") -> Response:
    known, line = next((one for one in site.workers.all() if one.id == worker), None), site.telephone()
    if known is None or site.workers.locked_s(worker) <= 0:
        return RedirectResponse("/lock", 303)
    digits = line.challenge(worker) if line else ""
    if digits and not failed:
        at = site.main.store.now().wall_ms
        site.main.database.audit(at, known.id, "asked for a code by telephone", digits)
    return site.render(
        request,
        "telephone.html",
        None,
        401 if failed else 200,
        chosen=known,
        digits=spaced(digits) if digits else "",
        device=site.main.store.identity.name,
        paused_min=-(-int(line.paused_s(worker)) // 60) if line else 0,
        failed=failed,
    )
