"""The page that asks whether the models still work, here and lately; the same as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from aidpost.sync.hub import _quality_data, audit, tally
from aidpost.sync.hub._calls import TASKS
from aidpost.sync.hub._site import Site
from aidpost.sync.hub.clocks import day
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.quality import LEAST_DRIFT, LEAST_READ, SAMPLE_PERCENT, Interval
from aidpost.sync.hub.users import Session

TITLES = {"dr": "Referable diabetic retinopathy", "af": "Atrial fibrillation"}


def quality(site: Site, request: Request, session: Session) -> Response:
    """Performance against the readers by group, drift, ungradable rates, times and outcomes. Live exams only."""

    def find(connection: Connection) -> dict[str, Any]:
        now = now_ms()
        return {
            "tables": [(TITLES[task], _quality_data.rows_of(connection, session, task)) for task in TASKS],
            "rates": _quality_data.rates(connection, session),
            "drifts": _quality_data.drifts(connection, session, now),
            "times": _quality_data.turnaround(connection, session, now),
            "outcomes": _quality_data.outcomes(connection, session, now),
            "standing": tally.standing(connection),
        }

    found = site.remembered(("quality", *session.clinics), find, counts=True)
    clinics = sorted({row.name for _, rows in found["tables"] for row in rows if row.group == "clinic"})
    return site.render(
        request,
        "quality.html",
        session,
        titles=TITLES,
        least=LEAST_READ,
        least_drift=LEAST_DRIFT,
        sample=SAMPLE_PERCENT,
        shadowed={task: [clinic for clinic in clinics if task in site.shadowed(clinic)] for task in TASKS}
        if site.config.shadow_bound
        else None,
        **found,
    )


def quality_csv(site: Site, _request: Request, session: Session) -> Response:
    """Every figure of the page, one a row. Audited."""
    now, buffer = now_ms(), io.StringIO()
    write = csv.writer(buffer).writerow
    write(("what", "group", "name", "value", "low", "high", "numerator", "denominator"))
    with site.database.write() as connection:
        audit.append(connection, session.user, "exported", "quality.csv")
    site.tally.catch_up()
    with site.database.read() as connection:
        for task in TASKS:
            for group, name, found in _quality_data.rows_of(connection, session, task):
                for what, interval in (("sensitivity", found.sensitivity), ("specificity", found.specificity)):
                    write((f"{task} {what}", group, _cell(name), *_interval(interval), "", ""))
                write((f"{task} kappa", group, _cell(name), "" if found.kappa is None else found.kappa, "", "", "", ""))
                for what, stratum in (
                    ("called positive", found.called_positive),
                    ("called negative", found.called_negative),
                    ("abstained", found.abstained),
                ):
                    write((f"{task} {what}: read", group, _cell(name), "", "", "", stratum.read, stratum.total))
        for group, name, task, total, unusable, abstained in _quality_data.rates(connection, session):
            write((f"{task} ungradable", group, _cell(name), "", "", "", unusable, total))
            write((f"{task} abstained", group, _cell(name), "", "", "", abstained, total))
        for task, quantity, recent, before, value in _quality_data.drifts(connection, session, now):
            write(
                (
                    f"{task} {quantity} stability index",
                    "all",
                    "",
                    "" if value is None else value,
                    "",
                    "",
                    recent,
                    before,
                )
            )
        for name, number, median, ninety in _quality_data.turnaround(connection, session, now):
            write((f"{name}, hours: median, nine of ten", "all", "", median, "", ninety, "", number))
        for name, part, total, interval in _quality_data.outcomes(connection, session, now):
            write((name, "all", "", *_interval(interval), part, total))
    headers = {"content-disposition": f'attachment; filename="quality-{day(now)}.csv"'}
    return Response(buffer.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _interval(interval: Interval | None) -> tuple[object, object, object]:
    return (interval.value, interval.low, interval.high) if interval else ("", "", "")


def _cell(text: str) -> str:
    # a spreadsheet runs what begins like a formula
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
