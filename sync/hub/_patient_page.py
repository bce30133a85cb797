"""A patient over time."""

from __future__ import annotations

import io
import uuid
from typing import Any

from sqlalchemy import Connection, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.records import ConsentPurpose, ExamReport, Review, ReviewDecision
from aidpost.sync.hub import _exam_page, _trends, audit, clocks, consents, outgoing, patients, person, reviews, schema
from aidpost.sync.hub._site import Form, Site
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.search import find as find_patients
from aidpost.sync.hub.users import Session

_MOST = 500


def patient(site: Site, request: Request, session: Session) -> Response:
    """All exams of a person, under whichever record, and each vital sign as a line."""
    number: uuid.UUID = request.path_params["patient"]
    exams = schema.exams
    with site.database.read() as connection:
        everybody = patients.group(connection, number)
        rows = connection.execute(
            select(exams)
            .where(patients.exams_of(connection, everybody), session.sees(exams.c.clinic))
            .order_by(exams.c.started_ms.desc())
            .limit(_MOST)
        ).all()
        if not rows:
            raise HTTPException(404, "There is no such patient here.")
        lines = _trends.lines(_trends.measured(connection, session, everybody))
        linked = patients.links(connection, everybody)
        said = consents.standing(connection, number)
    with site.database.write() as connection:
        audit.append(connection, session.user, "patient-opened", str(number))
    newest = next((row for row in rows if row.patient == number), rows[0])
    return site.render(
        request,
        "patient.html",
        session,
        patient=number,
        exams=rows,
        newest=newest,
        trends=lines,
        links=linked,
        consents=said,
        purposes=[purpose for purpose in ConsentPurpose if purpose not in said or said[purpose].given],
    )


def search(site: Site, request: Request, session: Session) -> Response:
    """Patients by the beginnings of the words of their name, those seen last first."""
    words = request.query_params.get("q", "").strip()[:100]
    rows: list[Any] = []
    if words:
        with site.database.read() as connection:
            rows = find_patients(connection, session, words)
        with site.database.write() as connection:
            audit.append(connection, session.user, "patients-searched", "", f"{len(rows)} found")
    return site.render(request, "patients.html", session, words=words, rows=rows)


def link(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Reads this record and another as one person."""
    number: uuid.UUID = request.path_params["patient"]
    other, reason = _other_patient(form), form.get("reason", "")
    if other is None or other == number or not reason:
        raise HTTPException(400, "Give the number of the other record and say how you know that it is one person.")
    with site.database.write() as connection:
        for one in (number, other):
            _must_exist(connection, session, one)
        if other not in patients.group(connection, number):
            patients.link(connection, number, other, session.user, reason, now_ms())
    return RedirectResponse(f"/patients/{number}", 303)


def part(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Takes a link back."""
    number: uuid.UUID = request.path_params["patient"]
    with site.database.write() as connection:
        _must_exist(connection, session, number)
        for row in patients.links(connection, patients.group(connection, number)):
            if str(row.id) == form.get("link"):
                patients.part(connection, row.id, session.user, now_ms())
    return RedirectResponse(f"/patients/{number}", 303)


def withdraw_consent(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Notes that the person no longer agrees to one purpose."""
    number: uuid.UUID = request.path_params["patient"]
    purpose, reason = form.get("purpose", ""), form.get("reason", "")[:500]
    if purpose not in {one.value for one in ConsentPurpose} or not reason:
        raise HTTPException(400, "Say which consent was withdrawn, and how you know.")
    with site.database.write() as connection:
        _must_exist(connection, session, number)
        consents.withdraw(connection, number, ConsentPurpose(purpose), session.user, reason, now_ms())
    return RedirectResponse(f"/patients/{number}", 303)


def export(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """All that the hub has of one person, as a ZIP. Audited."""
    number: uuid.UUID = request.path_params["patient"]
    out = io.BytesIO()
    with site.database.write() as connection:
        _must_exist(connection, session, number)
        audit.append(connection, session.user, "patient-exported", str(number))
        person.export(connection, site.files, number, out)
    headers = {"content-disposition": f'attachment; filename="patient-{number}.zip"'}
    return Response(out.getvalue(), media_type="application/zip", headers=headers)


def erase(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Erases one person for good, once somebody typed their number."""
    number: uuid.UUID = request.path_params["patient"]
    if form.get("number", "") != str(number):
        raise HTTPException(400, "Type the number of the record to erase it.")
    with site.database.read() as connection:
        _must_exist(connection, session, number)
    person.erase(site.database, site.files, number, session.user)
    return RedirectResponse("/patients", 303)


def withdraw(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Takes an exam back from the patient under whom it was filed, and tells the device; or takes that back."""
    exam: uuid.UUID = request.path_params["exam"]
    with site.database.write() as connection:
        row, report = _exam_page.load(connection, exam, session)
        there = patients.withdrawal(connection, exam)
        if form.get("undo"):
            if there is not None:
                patients.undo_withdrawal(connection, row, session.user, now_ms())
                _tell_device(connection, site, session, row, report, "The withdrawal was taken back.")
        else:
            other, reason = _other_patient(form), form.get("reason", "")[:500]
            if not reason or (form.get("other") and other is None) or there is not None:
                raise HTTPException(400, "Say how you know that this is another patient's exam.")
            if other is not None:
                _must_exist(connection, session, other)
            patients.withdraw(connection, row, other, session.user, reason, now_ms())
            _tell_device(connection, site, session, row, report, f"{patients.WITHDRAWN} {reason}")
    site.wake()
    return RedirectResponse(f"/exams/{exam}", 303)


def _tell_device(connection: Connection, site: Site, session: Session, row: Any, report: ExamReport, text: str) -> None:
    """The printout that the wrong patient has is corrected where it was printed."""
    told = Review(
        id=uuid.uuid4(),
        report=report.id,
        exam=row.id,
        patient=row.patient,
        reviewer=session.full_name,
        decision=ReviewDecision.CORRECTED,
        at=clocks.hub_time(now_ms()),
        text=text,
    )
    about = {"patient": row.patient, "exam": row.id}
    outgoing.put(connection, site.database.epoch, row.device, reviews.CLASS, told, **about, now_ms=now_ms())


def _other_patient(form: Form) -> uuid.UUID | None:
    """A patient's number, as such or at the end of their page's address."""
    try:
        return uuid.UUID(form.get("other", "").rstrip("/").rsplit("/", 1)[-1])
    except ValueError:
        return None


def _must_exist(connection: Connection, session: Session, number: uuid.UUID) -> None:
    exams = schema.exams
    query = select(exams.c.id).where(exams.c.patient == number, session.sees(exams.c.clinic)).limit(1)
    if connection.execute(query).first() is None:
        raise HTTPException(404, "There is no such patient here.")
