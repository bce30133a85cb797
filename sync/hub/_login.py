"""Logging in and out. Failures are slow, counted and audited."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.sync.hub import audit, users
from aidpost.sync.hub._site import Form, Site, read_form
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.users import Session

_TRIES = 5
_WINDOW_S = 300.0
_REMEMBERED = 10_000


class Attempts:
    """Failures of the last minutes by name and by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._failures: dict[str, list[float]] = {}

    def blocked(self, *keys: str) -> bool:
        """Whether one of the keys failed too often."""
        with self._lock:
            return any(len(self._recent(key)) >= _TRIES for key in keys)

    def failed(self, *keys: str) -> None:
        """Counts a failure."""
        with self._lock:
            if len(self._failures) > _REMEMBERED:
                self._failures = {key: recent for key in self._failures if (recent := self._recent(key))}
            for key in keys:
                self._failures[key] = [*self._recent(key), self._clock()]

    def succeeded(self, *keys: str) -> None:
        """Forgets the failures."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)

    def _recent(self, key: str) -> list[float]:
        return [at for at in self._failures.get(key, ()) if self._clock() - at < _WINDOW_S]


def form(site: Site) -> Callable[[Request], Any]:
    """The page with the form."""

    async def endpoint(request: Request) -> Response:
        return site.render(request, "login.html", None, failed="")

    return endpoint


def submit(site: Site) -> Callable[[Request], Any]:
    """Takes the form."""
    attempts = Attempts()

    async def endpoint(request: Request) -> Response:
        fields = await read_form(request)
        return await run_in_threadpool(_log_in, site, attempts, request, fields)

    return endpoint


def log_out(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Ends this login."""
    with site.database.write() as connection:
        users.log_out(connection, request.cookies[site.cookie])
        audit.append(connection, session.user, "logged-out", session.user)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(site.cookie, httponly=True, secure=site.config.secure_cookies, samesite="strict")
    return response


def _log_in(site: Site, attempts: Attempts, request: Request, fields: Form) -> Response:
    name = fields.get("name", "").lower()[:64]
    address = request.client.host if request.client else ""
    keys = (f"user {name}", f"address {address}")
    if attempts.blocked(*keys):
        return site.render(request, "login.html", None, 429, failed="Too many attempts. Wait five minutes.")
    with site.database.read() as connection:
        good = users.check_password(connection, name, fields.get("password", ""))
    if not good:
        attempts.failed(*keys)
        with site.database.write() as connection:
            audit.append(connection, "hub", "login-failed", name, address)
        return site.render(request, "login.html", None, 401, failed="Name or password is wrong.")
    attempts.succeeded(*keys)
    with site.database.write() as connection:
        token = users.log_in(connection, name, now_ms())
        audit.append(connection, name, "logged-in", name, address)
    response = RedirectResponse("/", 303)
    response.set_cookie(
        site.cookie,
        token,
        max_age=site.config.session_hours * 3600,
        httponly=True,
        secure=site.config.secure_cookies,
        samesite="strict",
    )
    return response
