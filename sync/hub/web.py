"""The hub's pages: light, server-rendered, without a build step; they work with no internet and on a slow tablet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aidpost.errors import ConfigurationError
from aidpost.sync.hub import (
    _account_page,
    _exam_page,
    _export,
    _fhir_pages,
    _limits_page,
    _login,
    _pages,
    _patient_page,
    _quality_page,
    _review_form,
    _rounds_page,
    _telephone_page,
    identity,
    openapi,
    schema,
)
from aidpost.sync.hub._site import Site
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.users import Role
from aidpost.sync.rules import Judge

_log = logging.getLogger(__name__)

HEADERS = {
    # no inline script or style anywhere: what a patient's name may contain is never run
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send our own forms with "Origin: null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def create_app(
    config: HubConfig,
    database: Database,
    files: BlobFiles,
    *,
    wake: Callable[[], None] = lambda: None,
    broker_connected: Callable[[], bool] | None = None,
    trouble: Callable[[], str] = lambda: "",
    judge_limits: Judge | None = None,
) -> ASGIApp:
    """The ASGI application of one hub; for the parameters see `Site`."""
    site = Site(config, database, files, wake, broker_connected, trouble, judge_limits)

    async def healthz(_request: Request) -> Response:
        return await run_in_threadpool(_health, site)

    async def metrics(request: Request) -> Response:
        return await run_in_threadpool(_export.metrics, site, request)

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return await run_in_threadpool(_error_page, site, request, error)

    async def not_kept(request: Request, error: Exception) -> Response:
        assert isinstance(error, OperationalError)
        _log.error("%s: the database does not take it: %s", request.url.path, error.orig)
        detail = "The hub's database cannot take this now: is its disk full? Try again later."
        return await run_in_threadpool(_error_page, site, request, HTTPException(503, detail))

    async def openapi_json(_request: Request) -> Response:
        return JSONResponse(openapi.description(site.cookie))

    own = [Route("/healthz", healthz), Route("/metrics", metrics), Route("/openapi.json", openapi_json)]
    app = Starlette(
        routes=[*own, *_login_routes(site), *_page_routes(site), *_fhir_routes(site)],
        exception_handlers={HTTPException: failed, OperationalError: not_kept},
    )
    return SecurityHeaders(app, https=config.secure_cookies)


class SecurityHeaders:
    """Adds the headers to every response; pages with patients in them are not kept by any cache."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._headers = dict(HEADERS)
        if https:
            self._headers["strict-transport-security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        static = scope["path"].startswith("/static/")
        extra = self._headers | {"cache-control": "public, max-age=3600" if static else "no-store"}
        raw = [(name.encode(), value.encode()) for name, value in extra.items()]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in extra]
                message = {**message, "headers": [*kept, *raw]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _login_routes(site: Site) -> list[BaseRoute]:
    known: list[BaseRoute] = [
        Route("/login", _login.form(site)),
        Route("/login", _login.submit(site), methods=["POST"]),
    ]
    if not site.config.oidc_issuer:
        return [*known, Route("/logout", site.action(_login.log_out(None)), methods=["POST"])]
    try:
        # an extra that most hubs do not need
        from starlette.middleware.sessions import SessionMiddleware

        from aidpost.sync.hub import _oidc_login, _oidc_logout
    except ImportError as error:
        raise ConfigurationError(
            operation="preparing the login provider",
            target=site.config.oidc_issuer,
            cause=f"{error.name} is not installed",
            remedy="pip install 'aidpost[oidc]'",
        ) from None
    provider = _oidc_login.Provider(site.config)
    secure = site.config.secure_cookies
    remembers = Middleware(
        SessionMiddleware,
        secret_key=_oidc_login.cookie_key(identity.signing_key(site.config.state).private_bytes_raw()),
        session_cookie="__Host-oidc" if secure else "oidc",
        max_age=600,
        same_site="lax",  # the provider sends people back from its own site
        https_only=secure,
    )
    return [
        *known,
        Route("/login/oidc", _oidc_login.begin(site, provider), middleware=[remembers]),
        Route(_oidc_login.CALLBACK, _oidc_login.finish(site, provider), middleware=[remembers]),
        Route(_oidc_logout.PATH, _oidc_logout.endpoint(site, provider), methods=["POST"]),
        Route(
            "/logout",
            site.action(_login.log_out(lambda site, request: _oidc_login.log_out_there(site, request, provider))),
            methods=["POST"],
        ),
    ]


def _page_routes(site: Site) -> list[BaseRoute]:
    clinician = Role.CLINICIAN
    return [
        Route("/account", site.page(_account_page.account)),
        Route("/account/offer", site.action(_account_page.offer), methods=["POST"]),
        Route("/account/confirm", site.action(_account_page.confirm), methods=["POST"]),
        Route("/", site.page(_pages.worklist)),
        Route("/waiting.json", site.page(_pages.waiting, touch=False)),
        Route("/exams/{exam:uuid}", site.page(_exam_page.exam)),
        Route("/exams/{exam:uuid}/blobs/{sha256}", site.page(_exam_page.blob)),
        Route("/exams/{exam:uuid}/previews/{sha256}", site.page(_exam_page.preview)),
        Route("/exams/{exam:uuid}/reviews", site.action(_review_form.submit_review, role=clinician), methods=["POST"]),
        Route("/exams/{exam:uuid}/release", site.action(_review_form.release, role=clinician), methods=["POST"]),
        Route(
            "/exams/{exam:uuid}/referrals",
            site.action(_review_form.submit_referral, role=clinician),
            methods=["POST"],
        ),
        Route("/alerts", site.page(_pages.alert_list)),
        Route("/alerts/{alert:uuid}", site.action(_pages.answer_alert, role=clinician), methods=["POST"]),
        Route("/referrals", site.page(_pages.referral_list)),
        Route("/exams/{exam:uuid}/withdrawal", site.action(_patient_page.withdraw, role=clinician), methods=["POST"]),
        Route("/patients", site.page(_patient_page.search)),
        Route("/patients/{patient:uuid}/links", site.action(_patient_page.link, role=clinician), methods=["POST"]),
        Route("/patients/{patient:uuid}/parted", site.action(_patient_page.part, role=clinician), methods=["POST"]),
        Route(
            "/patients/{patient:uuid}/consents",
            site.action(_patient_page.withdraw_consent, role=clinician),
            methods=["POST"],
        ),
        Route(
            "/patients/{patient:uuid}/export",
            site.action(_patient_page.export, role=Role.ADMINISTRATOR),
            methods=["POST"],
        ),
        Route(
            "/patients/{patient:uuid}/erasure",
            site.action(_patient_page.erase, role=Role.ADMINISTRATOR),
            methods=["POST"],
        ),
        Route("/patients/{patient:uuid}", site.page(_patient_page.patient)),
        Route("/quality", site.page(_quality_page.quality)),
        Route("/quality.csv", site.page(_quality_page.quality_csv, role=clinician)),
        Route("/devices", site.page(_pages.devices)),
        Route("/unlock", site.page(_telephone_page.unlock, role=clinician), methods=["GET"]),
        Route("/unlock", site.action(_telephone_page.answer, role=clinician), methods=["POST"]),
        Route("/limits", site.page(_limits_page.limits, role=clinician), methods=["GET"]),
        Route("/limits", site.action(_limits_page.propose, role=clinician), methods=["POST"]),
        Route("/limits/{change:uuid}/signatures", site.action(_limits_page.sign, role=clinician), methods=["POST"]),
        Route("/limits/{change:uuid}/withdrawal", site.action(_limits_page.withdraw, role=clinician), methods=["POST"]),
        Route("/devices/settings", site.action(_pages.set_devices, role=Role.ADMINISTRATOR), methods=["POST"]),
        Route("/export.csv", site.page(_export.exams_csv, role=clinician)),
        Route("/rounds", site.page(_rounds_page.rounds_page, role=Role.ADMINISTRATOR)),
        Route("/audit", site.page(_pages.audit_log, role=Role.ADMINISTRATOR)),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]


def _fhir_routes(site: Site) -> list[Route]:
    answers: dict[str, _fhir_pages.Answer] = {
        "/fhir/DiagnosticReport": _fhir_pages.search_reports,
        "/fhir/DiagnosticReport/{id}": _fhir_pages.report,
        "/fhir/Observation": _fhir_pages.search_observations,
        "/fhir/Patient/{id}": _fhir_pages.patient,
        "/fhir/Bundle/{id}": _fhir_pages.exam_bundle,
    }
    answers |= {f"/fhir/{kind}": _fhir_pages.search_of(kind) for kind in ("Media", "Consent", "Device", "Task")}
    return [Route(path, _fhir_pages.endpoint(site, answer)) for path, answer in answers.items()]


def _health(site: Site) -> Response:
    try:
        with site.database.read() as connection:
            connection.execute(select(schema.hub.c.id)).one()
    except SQLAlchemyError:
        return JSONResponse({"status": "database unavailable"}, 503)
    connected = site.broker_connected() if site.broker_connected else None
    if (trouble := site.trouble()) == "store":
        return JSONResponse({"status": "records cannot be stored", "broker": connected}, 503)
    status = "ok" if connected is not False else "broker unavailable"
    return JSONResponse({"status": "disk nearly full" if trouble else status, "broker": connected})


def _error_page(site: Site, request: Request, error: HTTPException) -> Response:
    session = site.session(request)
    page = site.render(request, "error.html", session, error.status_code, code=error.status_code, detail=error.detail)
    page.headers.update(error.headers or {})  # "Allow", of a 405
    return page
