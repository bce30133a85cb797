"""The hub's end of a code by telephone: a worker who is locked out reads digits out, and is read digits back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from aidpost.sync.hub import audit, identity, schema
from aidpost.sync.hub._site import Form, Site
from aidpost.sync.hub.users import Session
from aidpost.sync.telephone import Line, digits, spaced


def unlock(site: Site, request: Request, session: Session) -> Response:
    """The form: which device, and what its screen shows."""
    return _page(site, request, session, request.query_params.get("device", ""))


def answer(site: Site, request: Request, session: Session, form: Form) -> Response:
    """The code for what was read out. Each one given, and each that did not fit, stands in the audit log."""
    name, challenge = form.get("device", "")[:64], digits(form.get("challenge", ""))[:20]
    tries = (f"unlock by {session.user}", f"unlock of {name}")
    if site.attempts.blocked(*tries):
        raise HTTPException(429, "Too many attempts. Wait five minutes.")
    row = next((one for one in _devices(site, session) if one.name == name), None)
    if row is None:
        raise HTTPException(404, "There is no such device here.")
    site.attempts.failed(*tries)
    line = Line(identity.signing_key(site.config.state), identity.device_key(bytes(row.public_key), name), name)
    heard = line.heard(challenge)
    exams = schema.exams
    with site.database.write() as connection:
        known = connection.execute(select(exams.c.operator).where(exams.c.device == name).distinct()).scalars()
        workers = sorted(line.workers(challenge, known)) if heard else []
        detail = f"{challenge} {', '.join(workers) or 'unknown worker'}" if heard else "digits that do not fit"
        audit.append(connection, session.user, "unlock-code" if heard else "unlock-code-refused", name, detail)
    if not heard:
        return _page(site, request, session, name, "These digits are not from this device, or one was misheard.")
    return _page(site, request, session, name, code=spaced(line.code(challenge)), workers=workers)


def _devices(site: Site, session: Session) -> list[Any]:
    table = schema.devices
    query = select(table).where(session.sees(table.c.clinic), table.c.revoked_ms.is_(None)).order_by(table.c.name)
    with site.database.read() as connection:
        return list(connection.execute(query).all())


def _page(
    site: Site,
    request: Request,
    session: Session,
    chosen: str,
    failed: str = "",
    *,
    code: str = "",
    workers: list[str] | None = None,
) -> Response:
    return site.render(
        request,
        "unlock.html",
        session,
        400 if failed else 200,
        devices=_devices(site, session),
        chosen=chosen,
        failed=failed,
        code=code,
        workers=workers or [],
    )
