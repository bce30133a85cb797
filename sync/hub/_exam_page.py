"""One exam, whole: what was recorded, what the models said, and which they were."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from aidpost.records import (
    BlobRef,
    EcgResult,
    ExamReport,
    Eye,
    FundusResult,
    ModelRef,
    Review,
    Timestamp,
    VitalSign,
    decode,
)
from aidpost.sync.hub import (
    _trends,
    alerts,
    audit,
    catalogue,
    clocks,
    dicom,
    ecg_paper,
    leases,
    patients,
    readings,
    referrals,
    reviews,
    schema,
)
from aidpost.sync.hub._blob_intake import partial_row
from aidpost.sync.hub._calls import TASKS
from aidpost.sync.hub._site import Site
from aidpost.sync.hub.clocks import day
from aidpost.sync.hub.database import now_ms, unpack_ranges
from aidpost.sync.hub.readings import Part
from aidpost.sync.hub.users import Session
from aidpost.sync.ranges import count

_PICTURES = {"image/jpeg", "image/png"}


class BlobView(NamedTuple):
    """How much of a picture is here."""

    ref: BlobRef
    complete: bool
    received: int
    preview: bool

    @property
    def is_picture(self) -> bool:
        """Whether a browser shows it."""
        return self.ref.media_type in _PICTURES


class PhotoView(NamedTuple):
    """A photograph with its result."""

    result: FundusResult
    photo: BlobView | None
    heatmap: BlobView | None


class EcgView(NamedTuple):
    """An ECG with its trace, or the reason why it is not drawn."""

    result: EcgResult
    paper: ecg_paper.Paper | None
    missing: str


class Before(NamedTuple):
    """The patient's last earlier exam with the same kind of recording: its row, its photographs by eye, its ECG."""

    exam: Any
    photos: dict[Eye | None, PhotoView]
    ecg: EcgResult | None


class WhenView(NamedTuple):
    """When an exam was, how that is known, and what the device believed."""

    ms: int
    basis: str
    device: Timestamp
    after_ms: int | None
    before_ms: int


def exam(site: Site, request: Request, session: Session) -> Response:
    """The page of one exam. Opening it is audited."""
    number: uuid.UUID = request.path_params["exam"]
    now = now_ms()
    with site.database.write() as connection:
        row, report = load(connection, number, session)
        audit.append(connection, session.user, "exam-opened", str(number))
        parts = readings.parts(connection, row)
        mine, others = _take(connection, site, session, number, parts, now)
    with site.database.read() as connection:
        photos = [_photo(connection, site, row.device, result) for result in report.fundus]
        past = reviews.of_exam(connection, number)
        everybody = patients.group(connection, row.patient)
        hidden = hidden_from(site, session, row, parts)
        shown: dict[str, Any] = {
            "when": _when(connection, row, report),
            "vitals": _vitals(connection, report),
            "arrived": reviews.arrived(connection, row.device, past),
            "referred": referrals.of_exam(connection, number),
            "versions": connection.execute(
                select(func.count()).select_from(schema.reports).where(schema.reports.c.exam == number)
            ).scalar_one(),
            "alerts": alerts.of_exam(connection, number),
            "withdrawal": patients.withdrawal(connection, number),
            "at_pacs": dicom.stored(connection, schema.dicom_objects.c.exam == number),
            "before_eyes": _before(connection, site, session, row, everybody, "eyes") if report.fundus else None,
            "before_ecg": _before(connection, site, session, row, everybody, "ecg") if report.ecg else None,
            "trends": _trends.lines(_trends.measured(connection, session, everybody)),
        }
    return site.render(
        request,
        "exam.html",
        session,
        exam=row,
        report=report,
        eyes=[(eye, [p for p in photos if p.result.eye is eye]) for eye in (Eye.RIGHT, Eye.LEFT, None)],
        ecgs=[_ecg(site, request, result) for result in report.ecg],
        models=_models(report),
        answer_text=_answer_text,
        parts=parts,
        mine=mine,
        others=others,
        hidden=hidden,
        past=_readable_past(past, parts, session, hidden),
        today=day(now),
        grade_name=catalogue.grade_name,
        **shown,
    )


def _take(
    connection: Connection, site: Site, session: Session, exam: uuid.UUID, parts: Sequence[Part], now: int
) -> tuple[tuple[str, ...], list[Any]]:
    """The parts that this reader signs here, taken for them where they are open; and who has the others."""
    if not session.may_review:
        return (), []
    allowed = readings.readable(parts, session.user, session.parts)
    taken = leases.take(
        connection, exam, [part.name for part in allowed if not part.done], session.user, now, site.config.lease_minutes
    )
    mine = tuple(part.name for part in allowed if part.done or part.name in taken)
    held = leases.holders(connection, [exam], now).get(exam, [])
    return mine, [row for row in held if row.reader != session.user]


def hidden_from(site: Site, session: Session, exam: Any, parts: Sequence[Part]) -> frozenset[str]:
    """The parts whose findings this reader does not see yet, because they have not graded them: all where the hub is so
    configured, those of a clinic in shadow mode, and those of the random sample that measures the device."""
    config = site.config
    every = config.blinded_first_read or (config.blinded_sample and exam.sampled)
    shadow = {TASKS[task] for task in site.shadowed(exam.clinic)}
    return frozenset(
        part.name
        for part in parts
        if part.name != readings.GENERAL
        and (every or part.name in shadow)
        and not part.done
        and part.state != "disputed"
        and session.user not in {reading.reader for reading in part.readings}
    )


def _readable_past(
    past: Sequence[Review], parts: Sequence[Part], session: Session, hidden: frozenset[str]
) -> list[Review]:
    """Reviews without those that would tell an independent second reader what the first one said."""
    unsettled = {row.review for part in parts if part.state == "waiting" for row in part.readings}
    return [
        review
        for review in past
        if not hidden & set(review.parts) and (review.id not in unsettled or review.reviewer == session.full_name)
    ]


def blob(site: Site, request: Request, session: Session) -> Response:
    """A photograph or heatmap of an exam, as it came. Only what this exam's report names is given."""
    sha256 = request.path_params["sha256"]
    with site.database.read() as connection:
        row, report = load(connection, request.path_params["exam"], session)
        blind = readings.EYES in hidden_from(site, session, row, readings.parts(connection, row))
    refs = [ref for photo in report.fundus for ref in (photo.body, None if blind else photo.heatmap) if ref]
    ref = next((ref for ref in refs if ref.sha256 == sha256), None)
    if ref is None or not site.files.is_complete(sha256):
        raise HTTPException(404, "This picture is not here.")
    if ref.media_type in _PICTURES:
        return FileResponse(site.files.path(sha256), media_type=ref.media_type)
    return FileResponse(site.files.path(sha256), media_type="application/octet-stream", filename=f"{sha256}.bin")


def preview(site: Site, request: Request, session: Session) -> Response:
    """The small JPEG that came ahead of a photograph."""
    table = schema.manifests
    with site.database.read() as connection:
        row_of(connection, request.path_params["exam"], session)
        small = connection.execute(
            select(table.c.preview)
            .where(table.c.exam == request.path_params["exam"], table.c.sha256 == request.path_params["sha256"])
            .limit(1)
        ).scalar_one_or_none()
    if not small:
        raise HTTPException(404, "This picture is not here.")
    return Response(bytes(small), media_type="image/jpeg")


def row_of(connection: Connection, number: uuid.UUID, session: Session) -> Any:
    """The row of an exam that this user may see.

    Raises
    ------
    HTTPException
        404: there is no such exam, or it is another clinic's.
    """
    exams = schema.exams
    row = connection.execute(select(exams).where(exams.c.id == number, session.sees(exams.c.clinic))).one_or_none()
    if row is None:
        raise HTTPException(404, "There is no such exam here.")
    return row


def load(connection: Connection, number: uuid.UUID, session: Session) -> tuple[Any, ExamReport]:
    """The row and the report that counts; raises as `row_of` does."""
    row = row_of(connection, number, session)
    table, reports = schema.envelopes, schema.reports
    body = connection.execute(
        select(table.c.body)
        .join(reports, (reports.c.stream == table.c.stream) & (reports.c.seq == table.c.seq))
        .where(reports.c.id == row.report)
    ).scalar_one()
    return row, decode(ExamReport, bytes(body))


def _photo(connection: Connection, site: Site, device: str, result: FundusResult) -> PhotoView:
    def view(ref: BlobRef | None) -> BlobView | None:
        if ref is None:
            return None
        if site.files.is_complete(ref.sha256):
            return BlobView(ref, True, ref.size, False)
        partial = partial_row(connection, device, ref.sha256)
        table = schema.manifests
        small = connection.execute(
            select(table.c.preview).where(table.c.sha256 == ref.sha256).limit(1)
        ).scalar_one_or_none()
        received = count(unpack_ranges(partial.ranges)) if partial else 0
        return BlobView(ref, False, received, bool(small))

    return PhotoView(result, view(result.body), view(result.heatmap))


def _before(
    connection: Connection, site: Site, session: Session, row: Any, everybody: Sequence[uuid.UUID], modality: str
) -> Before | None:
    exams = schema.exams
    earlier = connection.execute(
        select(exams)
        .where(
            patients.exams_of(connection, everybody), exams.c.started_ms < row.started_ms, session.sees(exams.c.clinic)
        )
        .where(exams.c.modalities.contains(modality))
        .order_by(exams.c.started_ms.desc())
        .limit(1)
    ).one_or_none()
    if earlier is None:
        return None
    _, report = load(connection, earlier.id, session)
    photos: dict[Eye | None, PhotoView] = {}
    for result in sorted(report.fundus, key=lambda photo: (photo.quality.usable, photo.quality.score)):
        photos[result.eye] = _photo(connection, site, earlier.device, result)  # the best one stays
    return Before(earlier, photos, report.ecg[-1] if report.ecg else None)


def _ecg(site: Site, request: Request, result: EcgResult) -> EcgView:
    if result.body is None:
        return EcgView(result, None, "no trace was kept")
    if not site.files.is_complete(result.body.sha256):
        return EcgView(result, None, "the trace has not arrived yet")
    lead, start = "", 0.0
    if request.query_params.get("ecg") == str(result.id):
        lead = request.query_params.get("lead", "")
        text = request.query_params.get("from", "0")
        start = float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
    body = site.files.path(result.body.sha256).read_bytes()
    return EcgView(result, ecg_paper.draw(result, body, lead=lead, start_s=start), "")


def _when(connection: Connection, row: Any, report: ExamReport) -> WhenView:
    after, before = clocks.bounds(connection, row.device, row.device_boot, row.received_ms)
    return WhenView(row.started_ms, row.time_basis, report.exam.started, after, before)


def _vitals(connection: Connection, report: ExamReport) -> list[VitalSign]:
    """Those in the report and those that were sent by themselves."""
    table, envelopes = schema.vitals, schema.envelopes
    bodies = connection.execute(
        select(envelopes.c.body)
        .join(table, (table.c.stream == envelopes.c.stream) & (table.c.seq == envelopes.c.seq))
        .where(table.c.exam == report.exam.id, envelopes.c.kind == VitalSign.__name__)
    ).scalars()
    single = [decode(VitalSign, bytes(body)) for body in bodies]
    known = {vital.id for vital in report.vitals}
    return [*report.vitals, *(vital for vital in single if vital.id not in known)]


def _models(report: ExamReport) -> list[ModelRef]:
    used = [*(ecg.models for ecg in report.ecg), *(photo.models for photo in report.fundus)]
    return list(dict.fromkeys(model for models in used for model in models))


def _answer_text(answer: str) -> str:
    return answer.replace("_", " ").replace("-", " ")
