"""What all pages share: who is at the screen, forms, templates, and the rule that an alarm holds the screen."""

from __future__ import annotations

import functools
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jinja2
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from aidpost.board import device
from aidpost.board.configuration import Configuration
from aidpost.board.console import steps, words
from aidpost.board.console.clock import ConfirmedClock
from aidpost.board.console.live import Camera
from aidpost.board.console.people import Workers
from aidpost.board.console.result import RHYTHMS, eye_state, hidden_notes
from aidpost.board.console.speech import Speech
from aidpost.board.console.status import Status
from aidpost.board.console.telephone import Telephone
from aidpost.board.console.words import N_
from aidpost.board.console.workspace import Workspace
from aidpost.errors import AidpostError
from aidpost.inference.vitals import age_years
from aidpost.inference.wording import advice_of, word
from aidpost.records import Patient, Timestamp
from aidpost.sync.hub import catalogue
from aidpost.sync.keys import Identity
from aidpost.sync.telephone import Line

_FOLDER = Path(__file__).parent
_MAX_FORM = 64 * 1024
COOKIE = "session"

Form = Mapping[str, str]


@dataclass
class Session:
    """Somebody at the screen. `worker` is "break-glass" for an exam in an emergency that nobody logged in for."""

    worker: str
    supervisor: bool
    practice: bool
    language: str
    used: float
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))


Page = Callable[["Site", Request, Session], Response]
Action = Callable[["Site", Request, Session, Form], Response]


class Site:
    """The screen. `real` is None on a device that only practises.

    Parameters
    ----------
    status
        Tells queue, clock, battery and disk.
    device_clock
        The clock of both stores, which a worker may confirm.
    """

    def __init__(
        self,
        configuration: Configuration,
        real: Workspace | None,
        practice: Workspace,
        workers: Workers,
        status: Callable[[Workspace], Status],
        device_clock: ConfirmedClock,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configuration, self.workers, self._clock, self.status = configuration, workers, clock, status
        self._real, self._practice, self.clock = real, practice, device_clock
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._telephone: Telephone | None = None
        self._telephone_of: Identity | None = None
        self.speech = Speech(configuration.console.speak)
        self.languages = words.Languages(configuration.console.languages_dir)
        self.language = self._language(configuration)
        self._environments: dict[str, jinja2.Environment] = {}
        self._touched = clock()
        self.trying: set[Workspace] = set()
        """Whose sensors are being tried just now."""
        self.cameras = {one: Camera(one.store) for one in (real, practice) if one is not None}

    def _language(self, configuration: Configuration) -> str:
        wanted = configuration.console.language
        return wanted if wanted in self.languages.names else "en"

    def configure(self, configuration: Configuration) -> None:
        """Go on by another configuration, from the next page on. A language that somebody chose meanwhile stays."""
        if configuration.console.language != self.configuration.console.language:
            self.language = self._language(configuration)
        self.configuration = configuration
        for workspace in filter(None, (self._real, self._practice)):
            workspace.configuration = configuration

    # -- who

    def enter(self, worker: str, *, supervisor: bool, practice: bool = False) -> Session:
        """A new session; there is one screen, so the one before ends."""
        only_practice = self._real is None
        session = Session(worker, supervisor, practice or only_practice, self.language, self._clock())
        with self._lock:
            self._sessions = {session.token: session}
            self._touched = session.used
        return session

    def leave(self) -> None:
        """Lock the screen."""
        with self._lock:
            self._sessions.clear()

    def session(self, request: HTTPConnection, *, touch: bool = True) -> Session | None:
        """Who is at the screen; None where it is locked, or nobody has touched it for `console.lock_minutes`."""
        with self._lock:
            session = self._sessions.get(request.cookies.get(COOKIE, ""))
            if session is None:
                return None
            if self._clock() - session.used > self.configuration.console.lock_minutes * 60:
                self._sessions.clear()
                return None
            if touch:
                session.used = self._touched = self._clock()
            return session

    def quiet_s(self) -> float:
        """How long nobody has touched the screen; 0 while a patient is watched."""
        if any(one.watching.exam is not None for one in (self._real, self._practice) if one is not None):
            return 0.0
        with self._lock:
            return self._clock() - self._touched

    def workspace(self, session: Session) -> Workspace:
        """Practice or real: never both."""
        return self._practice if session.practice or self._real is None else self._real

    @property
    def main(self) -> Workspace:
        """The real workspace; practice where there is no other."""
        return self._real or self._practice

    def telephone(self) -> Telephone | None:
        """The way to the hub by telephone; None where this device knows no hub."""
        with self._lock:
            if self._real is None:
                return None
            identity = self._real.store.identity
            if self._telephone is None or identity is not self._telephone_of:
                try:
                    hub_key = device.link(self.configuration, self._real.store).hub_key
                except AidpostError:
                    return None  # not enrolled, which the doctor says
                line = Line(identity.private, hub_key, identity.name)
                if self._telephone is None:
                    self._telephone = Telephone(self._real.database, self.workers, line, self._clock)
                else:
                    self._telephone.use(line)
                self._telephone_of = identity
            return self._telephone

    # -- pages

    def page(self, handler: Page, *, held: bool = True, touch: bool = True) -> Callable[[Request], Any]:
        """An endpoint for somebody who unlocked the screen. An alarm goes before every page but its own."""

        def respond(request: Request) -> Response:
            session = self.session(request, touch=touch)
            if session is None:
                return RedirectResponse("/lock", 303)
            if held and (alarms := self.workspace(session).alarms()):
                return RedirectResponse(f"/exams/{alarms[0].exam.id}/alarm", 303)
            return self._guarded(request, session, lambda: handler(self, request, session))

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(respond, request)

        return endpoint

    def action(self, handler: Action) -> Callable[[Request], Any]:
        """An endpoint that takes a form of this screen."""

        def respond(request: Request, form: Form) -> Response:
            session = self.session(request)
            if session is None:
                return RedirectResponse("/lock", 303)
            return self._guarded(request, session, lambda: handler(self, request, session, form))

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(respond, request, await read_form(request))

        return endpoint

    def _guarded(self, request: Request, session: Session, work: Callable[[], Response]) -> Response:
        try:
            return work()
        except AidpostError as error:
            back = request.url.path if request.method == "GET" else request.headers.get("referer", "/")
            return self.render(request, "problem.html", session, 409, error=error, back=_own_path(back))

    def render(
        self, request: Request, name: str, session: Session | None, status: int = 200, **values: Any
    ) -> Response:
        """A page from a template."""
        language = session.language if session else self.language
        translate = self.languages.translator(language)
        workspace = self.workspace(session) if session else self.main
        text = (
            self._templates(language)
            .get_template(name)
            .render(
                language=language,
                direction=words.direction(language),
                languages=self.languages.names,
                session=session,
                practice=workspace.practice,
                # asked for by the pages that show it: the pieces that a page fetches every few seconds do not
                state=functools.cache(lambda: self.status(workspace)),
                calls=workspace.watching.calls(),
                watched=workspace.watching.exam,
                clinic=self.configuration.clinic,
                moment=self.moment,
                clock=self.moment(workspace.store.now().wall_ms),
                today=self.moment(workspace.store.now().wall_ms, "%Y-%m-%d %H:%M"),
                age=lambda patient: _age(patient, workspace.store.now()),
                say=lambda finding: word(finding, translate),
                act=lambda finding: advice_of(finding, translate),
                path=request.url.path,
                vital_name=catalogue.vital_name,
                intervals=catalogue.intervals,
                unit=catalogue.unit,
                # what is spoken is only for who unlocked the screen
                aloud=lambda text: self.speech.address(Markup(text).striptags(), language) if session else "",
                lock_s=self.configuration.console.lock_minutes * 60,
                **values,
            )
        )
        return HTMLResponse(text, status)

    def _templates(self, language: str) -> jinja2.Environment:
        if language not in self._environments:
            self._environments[language] = _environment(self.languages.translator(language))
        return self._environments[language]

    def moment(self, at: Timestamp | int, form: str = "%H:%M") -> str:
        """A time in the device's zone; with a question mark where its clock was not confirmed."""
        ms, sure = (at, True) if isinstance(at, int) else (at.wall_ms, at.synced)
        minutes = self.configuration.device.utc_offset_min
        zone = timezone(timedelta(minutes=minutes or 0))
        text = datetime.fromtimestamp(ms / 1000, zone).strftime(form)
        return text if sure else f"{text} ?"


def _environment(translate: words.Translate) -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # a catalogue's text is text: it is escaped like any other
    templates.globals |= {
        "_": translate,
        "tr": translate,
        "methods": steps.METHODS,
        "rhythms": RHYTHMS,
        "eye_state": eye_state,
        "hidden_notes": hidden_notes,
    }
    templates.filters |= {"number": number, "tr": translate}
    return templates


def number(value: float | None, decimals: int = 1) -> str:
    """A number without needless zeros; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _age(patient: Patient, at: Timestamp) -> str:
    years = age_years(patient, at)
    return "" if years is None else str(int(years))


def _own_path(url: str) -> str:
    """The path of one of our own pages, whatever the browser claims to come from."""
    path = "/" + url.split("://")[-1].partition("/")[2] if "://" in url else url
    return path if path.startswith("/") and not path.startswith("//") else "/"


async def read_form(request: Request) -> Form:
    """The fields of a URL-encoded form of this screen's own pages."""
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or (
        origin and origin.split("//")[-1] != request.headers.get("host")
    ):
        raise HTTPException(403, N_("Forms are taken from this screen's own pages only."))
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_FORM:
            raise HTTPException(413, N_("The form is too large."))
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=60)
    except ValueError:
        raise HTTPException(400, N_("The form cannot be read.")) from None
    return {name: values[-1].strip() for name, values in fields.items()}


def exam_of(request: Request) -> uuid.UUID:
    """The exam in the address."""
    exam: uuid.UUID = request.path_params["exam"]
    return exam
