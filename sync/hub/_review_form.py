"""The review and referral forms of an exam page."""

from __future__ import annotations

import re
import uuid

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.errors import InvalidRecordError
from aidpost.records import Referral, ReferralStatus, ReviewDecision, TriageLevel
from aidpost.sync.hub import _exam_page, audit, leases, outgoing, referrals, reviews
from aidpost.sync.hub._site import Form, Site
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.users import Session

MAX_TEXT = 4000
GRADES = {
    "dr_right": tuple("01234"),
    "dr_left": tuple("01234"),
    "dme_right": ("no", "yes"),
    "dme_left": ("no", "yes"),
    "rhythm": ("sinus", "af", "other", "unreadable"),
}
"""What a reader may grade in a structured way, and the answers."""


def submit_review(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Signs a review. Refused where the report has changed since the page was opened, or another has the case."""
    exam: uuid.UUID = request.path_params["exam"]
    decision, triage, text, grades = _review_fields(form)
    with site.database.write() as connection:
        row, report = _exam_page.load(connection, exam)
        if form.get("report") != str(report.id):
            raise HTTPException(
                409, "A newer version of this exam has arrived. Go back, reload the page and read it again."
            )
        if not leases.take(connection, exam, session.user, now_ms(), site.config.lease_minutes):
            raise HTTPException(409, "Another reader has this case now.")
        if triage is not None and triage < report.triage.level and not text:
            raise HTTPException(400, "A triage is lowered only with a reason: say why in the text.")
        reviews.sign(
            connection,
            site.database.epoch,
            report,
            row.device,
            reviewer=session.full_name,
            decision=decision,
            triage=triage,
            text=text,
            grades=grades,
            now_ms=now_ms(),
        )
        leases.give_back(connection, exam, session.user)
    site.wake()
    return RedirectResponse(f"/exams/{exam}", 303)


def release(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Gives the case back to the worklist unread."""
    with site.database.write() as connection:
        leases.give_back(connection, request.path_params["exam"], session.user)
    return RedirectResponse("/", 303)


def submit_referral(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Refers the patient, or notes how a referral went."""
    exam: uuid.UUID = request.path_params["exam"]
    with site.database.write() as connection:
        row, report = _exam_page.load(connection, exam)
        try:
            referral = Referral(
                id=uuid.uuid4(),
                exam=exam,
                patient=report.patient.id,
                to=form.get("to", "")[:200],
                due=form.get("due", ""),
                reason=form.get("reason", "")[:MAX_TEXT],
                status=ReferralStatus(form.get("status", "due")),
                at=reviews.hub_time(now_ms()),
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


def _review_fields(form: Form) -> tuple[ReviewDecision, TriageLevel | None, str, dict[str, str]]:
    try:
        decision = ReviewDecision(form.get("decision", ""))
        triage = TriageLevel(form["triage"]) if form.get("triage") else None
    except ValueError:
        raise HTTPException(400, "Choose confirm, correct or retake.") from None
    text = form.get("text", "")
    if len(text) > MAX_TEXT:
        raise HTTPException(413, "The text is too long.")
    if decision is not ReviewDecision.CONFIRMED and not text:
        raise HTTPException(400, "Say in the text what is to be corrected or taken again.")
    grades = {name: form[name] for name, answers in GRADES.items() if form.get(name) in answers}
    return decision, triage, text, grades
