"""The FHIR R4 read and search API: `/fhir/…`, for readers who are logged in."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, func, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from aidpost.records import ExamReport, Review, decode
from aidpost.sync.hub import audit, fhir, referrals, reviews, schema
from aidpost.sync.hub._fhir_records import task
from aidpost.sync.hub._site import Site
from aidpost.sync.hub.users import Session

_MEDIA = "application/fhir+json"
_MOST = 50

Answer = Callable[[Session, Connection, Request], tuple[int, fhir.Resource]]


def endpoint(site: Site, answer: Answer) -> Callable[[Request], Any]:
    """Wraps an answer: who is asking, the audit row, the media type."""

    def respond(request: Request) -> Response:
        session = site.session(request)
        if session is None or not site.proven(request, session):
            return _json(401, _outcome("login", "Log in first."))
        with site.database.read() as connection:
            status, resource = answer(session, connection, request)
        with site.database.write() as connection:
            audit.append(connection, session.user, "fhir-read", request.url.path, str(status))
        return _json(status, resource)

    async def handler(request: Request) -> Response:
        return await run_in_threadpool(respond, request)

    return handler


def report(session: Session, connection: Connection, request: Request) -> tuple[int, fhir.Resource]:
    """`/fhir/DiagnosticReport/<report>`"""
    found = _load(connection, session, schema.reports.c.id == _id(request))
    return (200, fhir.diagnostic_report(*found)) if found else _missing()


def patient(session: Session, connection: Connection, request: Request) -> tuple[int, fhir.Resource]:
    """`/fhir/Patient/<patient>`, as the newest exam has them."""
    newest = _newest(connection, session, _id(request), 1)
    return (200, fhir.patient(newest[0][0].patient)) if newest else _missing()


def exam_bundle(session: Session, connection: Connection, request: Request) -> tuple[int, fhir.Resource]:
    """`/fhir/Bundle/<exam>`: everything of one exam."""
    exams = schema.exams
    shown = select(exams.c.report).where(exams.c.id == _id(request)).scalar_subquery()
    found = _load(connection, session, schema.reports.c.id == shown)
    return (200, fhir.bundle(*found, str(request.base_url))) if found else _missing()


def search_reports(session: Session, connection: Connection, request: Request) -> tuple[int, fhir.Resource]:
    """`/fhir/DiagnosticReport?patient=<patient>`, newest first."""
    number = _search_patient(request)
    if number is None:
        return 400, _outcome("required", "Search by patient=<id>.")
    exams = schema.exams
    total = connection.execute(
        select(func.count()).where(exams.c.patient == number, session.sees(exams.c.clinic))
    ).scalar_one()
    resources = [fhir.diagnostic_report(*found) for found in _newest(connection, session, number, _MOST)]
    return 200, fhir.searchset(resources, total, str(request.base_url))


def search_observations(session: Session, connection: Connection, request: Request) -> tuple[int, fhir.Resource]:
    """`/fhir/Observation?patient=<patient>`: those of the newest exams."""
    number = _search_patient(request)
    if number is None:
        return 400, _outcome("required", "Search by patient=<id>.")
    resources = [item for found in _newest(connection, session, number, _MOST) for item in fhir.observations(*found)]
    return 200, fhir.searchset(resources, len(resources), str(request.base_url))


def search_of(kind: str) -> Answer:
    """`/fhir/<kind>?patient=<patient>`: the Media, Consent, Device or Task resources of the newest exams."""

    def answer(session: Session, connection: Connection, request: Request) -> tuple[int, fhir.Resource]:
        number = _search_patient(request)
        if number is None:
            return 400, _outcome("required", "Search by patient=<id>.")
        found: dict[str, fhir.Resource] = {}
        for report_, signed in _newest(connection, session, number, _MOST):
            made = fhir.resources(report_, signed, str(request.base_url))
            roots = referrals.roots(connection, report_.exam.id)
            made += [task(referral, roots[row.id]) for row, referral in referrals.of_exam(connection, report_.exam.id)]
            found |= {item["id"]: item for item in made if item["resourceType"] == kind}
        return 200, fhir.searchset(list(found.values()), len(found), str(request.base_url))

    return answer


def _newest(
    connection: Connection, session: Session, number: uuid.UUID | None, most: int
) -> list[tuple[ExamReport, list[Review]]]:
    exams = schema.exams
    shown = connection.execute(
        select(exams.c.report).where(exams.c.patient == number).order_by(exams.c.started_ms.desc()).limit(most)
    ).scalars()
    loaded = [_load(connection, session, schema.reports.c.id == found) for found in shown.all()]
    return [found for found in loaded if found]


def _load(connection: Connection, session: Session, where: Any) -> tuple[ExamReport, list[Review]] | None:
    envelopes, listed = schema.envelopes, schema.reports
    row = connection.execute(
        select(envelopes.c.body)
        .join(listed, (listed.c.stream == envelopes.c.stream) & (listed.c.seq == envelopes.c.seq))
        .join(schema.exams, schema.exams.c.id == listed.c.exam)
        .where(where, session.sees(schema.exams.c.clinic))
    ).one_or_none()
    if row is None:
        return None
    report_ = decode(ExamReport, bytes(row.body))
    return report_, list(reviews.settled(connection, report_.id))


def _id(request: Request) -> uuid.UUID | None:
    try:
        return uuid.UUID(request.path_params["id"])
    except ValueError:
        return None


def _search_patient(request: Request) -> uuid.UUID | None:
    try:
        return uuid.UUID(request.query_params.get("patient", "").removeprefix("Patient/"))
    except ValueError:
        return None


def _missing() -> tuple[int, fhir.Resource]:
    return 404, _outcome("not-found", "There is no such resource here.")


def _outcome(code: str, text: str) -> fhir.Resource:
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": code, "diagnostics": text}],
    }


def _json(status: int, resource: fhir.Resource) -> Response:
    return JSONResponse(resource, status, media_type=_MEDIA)
