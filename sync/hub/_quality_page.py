"""The page that asks whether the models still work, here and lately."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, select
from starlette.requests import Request
from starlette.responses import Response

from aidpost.sync.hub import schema
from aidpost.sync.hub._site import Site
from aidpost.sync.hub.quality import LEAST_READ, SAMPLE_PERCENT, Performance, Stratum, performance
from aidpost.sync.hub.users import Session


class Row(NamedTuple):
    """One group of exams."""

    name: str
    performance: Performance


class Ungradable(NamedTuple):
    """How often a clinic's recordings could not be interpreted."""

    clinic: str
    exams: int
    ungradable: int
    abstained: int


def quality(site: Site, request: Request, session: Session) -> Response:
    """Sensitivity and specificity against the readers by clinic and sex; ungradable rates. Live exams only."""
    exams, reviews = schema.exams, schema.reviews
    with site.database.read() as connection:
        tables = [
            ("Referable diabetic retinopathy", _rows(connection, exams.c.dr_referable, reviews.c.dr_referable)),
            ("Atrial fibrillation", _rows(connection, exams.c.af, reviews.c.af)),
        ]
        ungradable = [
            Ungradable(*row)
            for row in connection.execute(
                select(
                    exams.c.clinic,
                    func.count(),
                    func.sum(case((exams.c.ungradable.is_(True), 1), else_=0)),
                    func.sum(case((exams.c.abstained.is_(True), 1), else_=0)),
                )
                .where(exams.c.origin == "live", exams.c.modalities.not_in(("", "vitals")))
                .group_by(exams.c.clinic)
                .order_by(exams.c.clinic)
            )
        ]
    return site.render(
        request,
        "quality.html",
        session,
        tables=tables,
        ungradable=ungradable,
        least=LEAST_READ,
        sample=SAMPLE_PERCENT,
    )


def _rows(connection: Connection, call: ColumnElement[Any], answer: ColumnElement[Any]) -> list[Row]:
    exams = schema.exams
    found = [Row("All", _performance(_strata(connection, call, answer, None).get(None, {})))]
    for group in (exams.c.clinic, exams.c.sex):
        strata = _strata(connection, call, answer, group)
        found += [Row(str(name), _performance(strata[name])) for name in sorted(strata)]
    return found


def _strata(
    connection: Connection, call: ColumnElement[Any], answer: ColumnElement[Any], group: ColumnElement[Any] | None
) -> dict[Any, dict[bool, Stratum]]:
    """Counts by group and by the device's call. The latest review of the shown report is the one that counts."""
    exams, reviews = schema.exams, schema.reviews
    later = reviews.alias("later")
    superseded = select(later.c.id).where(later.c.report == reviews.c.report, later.c.at_ms > reviews.c.at_ms).exists()
    joined = exams.outerjoin(reviews, (reviews.c.report == exams.c.report) & answer.is_not(None) & ~superseded)
    counts = (
        call.label("call"),
        func.count().label("total"),
        func.count(answer).label("read"),
        func.sum(case((answer.is_(True), 1), else_=0)).label("positive"),
    )
    columns = (*counts, group.label("name")) if group is not None else counts
    query = select(*columns).select_from(joined).where(call.is_not(None), exams.c.origin == "live")
    query = query.group_by(call, group) if group is not None else query.group_by(call)
    strata: dict[Any, dict[bool, Stratum]] = {}
    for row in connection.execute(query):
        name = row.name if group is not None else None
        strata.setdefault(name, {})[bool(row.call)] = Stratum(row.total, row.read, int(row.positive or 0))
    return strata


def _performance(strata: dict[bool, Stratum]) -> Performance:
    none = Stratum(0, 0, 0)
    return performance(strata.get(True, none), strata.get(False, none))
