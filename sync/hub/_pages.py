"""The lists: exams to read, devices, the audit log."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select, true
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from aidpost.errors import UsageError
from aidpost.records import TriageLevel
from aidpost.sync.hub import (
    _limits_page,
    alerts,
    audit,
    deliveries,
    device_settings,
    leases,
    readings,
    referrals,
    schema,
    unusual,
    updates,
)
from aidpost.sync.hub._site import Form, Site
from aidpost.sync.hub.clocks import day
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.readings import Part
from aidpost.sync.hub.users import Role, Session
from aidpost.sync.settings import REMOTE, value_of

_PAGE = 50
_SILENT_MS = 24 * 3_600_000
_SHOWN = ("open", "sample", "retake", "reviewed", "all")


def worklist(site: Site, request: Request, session: Session) -> Response:
    """Exams by triage, and of each level those that have waited longest first."""
    show = request.query_params.get("show", "open")
    show = show if show in _SHOWN else "open"
    page = _page_number(request)
    exams = schema.exams
    query = select(exams).where(session.sees(exams.c.clinic))
    if show in ("open", "sample"):
        query = query.where(exams.c.state == "open", _to_read(site, session))
    elif show != "all":
        query = query.where(exams.c.state == show)
    if show == "sample":
        # in the order of time, which tells nobody what the device found
        query = query.where(or_(exams.c.sampled.is_(True), exams.c.abstained.is_(True))).order_by(exams.c.started_ms)
    if show in ("open", "retake"):
        query = query.order_by(exams.c.triage.desc(), exams.c.started_ms, exams.c.id)
    elif show != "sample":
        query = query.order_by(exams.c.started_ms.desc(), exams.c.id)
    with site.database.read() as connection:
        rows, more = _paged(connection, query, page)
        counts = _waiting(connection, site, session)
        ids = [row.id for row in rows]
        photos = _previews(connection, ids)
        held = leases.holders(connection, ids, now_ms())
        read = readings.standing(connection, [row.report for row in rows])
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
        held=held,
        standing={row.id: _standing(row, read.get(row.report, {})) for row in rows},
        blinded=_blinded(site, rows),
        levels=list(TriageLevel),
    )


def _blinded(site: Site, rows: list[Any]) -> set[Any]:
    """The exams of which the list does not tell what the device found."""
    config = site.config
    shadow = {clinic for clinic in {row.clinic for row in rows} if site.shadowed(clinic)}
    return {
        row.id
        for row in rows
        if row.state == "open"
        and row.modalities not in ("", "vitals")
        and (config.blinded_first_read or row.clinic in shadow or (config.blinded_sample and row.sampled))
    }


def _standing(row: Any, read: dict[str, Any]) -> list[Part]:
    return [Part(name, read.get(name, ())) for name in readings.parts_of(row.modalities)]


def _to_read(site: Site, session: Session) -> ColumnElement[bool]:
    """Open exams that have a part for this reader. Only where parts are read twice, the readings of each are looked at:
    nobody reads one twice."""
    config = site.config
    once = config.readers == 1 and not config.second_reader_against_device
    if not session.may_review or (once and set(session.parts) == set(readings.PARTS)):
        return true()
    exams, table = schema.exams, schema.readings

    def for_me(part: str) -> ColumnElement[bool]:
        waits = exams.c.waits.contains(part)
        mine = select(table.c.number).where(table.c.report == exams.c.report, table.c.part == part)
        return waits if once else waits & ~mine.where(table.c.reader == session.user).exists()

    return or_(*(for_me(part) for part in (*session.parts, readings.GENERAL)))


def waiting(site: Site, _request: Request, session: Session) -> Response:
    """How many exams of each triage wait and how many alerts nobody has answered, as JSON: what the pages' script asks
    for now and then."""
    with site.database.read() as connection:
        counts = _waiting(connection, site, session)
        unanswered = alerts.unanswered(connection, session)
    return JSONResponse({level.value: counts.get(level.rank, 0) for level in TriageLevel} | {"alerts": unanswered})


def alert_list(site: Site, request: Request, session: Session) -> Response:
    """What a person must hear of, the unanswered first, with all that was done about each."""
    page, show = _page_number(request), "all" if request.query_params.get("show") == "all" else "open"
    table, exams = schema.alerts, schema.exams
    query = select(table, exams.c.patient_name, exams.c.origin).outerjoin(exams, exams.c.id == table.c.exam)
    query = query.where(session.sees(table.c.clinic))
    if show == "open":
        query = query.where(table.c.next_ms.is_not(None)).order_by(table.c.triage.desc(), table.c.opened_ms)
    else:
        query = query.order_by(table.c.opened_ms.desc())
    with site.database.read() as connection:
        rows, more = _paged(connection, query, page)
        steps = alerts.steps(connection, [row.id for row in rows])
    return site.render(request, "alerts.html", session, rows=rows, all_steps=steps, more=more, page=page, show=show)


def answer_alert(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Somebody answers for an alert."""
    number, text = request.path_params["alert"], form.get("text", "")[:500]
    table = schema.alerts
    with site.database.write() as connection:
        row = connection.execute(
            select(table.c.exam).where(table.c.id == number, session.sees(table.c.clinic))
        ).one_or_none()
        if row is None:
            raise HTTPException(404, "There is no such alert here.")
        if not text:
            raise HTTPException(400, "Say in a few words what was done.")
        epoch = site.database.epoch
        alerts.acknowledge(connection, epoch, number, session.user, session.full_name, text, now_ms())
    site.wake()
    return RedirectResponse(f"/exams/{row.exam}" if form.get("back") == "exam" else "/alerts", 303)


def devices(site: Site, request: Request, session: Session) -> Response:
    """The fleet: who was seen when, and what they still hold."""
    table = schema.devices
    with site.database.read() as connection:
        rows = connection.execute(select(table).where(session.sees(table.c.clinic)).order_by(table.c.name)).all()
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
        found = updates.rollouts(connection)
        settings = device_settings.listed(connection) if session.role is Role.ADMINISTRATOR else []
        to_sign = _limits_page.waiting(connection, session)
        sent: dict[str, list[deliveries.Sent]] = {}
        for one in deliveries.latest(connection):
            sent.setdefault(one.device, []).append(one)
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
        rollouts=found,
        sent=sent,
        may_set=session.role is Role.ADMINISTRATOR and bool(rows),
        settings=settings,
        to_sign=to_sign,
        keys=tuple(REMOTE),
        clinics=sorted({row.clinic for row in rows if row.clinic}),
        broker=site.broker_connected() if site.broker_connected else None,
    )


def set_devices(site: Site, _request: Request, session: Session, form: Form) -> Response:
    """Change a setting of a clinic's devices, or of one."""
    scope, _, name = form.get("of", "").partition(" ")
    key, text = form.get("key", ""), form.get("value", "")
    table = schema.devices
    column = table.c.clinic if scope == "clinic" else table.c.name
    try:
        value = value_of(key, text) if text else None
        with site.database.write() as connection:
            query = select(table.c.name).where(column == name, session.sees(table.c.clinic)).limit(1)
            if scope not in ("clinic", "device") or connection.execute(query).first() is None:
                raise HTTPException(404, "There is no such device or clinic.")
            wanted: device_settings.Scope = "clinic" if scope == "clinic" else "device"
            device_settings.change(connection, site.database.epoch, wanted, name, key, value, session.user, now_ms())
    except UsageError as error:
        raise HTTPException(400, f"{error.target}: {error.cause}") from None
    site.wake()
    return RedirectResponse("/devices", 303)


def referral_list(site: Site, request: Request, session: Session) -> Response:
    """Who was sent where, and who has not been seen."""
    page, today = _page_number(request), day(now_ms())
    show = "all" if request.query_params.get("show") == "all" else "due"
    with site.database.read() as connection:
        rows = referrals.page(connection, session, only_open=show == "due", limit=_PAGE + 1, offset=(page - 1) * _PAGE)
        late = referrals.overdue(connection, today, session)
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
        flagged = unusual.find(connection, now_ms())
    return site.render(request, "audit.html", session, rows=rows, more=more, page=page, state=state, flagged=flagged)


def _page_number(request: Request) -> int:
    text = request.query_params.get("page", "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def _paged(connection: Connection, query: Select[Any], page: int) -> tuple[list[Any], bool]:
    rows = list(connection.execute(query.limit(_PAGE + 1).offset((page - 1) * _PAGE)).all())
    return rows[:_PAGE], len(rows) > _PAGE


def _waiting(connection: Connection, site: Site, session: Session) -> dict[int, int]:
    exams = schema.exams
    query = select(exams.c.triage, func.count()).where(exams.c.state == "open", session.sees(exams.c.clinic))
    return _counts(connection, query.where(_to_read(site, session)).group_by(exams.c.triage))


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
