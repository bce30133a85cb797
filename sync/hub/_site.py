"""What all pages share: who is asking, templates, forms, headers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

import jinja2
from markupsafe import Markup
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from aidpost.records import TriageLevel
from aidpost.sync.hub import _quality_data, alerts, catalogue, identity, second_factor, users
from aidpost.sync.hub._attempts import Attempts
from aidpost.sync.hub._calls import TASKS
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.clocks import day
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.second_factor import SecondFactors
from aidpost.sync.hub.tally import Tally
from aidpost.sync.hub.users import Role, Session
from aidpost.sync.rules import Judge

_log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent
_REMEMBER_MS = 30_000
"""How old the quality page's figures may be beyond their counts."""
T = TypeVar("T")
_MAX_FORM = 64 * 1024
_TOUCH_MS = 60_000
_YEAR_S = 31_536_000

Form = Mapping[str, str]
Page = Callable[["Site", Request, Session], Response]
Action = Callable[["Site", Request, Session, Form], Response]


class Site:
    """The hub's pages.

    Parameters
    ----------
    database, files, config
        The hub's.
    wake
        Called when something new is to go down to a device.
    broker_connected
        Whether the broker answers; None where the hub has none.
    trouble
        A value of `service.Trouble`.
    judge_limits
        Holds clinical limits to the golden cases; None where the hub was started without.
    """

    def __init__(
        self,
        config: HubConfig,
        database: Database,
        files: BlobFiles,
        wake: Callable[[], None],
        broker_connected: Callable[[], bool] | None,
        trouble: Callable[[], str],
        judge_limits: Judge | None = None,
    ) -> None:
        self.config, self.database, self.files = config, database, files
        self.wake, self.broker_connected, self.trouble = wake, broker_connected, trouble
        self.judge_limits = judge_limits
        self.attempts, self.tally = Attempts(), Tally(database)
        self.factors = SecondFactors(identity.signing_key(config.state).private_bytes_raw())
        self._remembered: dict[tuple[str, ...], tuple[int, Any]] = {}
        loader = jinja2.FileSystemLoader(_FOLDER / "templates")
        self._templates = jinja2.Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        self._templates.filters.update(moment=_moment, day=day, number=_number, unit=catalogue.unit)
        self._templates.globals.update(
            triage_names=[level.value for level in TriageLevel],
            now_ms=now_ms,
            vital_name=catalogue.vital_name,
            intervals=catalogue.intervals,
        )

    def render(
        self, request: Request, name: str, session: Session | None, status: int = 200, **values: Any
    ) -> Response:
        """A page from a template."""
        language, unanswered = self.language(request), 0
        if session is not None:
            with self.database.read() as connection:
                unanswered = alerts.unanswered(connection, session)
        text = self._templates.get_template(name).render(
            t=catalogue.translator(language),
            language=language,
            languages=catalogue.LANGUAGES,
            session=session,
            unanswered=unanswered,
            hub=self.config.name,
            path=request.url.path,
            practice=self.config.accept_simulated,
            trouble=self.trouble(),
            oidc=bool(self.config.oidc_issuer),
            **values,
        )
        response = HTMLResponse(text, status)
        if request.query_params.get("lang") == language:
            response.set_cookie("lang", language, max_age=_YEAR_S, httponly=True, samesite="lax")
        return response

    def shadowed(self, clinic: str) -> frozenset[str]:
        """The tasks in shadow mode in a clinic: all of them, until it is known that their models work there."""
        bound = self.config.shadow_bound
        if not bound:
            return frozenset()

        def find(connection: Connection) -> set[tuple[str, str]]:
            return _quality_data.proven(connection, bound)

        proven = self.remembered(("proven",), find, counts=True)
        return frozenset(task for task in TASKS if (clinic, task) not in proven)

    def remembered(self, key: tuple[str, ...], find: Callable[[Connection], T], *, counts: bool = False) -> T:
        """What takes long to work out, once in a while only; with `counts` as of now, where little is due."""
        at, known = self._remembered.get(key, (0, None))
        if now_ms() - at > _REMEMBER_MS:
            if counts:
                self.tally.catch_up()
            with self.database.read() as connection:
                known = find(connection)
            self._remembered[key] = (now_ms(), known)
        found: T = known
        return found

    def language(self, request: Request) -> str:
        """The one asked for in the URL or before, or the browser's first that is known here."""
        asked = [request.query_params.get("lang", ""), request.cookies.get("lang", "")]
        asked += [part.split(";")[0].strip()[:2] for part in request.headers.get("accept-language", "").split(",")]
        return next((language for language in asked if language in catalogue.LANGUAGES), "en")

    def session(self, request: Request, *, touch: bool = True) -> Session | None:
        """Who is asking. What a page's script asks by itself does not count as use: `touch` false."""
        token = request.cookies.get(self.cookie)
        if not token:
            return None
        now = now_ms()
        idle, longest = self.config.session_idle_minutes * 60_000, self.config.session_hours * 3_600_000
        with self.database.read() as connection:
            session = users.session_of(connection, token, now, idle, longest)
        if session and touch and now - session.used_ms > _TOUCH_MS:
            try:
                with self.database.write() as connection:
                    users.touch(connection, token, now)
            except OperationalError as error:  # a full disk must not take the pages away, too
                _log.error("that a session is used cannot be noted: %s", error.orig)
        return session

    @property
    def cookie(self) -> str:
        """The session cookie's name; the prefix makes browsers hold it to HTTPS and to this host."""
        return "__Host-session" if self.config.secure_cookies else "session"

    def give_session(self, response: Response, token: str) -> Response:
        """The response with a session's cookie."""
        response.set_cookie(
            self.cookie,
            token,
            max_age=self.config.session_hours * 3600,
            httponly=True,
            secure=self.config.secure_cookies,
            samesite="strict",
        )
        return response

    def page(self, handler: Page, *, role: Role | None = None, touch: bool = True) -> Callable[[Request], Any]:
        """An endpoint for readers who are logged in; others are sent to log in."""

        def respond(request: Request) -> Response:
            session = self.session(request, touch=touch)
            if session is None:
                return RedirectResponse("/login", 303)
            if not self.proven(request, session):
                return RedirectResponse("/account", 303)
            _allow(session, role)
            return handler(self, request, session)

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(respond, request)

        return endpoint

    def proven(self, request: Request, session: Session) -> bool:
        """Whether the user has the second factor that this hub asks for, or is on the way to set it up. Of who comes by
        a login provider it was asked there."""
        if not self.config.second_factor or session.issuer or request.url.path.startswith(("/account", "/logout")):
            return True
        with self.database.read() as connection:
            return second_factor.has_one(connection, session.user)

    def action(self, handler: Action, *, role: Role | None = None) -> Callable[[Request], Any]:
        """An endpoint that takes a form of this site, and of this login."""

        def respond(request: Request, form: Form) -> Response:
            session = self.session(request)
            if session is None:
                return RedirectResponse("/login", 303)
            if not secrets.compare_digest(form.get("csrf", "").encode(), session.csrf.encode()):
                raise HTTPException(403, "This form is from another login. Go back, reload the page and try again.")
            if not self.proven(request, session):
                return RedirectResponse("/account", 303)
            _allow(session, role)
            return handler(self, request, session, form)

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(respond, request, await read_form(request))

        return endpoint


async def read_form(request: Request) -> Form:
    """The fields of a URL-encoded form that this site itself sent."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    if site not in ("same-origin", "none") or (origin and origin.split("//")[-1] != request.headers.get("host")):
        raise HTTPException(403, "Forms are taken from this site's own pages only.")
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise HTTPException(415, "Not a form.")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_FORM:
            raise HTTPException(413, "The form is too large.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None
    return {name: values[-1].strip() for name, values in fields.items()}


def _allow(session: Session, role: Role | None) -> None:
    if role is Role.CLINICIAN and not session.may_review:
        raise HTTPException(403, "Only clinicians may do this.")
    if role is Role.ADMINISTRATOR and session.role is not Role.ADMINISTRATOR:
        raise HTTPException(403, "Only administrators may see this.")


def _moment(milliseconds: int | None) -> str:
    """A time in UTC that the page's script turns into the reader's zone."""
    if milliseconds is None:
        return "–"
    try:
        at = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "–"
    return Markup('<time class="local" datetime="{}">{}</time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%SZ"), at.strftime("%Y-%m-%d %H:%M UTC")
    )


def _number(value: float | None, digits: int = 1) -> str:
    """A number without needless zeros; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
