"""Numbers for other programs: Prometheus metrics, and the exams as CSV without names."""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, func, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from aidpost.records import TriageLevel
from aidpost.sync.hub import _quality_data, audit, outgoing, referrals, schema, tally, unusual
from aidpost.sync.hub._calls import TASKS
from aidpost.sync.hub._site import Site
from aidpost.sync.hub.clocks import day
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.users import Role, Session

_COLUMNS = (
    "id", "patient", "report", "device", "clinic", "birth_date", "sex", "triage", "origin", "dr_grade", "abstained",
    "ungradable", "modalities", "started_ms", "time_basis", "received_ms", "state",
)  # fmt: skip
_PAGE = 1000


def metrics(site: Site, request: Request) -> Response:
    """`/metrics` in Prometheus' text format. Names devices, never patients."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    expected = site.config.metrics_token
    if not (expected and secrets.compare_digest(token.encode(), expected.encode())):
        session = site.session(request)
        if session is None or session.role is not Role.ADMINISTRATOR:
            raise HTTPException(401, "Metrics need the token of hub.metrics_token.")
    site.tally.catch_up()
    with site.database.read() as connection:
        lines = list(_lines(site, connection))
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def exams_csv(site: Site, _request: Request, session: Session) -> Response:
    """All exams, one a row, without names, numbers or telephones. Audited."""
    with site.database.write() as connection:
        audit.append(connection, session.user, "exported", "exams.csv")
    headers = {"content-disposition": f'attachment; filename="exams-{day(now_ms())}.csv"'}
    return StreamingResponse(_rows(site, session), media_type="text/csv; charset=utf-8", headers=headers)


def _rows(site: Site, session: Session) -> Iterator[str]:
    exams, last = schema.exams, None
    yield _line([*_COLUMNS])
    while True:
        query = select(*(exams.c[name] for name in _COLUMNS)).where(session.sees(exams.c.clinic))
        query = query.order_by(exams.c.id).limit(_PAGE)
        if last is not None:
            query = query.where(exams.c.id > last)
        with site.database.read() as connection:
            page = connection.execute(query).all()
        for row in page:
            level = list(TriageLevel)[row.triage].value
            yield _line([level if name == "triage" else getattr(row, name) for name in _COLUMNS])
        if len(page) < _PAGE:
            return
        last = page[-1].id


def _line(values: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([_cell(value) for value in values])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    # a spreadsheet runs what begins like a formula
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _lines(site: Site, connection: Connection) -> Iterator[str]:
    devices = schema.devices
    yield "# TYPE aidpost_exams gauge"
    for (state, rank), number in _quality_data.states(connection).items():
        yield f'aidpost_exams{{state="{state}",triage="{list(TriageLevel)[rank].value}"}} {number}'
    yield "# TYPE aidpost_device_last_seen_seconds gauge"
    yield "# TYPE aidpost_device_queued gauge"
    yield "# TYPE aidpost_device_dead_letters gauge"
    for row in connection.execute(select(devices).order_by(devices.c.name)):
        if row.seen_ms is not None:
            yield f'aidpost_device_last_seen_seconds{{device="{row.name}"}} {row.seen_ms / 1000:.0f}'
        yield f'aidpost_device_queued{{device="{row.name}"}} {row.queued}'
        yield f'aidpost_device_dead_letters{{device="{row.name}"}} {row.dead_letters}'
    totals: tuple[tuple[str, Select[Any]], ...] = (
        ("aidpost_rejected_records", select(func.count()).select_from(schema.rejects)),
        ("aidpost_conflicts", select(func.count()).select_from(schema.conflicts)),
        ("aidpost_blobs_waiting", select(func.count()).where(schema.manifests.c.waiting.is_(True))),
        ("aidpost_outgoing_waiting", outgoing.waiting_count()),
    )
    for name, query in totals:
        yield f"# TYPE {name} gauge"
        yield f"{name} {connection.execute(query).scalar_one()}"
    yield "# TYPE aidpost_referrals_overdue gauge"
    yield f"aidpost_referrals_overdue {referrals.overdue(connection, day(now_ms()))}"
    yield "# TYPE aidpost_alerts_unanswered gauge"
    unanswered = select(func.count()).where(schema.alerts.c.next_ms.is_not(None))
    yield f"aidpost_alerts_unanswered {connection.execute(unanswered).scalar_one()}"
    yield "# TYPE aidpost_unusual_access gauge"
    yield f"aidpost_unusual_access {len(unusual.find(connection, now_ms()))}"
    yield from site.remembered(("metrics",), lambda one: tuple(_quality_lines(one)))
    yield "# TYPE aidpost_counts_due gauge"
    yield f"aidpost_counts_due {tally.standing(connection).due}"
    yield "# TYPE aidpost_disk_free_bytes gauge"
    yield f"aidpost_disk_free_bytes {site.files.free_bytes()}"
    yield "# TYPE aidpost_cannot_store gauge"
    yield f"aidpost_cannot_store {int(site.trouble() == 'store')}"
    if site.broker_connected:
        yield "# TYPE aidpost_broker_connected gauge"
        yield f"aidpost_broker_connected {int(site.broker_connected())}"


def _quality_lines(connection: Connection) -> Iterator[str]:
    """What the quality page shows of all clinics together; what is not estimable has no line."""
    everybody = Session("metrics", "", Role.ADMINISTRATOR, "", 0)
    for task in TASKS:
        found = _quality_data.rows_of(connection, everybody, task)[0].performance
        yield f'aidpost_model_abstained{{task="{task}"}} {found.abstained.total}'
        for name, interval in (("sensitivity", found.sensitivity), ("specificity", found.specificity)):
            if interval is not None:
                for bound in ("value", "low", "high"):
                    yield f'aidpost_model_{name}{{task="{task}",bound="{bound}"}} {getattr(interval, bound):.4f}'
    for drift in _quality_data.drifts(connection, everybody, now_ms()):
        if drift.psi is not None:
            yield f'aidpost_stability_index{{task="{drift.task}",quantity="{drift.quantity}"}} {drift.psi:.4f}'
