"""The exam as pages: the path, questions, vital signs, ECG, eyes, the alarm and the result."""

from __future__ import annotations

import re
import uuid
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.board.console import steps
from aidpost.board.console._who import BREAK_GLASS
from aidpost.board.console.drafts import ATTEMPTS, Draft
from aidpost.board.console.live import no_sensor
from aidpost.board.console.result import picture_rows
from aidpost.board.console.site import Form, Session, Site, exam_of
from aidpost.board.console.words import N_
from aidpost.board.console.workspace import Workspace, implausible
from aidpost.errors import DeviceError
from aidpost.inference._photo_quality import ADVICE
from aidpost.inference.wording import advice
from aidpost.records import EcgResult, Eye


def draft_of(site: Site, request: Request, session: Session) -> tuple[Workspace, Draft]:
    """The open exam in the address, for a worker who may see it."""
    workspace = site.workspace(session)
    draft = workspace.drafts.get(exam_of(request))
    allow(session, draft.exam.operator.id)
    return workspace, draft


def allow(session: Session, operator: str) -> None:
    """Whether whoever is at the screen may see an exam of this operator: an error where not."""
    if session.worker == BREAK_GLASS and operator != BREAK_GLASS:
        raise HTTPException(403, N_("An emergency exam opens no records of other patients."))


def to(draft: Draft, rest: str = "") -> Response:
    """A page of this exam."""
    return RedirectResponse(f"/exams/{draft.exam.id}{rest}", 303)


def path(site: Site, request: Request, session: Session) -> Response:
    """The steps, in any order."""
    _, draft = draft_of(site, request, session)
    states = {step: steps.state(draft, step) for step in steps.STEPS}
    return site.render(request, "path.html", session, draft=draft, states=states, titles=steps.TITLES)


def undo(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Take back the last step."""
    workspace, draft = draft_of(site, request, session)
    workspace.undo(draft.exam.id)
    return to(draft)


def give_up_page(site: Site, request: Request, session: Session) -> Response:
    """Why an exam is given up; nothing happens before that is said."""
    _, draft = draft_of(site, request, session)
    return site.render(request, "give_up.html", session, draft=draft, reasons_why=steps.REASONS_WHY)


def give_up(site: Site, request: Request, session: Session, form: Form) -> Response:
    """The exam ends without a report; who ended it and why is kept."""
    workspace, draft = draft_of(site, request, session)
    why = form.get("why", "")
    if why not in dict(steps.REASONS_WHY):
        raise HTTPException(400, N_("Say why."))
    workspace.give_up(draft.exam.id)
    at = workspace.store.now().wall_ms
    workspace.database.audit(at, session.worker, f"gave up an exam: {why}", str(draft.exam.id))
    return RedirectResponse("/", 303)


def questions_page(site: Site, request: Request, session: Session) -> Response:
    """One question: the one asked for, or the next without an answer."""
    workspace, draft = draft_of(site, request, session)
    asked = steps.questions_for(draft.patient, workspace.store.now())
    wanted = request.query_params.get("q", "")
    open_ones = [one for one in asked if not draft.answer(one.code)]
    question = next((one for one in asked if one.code == wanted), None) or next(iter(open_ones), None)
    if question is None:
        return site.render(request, "answers.html", session, draft=draft, questions=asked)
    number = asked.index(question) + 1
    return site.render(request, "question.html", session, draft=draft, question=question, number=number, of=len(asked))


def answer(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Keep an answer; the step is done when all are answered."""
    workspace, draft = draft_of(site, request, session)
    asked = steps.questions_for(draft.patient, workspace.store.now())
    question = next((one for one in asked if one.code == form.get("question")), None)
    if question is None or form.get("answer") not in {code for code, _ in question.choices}:
        raise HTTPException(400, N_("There is no such question or answer."))
    draft = workspace.answer(draft.exam.id, question.code, form["answer"])
    if all(draft.answer(one.code) for one in asked) and "questions" not in draft.done:
        draft = workspace.close_step(draft.exam.id, "questions")
    return to(draft, "/questions")


def none_of_these(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """ "No" to every yes-or-no question that is still open, in one tap, after they were read aloud."""
    workspace, draft = draft_of(site, request, session)
    for one in steps.questions_for(draft.patient, workspace.store.now()):
        if not draft.answer(one.code) and one.choices[0][0] == "yes":
            draft = workspace.answer(draft.exam.id, one.code, "no")
    return to(draft, "/questions")


def vitals_page(site: Site, request: Request, session: Session) -> Response:
    """Every vital sign with its last value."""
    workspace, draft = draft_of(site, request, session)
    last = {one.kind: one for one in draft.vitals}
    report = workspace.preview(draft.exam.id)
    missing = next((one for one in report.not_assessed if one.startswith("early warning")), "")
    sensors = bool(workspace.source("vitals", draft.exam.id))
    return site.render(
        request,
        "vitals.html",
        session,
        draft=draft,
        measures=steps.MEASURES,
        last=last,
        missing=missing,
        sensors=sensors,
        notes=steps.NOTES,
        again=again_of(request),
    )


def again_of(request: Request) -> int:
    """How many measurements the sensors sent just now that had come before."""
    said = request.query_params.get("again", "")
    return int(said) if re.fullmatch(r"\d{1,4}", said) else 0


def read_sensors(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Read the sensors now."""
    workspace, draft = draft_of(site, request, session)
    arrived = workspace.read_sensors(draft.exam.id)
    again = f"?again={arrived.again}" if arrived.again else ""
    return RedirectResponse(f"/unassigned{again}", 303) if arrived.apart else to(draft, f"/vitals{again}")


def note_page(site: Site, request: Request, session: Session) -> Response:
    """Medicines, or how well an eye sees."""
    _, draft = draft_of(site, request, session)
    return site.render(request, "note.html", session, draft=draft, note=_note(request), longest=steps.LONGEST_NOTE)


def _note(request: Request) -> steps.Note:
    found = next((one for one in steps.NOTES if one.code == request.path_params["code"]), None)
    if found is None:
        raise HTTPException(404, N_("There is no such question or answer."))
    return found


def write_down(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Keep a note; a later one replaces it."""
    workspace, draft = draft_of(site, request, session)
    note, said = _note(request), form.get("answer", "")
    if not said or len(said) > steps.LONGEST_NOTE or (note.choices and said not in dict(note.choices)):
        raise HTTPException(400, N_("There is no such question or answer."))
    workspace.answer(draft.exam.id, note.code, said)
    return to(draft, "/vitals")


def measure_page(site: Site, request: Request, session: Session) -> Response:
    """The number pad of one vital sign."""
    _, draft = draft_of(site, request, session)
    measure = _measure(request)
    return site.render(
        request,
        "measure.html",
        session,
        draft=draft,
        measure=measure,
        number=uuid.uuid4(),
        mg_dl=steps.MG_DL,
        glucose_unit=site.configuration.console.glucose_unit,
    )


def _measure(request: Request) -> steps.Measure:
    measure = steps.BY_CODE.get(request.path_params["code"])
    if measure is None:
        raise HTTPException(404, N_("There is no such vital sign."))
    return measure


def enter(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Keep what was typed in."""
    workspace, draft = draft_of(site, request, session)
    measure = _measure(request)
    values = [_typed(form.get(one.kind.value, ""), one.label) for one in measure.fields]
    if measure.code == "glucose" and form.get("unit", site.configuration.console.glucose_unit) == "mg/dL":
        values = [round(one / steps.MG_DL, 1) for one in values]
    method, context = form.get("method", measure.methods[0][0]), form.get("context", "")
    if method not in dict(measure.methods) or (context and context not in dict(measure.contexts)):
        raise HTTPException(400, N_("There is no such method or context."))
    try:
        number = uuid.UUID(form.get("number", ""))
    except ValueError:
        raise HTTPException(400, N_("The form is incomplete.")) from None
    workspace.measure(draft.exam.id, measure, values, method, context, number)
    return to(draft, "/vitals")


def _typed(text: str, label: str) -> float:
    if re.fullmatch(r"\d{1,3}([.,]\d)?", text) is None:
        raise implausible(label, N_("it is not a number"))
    return float(text.replace(",", "."))


def close(site: Site, request: Request, session: Session, form: Form) -> Response:
    """The worker is content with a step."""
    workspace, draft = draft_of(site, request, session)
    step = form.get("step", "")
    if step not in steps.STEPS:
        raise HTTPException(400, N_("There is no such step."))
    workspace.close_step(draft.exam.id, step)
    return to(draft)


def ecg_page(site: Site, request: Request, session: Session) -> Response:
    """The live trace; or the recording that there is, to keep or to record again."""
    workspace, draft = draft_of(site, request, session)
    seconds = site.configuration.exam.ecg_seconds
    again = request.query_params.get("again") == "1"
    if draft.ecg and not again:
        result = draft.ecg[-1]
        rows = _rows(workspace, draft, result)
        from aidpost.inference.ecg import REASONS

        return site.render(
            request, "ecg_kept.html", session, draft=draft, result=result, rows=rows[:1], reasons=REASONS
        )
    pacemaker = draft.answer("pacemaker") == "yes"
    if not workspace.source("ecg", draft.exam.id):
        raise no_sensor("ECG", draft.exam.id)
    return site.render(request, "ecg.html", session, draft=draft, seconds=int(seconds), pacemaker=pacemaker)


def _rows(workspace: Workspace, draft: Draft, result: EcgResult) -> list[Any]:
    body = workspace.drafts.body(draft.exam.id, result.body.sha256).data if result.body else b""
    return list(picture_rows(result, body))


def eye_page(site: Site, request: Request, session: Session) -> Response:
    """The live preview; or the photograph that there is, to keep or to take again."""
    workspace, draft = draft_of(site, request, session)
    eye = _eye(request)
    photos = draft.photos(eye)
    again = request.query_params.get("again") == "1" and len(photos) < ATTEMPTS
    if photos and not again:
        return site.render(
            request,
            "eye_kept.html",
            session,
            draft=draft,
            eye=eye,
            photo=photos[-1],
            attempts=len(photos),
            most=ATTEMPTS,
            ungradable=draft.ungradable(eye),
            advice=ADVICE,
        )
    if not workspace.source(eye.value, draft.exam.id):
        raise no_sensor("camera", draft.exam.id)
    return site.render(request, "eye.html", session, draft=draft, eye=eye, attempts=len(photos), most=ATTEMPTS)


def _eye(request: Request) -> Eye:
    try:
        return Eye(request.path_params["side"])
    except ValueError:
        raise HTTPException(404, N_("There are a left and a right eye.")) from None


def take_photo(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Photograph now, keep it, and show what it is worth."""
    workspace, draft = draft_of(site, request, session)
    eye = _eye(request)
    source = workspace.source(eye.value, draft.exam.id)
    photo = site.cameras[workspace].take(source, eye)
    if photo.eye is not eye:
        raise DeviceError(
            operation="taking a photograph",
            target=eye.value,
            cause=N_("the camera says that this is the {eye} eye").format(
                eye=photo.eye.value if photo.eye else "unknown"
            ),
            remedy=N_("Look which eye it is, and take it under that eye."),
        )
    workspace.take_photo(draft.exam.id, photo)
    return to(draft, f"/eye/{eye.value}")


def alarm(site: Site, request: Request, session: Session) -> Response:
    """What holds the screen until a human says that they saw it."""
    workspace, draft = draft_of(site, request, session)
    if draft.alarm is None:
        return to(draft)
    report = workspace.shown(workspace.preview(draft.exam.id))
    telephone = site.configuration.clinic.emergency_telephone
    advised = advice(report, site.languages.translator(session.language))
    return site.render(request, "alarm.html", session, draft=draft, report=report, advised=advised, telephone=telephone)


def acknowledge(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Somebody saw the alarm."""
    workspace, draft = draft_of(site, request, session)
    if draft.alarm is not None:
        workspace.acknowledge(draft.exam.id, session.worker)
        at = workspace.store.now().wall_ms
        workspace.database.audit(at, session.worker, f"acknowledged {draft.alarm.value}", str(draft.exam.id))
    return to(draft)
