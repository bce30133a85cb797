"""The review and referral forms of an exam page."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.errors import InvalidRecordError
from aidpost.records import ExamReport, Referral, ReferralStatus, ReviewDecision, TriageLevel
from aidpost.sync.hub import _exam_page, audit, clocks, leases, outgoing, readings, referrals, reviews
from aidpost.sync.hub._site import Form, Site
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.readings import Part, Rules
from aidpost.sync.hub.users import Session

MAX_TEXT = 4000
_EYE = (*"01234", "ungradable")
GRADES = {
    "dr_right": _EYE,
    "dr_left": _EYE,
    "dme_right": ("no", "yes"),
    "dme_left": ("no", "yes"),
    "rhythm": ("sinus", "af", "other", "unreadable"),
}
"""What a reader may grade in a structured way, and the answers."""


def submit_review(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Signs a review. Refused where the report has changed since the page was opened, or another has the case."""
    exam: uuid.UUID = request.path_params["exam"]
    config, now = site.config, now_ms()
    with site.database.write() as connection:
        row, report = _exam_page.load(connection, exam, session)
        if form.get("report") != str(report.id):
            raise HTTPException(
                409, "A newer version of this exam has arrived. Go back, reload the page and read it again."
            )
        if row.state == "withdrawn":
            raise HTTPException(409, "This exam was withdrawn: it is another patient's.")
        parts = _parts_to_sign(connection, site, session, row, form, now)
        blinded = bool(_exam_page.hidden_from(site, session, row, parts))
        decision, triage, text, grades = _review_fields(form, blinded)
        if triage is not None and triage < report.triage.level and not text:
            raise HTTPException(400, "A triage is lowered only with a reason: say why in the text.")
        if blinded and decision is not ReviewDecision.RETAKE:
            decision = _blind_decision(parts, grades, triage, report)
        signature = reviews.Signature(
            session.user,
            session.full_name,
            decision,
            triage,
            text,
            grades,
            leases.since(connection, exam, session.user),
        )
        rules = Rules(config.readers, config.second_reader_against_device)
        reviews.sign(connection, site.database.epoch, report, row.device, signature, parts, rules, now)
        leases.give_back(connection, exam, session.user)
    site.wake()
    return RedirectResponse(f"/exams/{exam}", 303)


def _parts_to_sign(
    connection: Connection, site: Site, session: Session, row: Any, form: Form, now: int
) -> tuple[Part, ...]:
    """The parts that the form names and this reader may sign now."""
    wanted = form.get("parts", "").split()
    allowed = readings.readable(readings.parts(connection, row), session.user, session.parts)
    parts = tuple(part for part in allowed if part.name in wanted or not wanted)
    if not parts or (wanted and len(parts) != len(set(wanted))):
        raise HTTPException(403, "This part is read by others, or you have read it already.")
    taken = leases.take(
        connection, row.id, [part.name for part in parts if not part.done], session.user, now, site.config.lease_minutes
    )
    if len(taken) < sum(not part.done for part in parts):
        raise HTTPException(409, "Another reader has this case now.")
    return parts


def _blind_decision(
    parts: Sequence[Part], grades: dict[str, str], triage: TriageLevel | None, report: ExamReport
) -> ReviewDecision:
    """What a reader who did not see the device's findings made of them."""
    for part in parts:
        if part.name != readings.GENERAL and not any(name in grades for name in readings.GRADES[part.name]):
            raise HTTPException(400, "Grade what you see, or ask for a retake.")
    calls = [(readings.reader_call(part.name, grades), readings.device_call(part.name, report)) for part in parts]
    same = all(mine == device for mine, device in calls if mine is not None)
    return ReviewDecision.CONFIRMED if same and triage in (None, report.triage.level) else ReviewDecision.CORRECTED


def release(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Gives the case back to the worklist unread."""
    with site.database.write() as connection:
        leases.give_back(connection, request.path_params["exam"], session.user)
    return RedirectResponse("/", 303)


def submit_referral(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Refers the patient, or notes how a referral went."""
    exam: uuid.UUID = request.path_params["exam"]
    with site.database.write() as connection:
        row, report = _exam_page.load(connection, exam, session)
        try:
            referral = Referral(
                id=uuid.uuid4(),
                exam=exam,
                patient=report.patient.id,
                to=form.get("to", "")[:200],
                due=form.get("due", ""),
                reason=form.get("reason", "")[:MAX_TEXT],
                status=ReferralStatus(form.get("status", "due")),
                at=clocks.hub_time(now_ms()),
                telephone=form.get("telephone", "")[:50],
                supersedes=uuid.UUID(form["supersedes"]) if form.get("supersedes") else None,
            )
        except (InvalidRecordError, ValueError):
            raise HTTPException(400, "Give the place and the date by which the patient should be seen.") from None
        if not referral.to:
            raise HTTPException(400, "Give the place and the date by which the patient should be seen.")
        referrals.add(connection, referral, session.user)
        outgoing.put(
            connection,
            site.database.epoch,
            row.device,
            "referral",
            referral,
            patient=referral.patient,
            exam=exam,
            now_ms=now_ms(),
        )
        audit.append(connection, session.user, f"referral-{referral.status.value}", str(exam), str(referral.id))
    site.wake()
    back = form.get("back", "")
    return RedirectResponse(back if re.fullmatch(r"/referrals", back) else f"/exams/{exam}", 303)


def _review_fields(form: Form, blinded: bool) -> tuple[ReviewDecision, TriageLevel | None, str, dict[str, str]]:
    try:
        decision = ReviewDecision(form.get("decision", "confirmed" if blinded else ""))
        triage = TriageLevel(form["triage"]) if form.get("triage") else None
    except ValueError:
        raise HTTPException(400, "Choose confirm, correct or retake.") from None
    text = form.get("text", "")
    if len(text) > MAX_TEXT:
        raise HTTPException(413, "The text is too long.")
    if decision is not ReviewDecision.CONFIRMED and not text and not (blinded and decision is ReviewDecision.CORRECTED):
        raise HTTPException(400, "Say in the text what is to be corrected or taken again.")
    grades = {name: form[name] for name, answers in GRADES.items() if form.get(name) in answers}
    return decision, triage, text, grades
