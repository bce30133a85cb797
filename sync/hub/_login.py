"""Logging in and out. Failures are slow, counted and audited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.sync.hub import audit, second_factor, users
from aidpost.sync.hub._site import Action, Form, Site, read_form
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.users import Role, Session


def form(site: Site) -> Callable[[Request], Any]:
    """The page with the form."""

    async def endpoint(request: Request) -> Response:
        return site.render(request, "login.html", None, failed="")

    return endpoint


def submit(site: Site) -> Callable[[Request], Any]:
    """Takes the form."""

    async def endpoint(request: Request) -> Response:
        fields = await read_form(request)
        return await run_in_threadpool(_log_in, site, request, fields)

    return endpoint


def log_out(leave: Callable[[Site, Request], Response] | None) -> Action:
    """Ends this login; `leave` makes the page from which who came by a login provider logs out there, too."""

    def action(site: Site, request: Request, session: Session, _form: Form) -> Response:
        with site.database.write() as connection:
            users.log_out(connection, request.cookies[site.cookie])
            audit.append(connection, session.user, "logged-out", session.user)
        response = leave(site, request) if leave and session.issuer else RedirectResponse("/login", 303)
        response.delete_cookie(site.cookie, httponly=True, secure=site.config.secure_cookies, samesite="strict")
        return response

    return action


def _log_in(site: Site, request: Request, fields: Form) -> Response:
    name = fields.get("name", "").lower()[:64]
    address = request.client.host if request.client else ""
    keys = (f"user {name}", f"address {address}")
    if site.attempts.blocked(*keys):
        return site.render(request, "login.html", None, 429, failed="Too many attempts. Wait five minutes.")
    with site.database.read() as connection:
        good = users.check_password(connection, name, fields.get("password", ""))
        coded = second_factor.has_one(connection, name)
        if site.config.passwords == "administrators":
            good &= users.role_of(connection, name) is Role.ADMINISTRATOR
    if good and coded:
        with site.database.write() as connection:
            good = site.factors.check(connection, name, fields.get("code", ""))
    if not good:
        site.attempts.failed(*keys)
        with site.database.write() as connection:
            audit.append(connection, "hub", "login-failed", name, address)
        return site.render(request, "login.html", None, 401, failed="Name, password or code is wrong.")
    site.attempts.succeeded(*keys)
    with site.database.write() as connection:
        users.renew_hash(connection, name, fields.get("password", ""))
        token = users.log_in(connection, name, now_ms())
        audit.append(connection, name, "logged-in", name, address)
    return site.give_session(RedirectResponse("/", 303), token)
