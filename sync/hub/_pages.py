"""The lists: exams to read, devices, the audit log."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, func, select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from aidpost.records import TriageLevel
from aidpost.sync.hub import audit, referrals, schema
from aidpost.sync.hub._site import Site, day
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.users import Session

_PAGE = 50
_SILENT_MS = 24 * 3_600_000
_SHOWN = ("open", "retake", "reviewed", "all")


def worklist(site: Site, request: Request, session: Session) -> Response:
    """Exams by triage, and of each level those that have waited longest first."""
    show = request.query_params.get("show", "open")
    show = show if show in _SHOWN else "open"
    page = _page_number(request)
    exams = schema.exams
    query = select(exams) if show == "all" else select(exams).where(exams.c.state == show)
    if show in ("open", "retake"):
        query = query.order_by(exams.c.triage.desc(), exams.c.started_ms, exams.c.id)
    else:
        query = query.order_by(exams.c.started_ms.desc(), exams.c.id)
    with site.database.read() as connection:
        rows, more = _paged(connection, query, page)
        counts = _waiting(connection)
        photos = _previews(connection, [row.id for row in rows])
    return site.render(
        request,
        "worklist.html",
        session,
        exams=rows,
        more=more,
        page=page,
        show=show,
        waiting=counts,
        photos=photos,
        levels=list(TriageLevel),
    )


def waiting(site: Site, _request: Request, _session: Session) -> Response:
    """How many exams of each triage wait, as JSON: what the worklist's script asks for now and then."""
    with site.database.read() as connection:
        counts = _waiting(connection)
    return JSONResponse({level.value: counts.get(level.rank, 0) for level in TriageLevel})


def devices(site: Site, request: Request, session: Session) -> Response:
    """The fleet: who was seen when, and what they still hold."""
    table = schema.devices
    with site.database.read() as connection:
        rows = connection.execute(select(table).order_by(table.c.name)).all()
        exams = _counts(connection, select(schema.exams.c.device, func.count()).group_by(schema.exams.c.device))
        rejected = _counts(
            connection,
            select(schema.streams.c.device, func.count())
            .join(schema.rejects, schema.rejects.c.stream == schema.streams.c.id)
            .group_by(schema.streams.c.device),
        )
        waiting = _counts(
            connection,
            select(schema.manifests.c.device, func.count())
            .where(schema.manifests.c.waiting.is_(True))
            .group_by(schema.manifests.c.device),
        )
    silent = {row.name for row in rows if row.seen_ms is None or now_ms() - row.seen_ms > _SILENT_MS}
    return site.render(
        request,
        "devices.html",
        session,
        devices=rows,
        exams=exams,
        rejected=rejected,
        waiting=waiting,
        silent=silent,
        broker=site.broker_connected() if site.broker_connected else None,
    )


def referral_list(site: Site, request: Request, session: Session) -> Response:
    """Who was sent where, and who has not been seen."""
    page, today = _page_number(request), day(now_ms())
    show = "all" if request.query_params.get("show") == "all" else "due"
    with site.database.read() as connection:
        rows = referrals.page(connection, only_open=show == "due", limit=_PAGE + 1, offset=(page - 1) * _PAGE)
        late = referrals.overdue(connection, today)
    return site.render(
        request,
        "referrals.html",
        session,
        rows=rows[:_PAGE],
        more=len(rows) > _PAGE,
        page=page,
        show=show,
        overdue=late,
        today=today,
    )


def audit_log(site: Site, request: Request, session: Session) -> Response:
    """The newest rows, and whether the chain holds."""
    page = _page_number(request)
    with site.database.read() as connection:
        rows, more = _paged(connection, select(schema.audit).order_by(schema.audit.c.id.desc()), page)
        state = audit.verify(connection) if "verify" in request.query_params else None
    return site.render(request, "audit.html", session, rows=rows, more=more, page=page, state=state)


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def _paged(connection: Connection, query: Select[Any], page: int) -> tuple[list[Any], bool]:
    rows = list(connection.execute(query.limit(_PAGE + 1).offset((page - 1) * _PAGE)).all())
    return rows[:_PAGE], len(rows) > _PAGE


def _waiting(connection: Connection) -> dict[int, int]:
    exams = schema.exams
    return _counts(
        connection, select(exams.c.triage, func.count()).where(exams.c.state == "open").group_by(exams.c.triage)
    )


def _counts(connection: Connection, query: Select[Any]) -> dict[Any, int]:
    return {row[0]: row[1] for row in connection.execute(query)}


def _previews(connection: Connection, exam_ids: list[Any]) -> dict[Any, str]:
    """One photograph's preview for each exam that has one."""
    table = schema.manifests
    rows = connection.execute(
        select(table.c.exam, func.min(table.c.sha256))
        .where(table.c.exam.in_(exam_ids), func.length(table.c.preview) > 0)
        .group_by(table.c.exam)
    )
    return {row[0]: row[1] for row in rows}
