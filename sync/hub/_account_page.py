"""A user's own page: the second factor."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.sync.hub import audit, second_factor
from aidpost.sync.hub._site import Form, Site
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.users import Session


def account(site: Site, request: Request, session: Session) -> Response:
    """Whether there is a second factor, and how to set one up."""
    with site.database.read() as connection:
        there = second_factor.has_one(connection, session.user)
    return site.render(request, "account.html", session, there=there, secret="", uri="", must=site.config.second_factor)


def offer(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Shows a new secret, once, for the user's app."""
    with site.database.write() as connection:
        if second_factor.has_one(connection, session.user):
            raise HTTPException(409, "You have a second factor already; an administrator can reset it.")
        secret = site.factors.offer(connection, session.user)
    uri = second_factor.uri(secret, session.user, site.config.name)
    return site.render(request, "account.html", session, there=False, secret=secret, uri=uri, must=False)


def confirm(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Takes the first code, and asks for one at each login from now on."""
    key = f"code {session.user}"
    if site.attempts.blocked(key):
        raise HTTPException(429, "Too many attempts. Wait five minutes.")
    with site.database.write() as connection:
        good = site.factors.check(connection, session.user, form.get("code", ""))
        if good:
            second_factor.confirm(connection, session.user, now_ms())
            audit.append(connection, session.user, "second-factor-set", session.user)
    if not good:
        site.attempts.failed(key)
        raise HTTPException(400, "That code is not right. Go back and try the next one.")
    return RedirectResponse("/account", 303)
