"""What an exam came to, as pages: the result, on paper, its pictures, and the end of the exam."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.board.console import answers
from aidpost.board.console._exam import allow, to
from aidpost.board.console._who import BREAK_GLASS
from aidpost.board.console.result import body_of, notes_of, result_of
from aidpost.board.console.site import Form, Session, Site, exam_of
from aidpost.board.console.words import N_
from aidpost.board.console.workspace import Workspace
from aidpost.errors import StoreDamagedError
from aidpost.inference.wording import advice
from aidpost.records import ExamReport, ReviewDecision


def _report(site: Site, request: Request, session: Session) -> tuple[Workspace, ExamReport, bool]:
    workspace, exam = site.workspace(session), exam_of(request)
    finished = workspace.store.report(exam)
    report = workspace.shown(finished or workspace.preview(exam))
    allow(session, report.exam.operator.id)
    return workspace, report, finished is not None


def result(site: Site, request: Request, session: Session) -> Response:
    """What the exam came to; preliminary before it is finished, and after."""
    workspace, report, finished = _report(site, request, session)
    shown = result_of(workspace, report)
    part = request.query_params.get("part", "result")
    part = part if part in ("result", "eyes", "heart", "vitals", "missing") else "result"
    reviews = workspace.store.reviews(report.exam.id) if finished else []
    if session.worker != BREAK_GLASS:
        answers.read(workspace, reviews, session.worker)
    return site.render(
        request,
        "result.html",
        session,
        report=report,
        shown=shown,
        notes=notes_of(report.answers, site.languages.translator(session.language)),
        part=part,
        finished=finished,
        reviews=reviews,
        taken=workspace.store.acknowledgements(report.exam.id) if finished else [],
        console=site.configuration.console,
        printed=request.query_params.get("printed") == "1",
        advised=advice(report, site.languages.translator(session.language)),
        telephone=site.configuration.clinic.emergency_telephone,
    )


def printed(site: Site, request: Request, session: Session) -> Response:
    """The report on paper; only of a finished exam, so that no paper says less than the report."""
    document = _document(site, request, session)
    return Response(
        document, media_type="application/pdf", headers={"content-disposition": "inline; filename=report.pdf"}
    )


def print_report(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Send the report to the printer, or its receipt to the receipt printer."""
    from aidpost.board.console import printing, receipt

    console, small = site.configuration.console, form.get("what") == "receipt"
    document = _document(site, request, session, roll_mm=console.roll_mm if small else 0)
    printer = console.receipt_printer if small else console.printer
    if isinstance(document, bytes):
        printing.send(document, printer)
    else:
        printing.send(receipt.escpos(document), printer, raw=True)
    return RedirectResponse(f"/exams/{exam_of(request)}/result?printed=1", 303)


def _document(site: Site, request: Request, session: Session, roll_mm: int = 0) -> Any:
    """The PDF; the picture of the receipt where the paper is a roll."""
    # a second of imports on a Pi, which the start does not wait for
    from aidpost.board.console.paper import pdf
    from aidpost.board.console.receipt import receipt

    workspace, report, finished = _report(site, request, session)
    if not finished:
        raise HTTPException(404, N_("Finish the exam first."))
    console = site.configuration.console
    confirmed = [one for one in workspace.store.reviews(report.exam.id) if one.decision is not ReviewDecision.RETAKE]
    how: dict[str, Any] = {
        "language": session.language,
        "offset_min": site.configuration.device.utc_offset_min,
        "reviewer": confirmed[-1].reviewer if confirmed else "",
        "large": console.large_print,
        "limits": site.configuration.limits,
    }
    shown, translate = result_of(workspace, report), site.languages.translator(session.language)

    def body(sha256: str) -> bytes:
        return body_of(workspace, report, sha256)

    if roll_mm:
        return receipt(report, shown, body, translate, roll_mm=roll_mm, **how)
    return pdf(report, shown, body, translate, size=console.paper, **how)


def finish(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Queue the report; a second tap finds it queued."""
    workspace, exam = site.workspace(session), exam_of(request)
    draft = workspace.drafts.find(exam)
    if draft is not None:
        allow(session, draft.exam.operator.id)
        if draft.alarm is not None:
            return to(draft, "/alarm")
        workspace.finish(exam)
    return RedirectResponse(f"/exams/{exam}/result", 303)


def blob(site: Site, request: Request, session: Session) -> Response:
    """A photograph or heatmap of this exam, and of no other."""
    workspace, report, finished = _report(site, request, session)
    refs = [ref for one in report.fundus for ref in (one.body, one.heatmap) if ref is not None]
    ref = next((one for one in refs if one.sha256 == request.path_params["sha256"]), None)
    if ref is None:
        raise HTTPException(404, N_("This exam has no such picture."))
    try:
        data = (
            workspace.store.read_blob(ref.sha256)
            if finished
            else workspace.drafts.body(report.exam.id, ref.sha256).data
        )
    except StoreDamagedError as error:
        raise HTTPException(404, error.cause) from None
    return Response(data, media_type=ref.media_type, headers={"cache-control": "private, max-age=600"})
