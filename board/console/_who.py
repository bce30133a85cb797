"""Who: today's list, search before register, registering with consent."""

from __future__ import annotations

import re
import uuid

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.board.console import answers
from aidpost.board.console.people import FOUND, Known, Patients
from aidpost.board.console.site import COOKIE, Form, Session, Site, read_form
from aidpost.board.console.speech import lacking
from aidpost.board.console.words import N_
from aidpost.board.console.workspace import Workspace
from aidpost.errors import DeviceError
from aidpost.records import Consent, ConsentPurpose, Identifier, Patient, Sex, TriageLevel

CONSENT_VERSION = "1"
PURPOSES = (
    (ConsentPurpose.SCREENING, N_("Examine, and keep the result")),
    (ConsentPurpose.SHARING, N_("Send it to clinicians")),
    (ConsentPurpose.RESEARCH, N_("Use without a name for research")),
    (ConsentPurpose.MODEL_TRAINING, N_("Use without a name to improve the software")),
)
BREAK_GLASS = "break-glass"


def let_in(session: Session, where: str = "/") -> Response:
    """Goes on to `where`, with the session's token in a cookie that no script and no other site gets."""
    response = RedirectResponse(where, 303)
    response.set_cookie(COOKIE, session.token, httponly=True, samesite="strict")
    return response


async def choose_language(site: Site, request: Request) -> Response:
    """Another language, also on the locked screen."""
    form = await read_form(request)
    if form.get("language") in site.languages.names:
        site.language = form["language"]
        if session := site.session(request):
            session.language = form["language"]
    back = form.get("back", "/")
    return RedirectResponse(back if re.fullmatch(r"/(?!/)[\w/.-]*", back) else "/", 303)


def home(site: Site, request: Request, session: Session) -> Response:
    """Today's list: open exams first, then finished ones."""
    workspace = site.workspace(session)
    finished = [] if session.worker == BREAK_GLASS else [workspace.shown(one) for one in workspace.today()]
    drafts = workspace.drafts.all()
    if session.worker == BREAK_GLASS:
        drafts = [one for one in drafts if one.exam.operator.id == BREAK_GLASS]
    urgent = [one for one in finished if one.triage.level >= TriageLevel.URGENT]
    answered = {one.exam.id for one in finished if workspace.store.reviews(one.exam.id)}
    taken = {one.exam: one for one in workspace.store.acknowledgements()}
    waiting = {one.exam.id for one in urgent} - answered - set(taken)
    return site.render(
        request,
        "home.html",
        session,
        drafts=drafts,
        finished=finished,
        waiting=waiting,
        answered=answered,
        taken=taken,
        unassigned=len(workspace.tray.waiting()),
    )


def status(site: Site, request: Request, session: Session) -> Response:
    """The status bar, for the page's script to bring up to date."""
    return site.render(request, "_status.html", session)


def spoken(site: Site, request: Request, _session: Session) -> Response:
    """The sound of what a page wants spoken."""
    made = site.speech.sound(request.path_params["key"])
    if made is None:
        raise HTTPException(404, N_("There is nothing to be heard here."))
    return Response(made, media_type="audio/wav")


def find_page(site: Site, request: Request, session: Session) -> Response:
    """The empty search."""
    return _results(site, request, session, "", None)


def find(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Search; by a form, so that no name is ever part of an address."""
    text = form.get("text", "")[:100]
    return _results(site, request, session, text, _patients_allowed(site, session).search(text))


def scan(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Search for what a code before the camera says: a number, or the exam of a printed report."""
    workspace, patients = site.workspace(session), _patients_allowed(site, session)
    from aidpost.board.console.codes import look_for_code  # OpenCV, which a start has no need of

    source = site.configuration.sensors.code
    text = look_for_code(lambda: site.cameras[workspace].preview(source)) if source else None
    if text is None:
        raise DeviceError(
            operation="reading a code",
            target=source or "sensors.code",
            cause=N_("this camera shows no live picture") if source else N_("no camera for codes is set up"),
            remedy=N_("Set sensors.code to a camera, or type the number in."),
        )
    found = [] if not text else _of_exam(workspace, text) or patients.search(text)
    return _results(site, request, session, text, found)


def _results(site: Site, request: Request, session: Session, text: str, found: list[Patient] | None) -> Response:
    """The search with what it found; None before there was one."""
    shown, more = (None, False) if found is None else (found[:FOUND], len(found) > FOUND)
    scans = bool(site.configuration.sensors.code)
    return site.render(request, "find.html", session, scans=scans, text=text, found=shown, more=more)


def _of_exam(workspace: Workspace, text: str) -> list[Patient]:
    try:
        report = workspace.store.report(uuid.UUID(text))
    except ValueError:
        return []
    return [report.patient] if report is not None else []


def _patients_allowed(site: Site, session: Session) -> Patients:
    if session.worker == BREAK_GLASS:
        raise HTTPException(403, N_("An emergency exam opens no records of other patients."))
    return site.workspace(session).patients


def register_page(site: Site, request: Request, session: Session) -> Response:
    """The form of a new patient."""
    return _form(site, request, session, {}, "")


def correct_page(site: Site, request: Request, session: Session) -> Response:
    """The same form with what is known of a patient, to be corrected."""
    known = _patients_allowed(site, session).get(request.path_params["patient"])
    patient = known.patient
    entered = {"name": patient.name, "born": patient.birth_date or "", "sex": patient.sex.value}
    entered |= {"telephone": patient.telephone, "number": next((one.value for one in patient.identifiers), "")}
    entered |= {one.purpose.value: "yes" for one in known.consents if one.given}
    return _form(site, request, session, entered, "", known.patient.id)


def _form(
    site: Site, request: Request, session: Session, entered: Form, failed: str, patient: uuid.UUID | None = None
) -> Response:
    return site.render(
        request,
        "register.html",
        session,
        400 if failed else 200,
        sexes=list(Sex),
        purposes=PURPOSES,
        entered=entered,
        failed=failed,
        patient=patient,
    )


def register(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Register, and go to the patient."""
    workspace = site.workspace(session)
    if failed := _missing(form):
        return _form(site, request, session, form, failed)
    number = uuid.uuid4()
    workspace.patients.keep(_entered(site, session, form, Patient(id=number, language=session.language), ()))
    return RedirectResponse(f"/patients/{number}", 303)


def correct(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Keep a patient's corrected data; who changed it is kept too."""
    known = _patients_allowed(site, session).get(request.path_params["patient"])
    if failed := _missing(form):
        return _form(site, request, session, form, failed, known.patient.id)
    workspace = site.workspace(session)
    workspace.correct(_entered(site, session, form, known.patient, known.consents))
    workspace.database.audit(
        workspace.store.now().wall_ms, session.worker, "corrected a patient", str(known.patient.id)
    )
    return RedirectResponse(f"/patients/{known.patient.id}", 303)


def _entered(site: Site, session: Session, form: Form, patient: Patient, before: tuple[Consent, ...]) -> Known:
    """What was typed in, over what was known. A consent that did not change stays as it was given then."""
    now = site.workspace(session).store.now()
    local, clinic = form.get("number", "")[:40], site.configuration.clinic.id
    others = tuple(one for one in patient.identifiers if one.system != clinic)
    patient = msgspec.structs.replace(
        patient,
        name=form["name"][:100],
        birth_date=_birth_date(form.get("born", ""), now.wall_ms),
        sex=Sex(form.get("sex", "unknown")),
        identifiers=(*((Identifier(system=clinic, value=local),) if local else ()), *others),
        telephone=form.get("telephone", "")[:30],
    )
    by = form.get("guardian", "").strip()[:100]
    known = {one.purpose: one for one in before}
    consents = []
    for purpose, _ in PURPOSES:
        given = form.get(purpose.value) == "yes"
        if purpose in known and known[purpose].given is given:
            consents.append(known[purpose])
            continue
        consents.append(
            Consent(
                id=uuid.uuid4(),
                patient=patient.id,
                purpose=purpose,
                version=CONSENT_VERSION,
                language=session.language,
                given=given,
                at=now,
                given_by=f"guardian: {by}" if by else "patient",
                operator=session.worker,
            )
        )
    return Known(patient=patient, consents=tuple(consents))


def _missing(form: Form) -> str:
    if not form.get("name"):
        return N_("Give a name.")
    if form.get("sex", "unknown") not in {one.value for one in Sex}:
        return N_("Choose a sex.")
    born = form.get("born", "")
    if born and _birth_date(born, None) is None:
        return N_("Give the age in years, or the birth date as 1961, 1961-04 or 1961-04-12.")
    if form.get(ConsentPurpose.SCREENING.value) != "yes":
        return N_("Without consent to the exam there is none.")
    return ""


def _birth_date(text: str, now_ms: int | None) -> str | None:
    """A birth date, or an age in years which gives the year; None where the text is neither."""
    if re.fullmatch(r"\d{1,3}", text) and int(text) <= 120:
        from datetime import datetime, timezone

        year = datetime.fromtimestamp((now_ms or 0) / 1000, timezone.utc).year
        return str(year - int(text))
    return text if re.fullmatch(r"(18|19|20)\d\d(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?", text) else None


def from_the_hub(site: Site, request: Request, session: Session) -> Response:
    """Reviews that came back, those first that nobody has read, and referrals that are not done."""
    _patients_allowed(site, session)
    workspace = site.workspace(session)
    back, due = answers.came_back(workspace), answers.due(workspace)
    return site.render(request, "from_hub.html", session, back=back, due=due)


def patient(site: Site, request: Request, session: Session) -> Response:
    """A patient: what the last visit said, and a new exam."""
    workspace = site.workspace(session)
    known = _patients_allowed(site, session).get(request.path_params["patient"])
    opened = [one for one in workspace.drafts.all() if one.patient.id == known.patient.id]
    last = workspace.store.last_report_of(known.patient.id)
    reviews = workspace.store.reviews(last.exam.id) if last else []
    hub = workspace.patients.from_hub(known.patient.id)
    return site.render(
        request, "patient.html", session, known=known, opened=opened, last=last, reviews=reviews, hub=hub
    )


def begin(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """A new exam; a patient has one open exam at a time."""
    workspace = site.workspace(session)
    known = _patients_allowed(site, session).get(request.path_params["patient"])
    if not workspace.patients.is_known(known.patient.id):
        # known by the hub's index alone: what they agree to is asked here, as of anybody who comes for the first time
        return RedirectResponse(f"/patients/{known.patient.id}/correct", 303)
    opened = next((one for one in workspace.drafts.all() if one.patient.id == known.patient.id), None)
    draft = opened or workspace.begin(known, session.worker)
    return RedirectResponse(f"/exams/{draft.exam.id}", 303)


def more(site: Site, request: Request, session: Session) -> Response:
    """Language, practice, workers, stick."""
    locked = {one.id: int(site.workers.locked_s(one.id)) for one in site.workers.all()}
    can_practise = site.main is not site.workspace(session) or not site.main.practice
    return site.render(
        request,
        "more.html",
        session,
        workers=site.workers.all(),
        locked=locked,
        can_practise=can_practise,
        failed=request.query_params.get("failed", ""),
        dumb=lacking(session.language) if site.speech.on else "",
    )


def practise(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Into practice, or back; nothing goes from one to the other."""
    if session.worker == BREAK_GLASS:
        raise HTTPException(403, N_("Unlock with a PIN first."))
    fresh = site.enter(session.worker, supervisor=session.supervisor, practice=not session.practice)
    return let_in(fresh)


def add_worker(site: Site, request: Request, session: Session, form: Form) -> Response:
    """A supervisor adds a worker or gives a new PIN."""
    _require_supervisor(session)
    worker = site.workers.add(form.get("name", ""), form.get("pin", ""), supervisor=form.get("supervisor") == "yes")
    site.main.database.audit(site.main.store.now().wall_ms, session.worker, "added a worker", worker.id)
    return RedirectResponse("/more", 303)


def unlock_worker(site: Site, request: Request, session: Session, form: Form) -> Response:
    """A supervisor lets a locked-out worker in again."""
    _require_supervisor(session)
    site.workers.unlock(form.get("worker", ""))
    site.main.database.audit(site.main.store.now().wall_ms, session.worker, "unlocked a worker", form.get("worker", ""))
    return RedirectResponse("/more", 303)


def _require_supervisor(session: Session) -> None:
    if not session.supervisor:
        raise HTTPException(403, N_("Only a supervisor may do this."))
