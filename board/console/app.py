"""The screen's ASGI application: its addresses, its live channels and its headers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from aidpost.board.console import _exam, _lock, _result, _sensors, _stick, _tray, _watch, _who
from aidpost.board.console.live import Heard, Lights, Stopped, guide, open_ecg, record_ecg
from aidpost.board.console.site import Site
from aidpost.board.console.workspace import Workspace
from aidpost.errors import AidpostError
from aidpost.records import EcgRecording, Eye

HEADERS = {
    # no inline script or style: what a patient's name may contain is never run, and nothing comes from outside
    "content-security-policy": "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
PREVIEW_S = 1 / 10.5
_STALE = 200
"""Pieces of the trace that may wait for a slow page; more are not drawn, but always recorded."""


def create_app(site: Site) -> ASGIApp:
    """The application of one screen."""

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return await run_in_threadpool(_refused, site, request, error)

    static = Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app = Starlette(
        routes=[*_who_routes(site), *_exam_routes(site), *_live_routes(site), static],
        exception_handlers={HTTPException: failed},
    )
    return _Headers(app, site.configuration.console.host)


def _who_routes(site: Site) -> list[BaseRoute]:
    def plain(handler: Callable[[Site, Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await handler(site, request)

        return endpoint

    post = ["POST"]
    return [
        Route("/healthz", lambda _request: JSONResponse({"status": "ok"})),
        Route("/favicon.ico", lambda _request: Response(status_code=204)),
        Route("/lock", plain(_lock.lock)),
        Route("/unlock", plain(_lock.unlock), methods=post),
        Route("/telephone", plain(_lock.telephone), methods=["GET"]),
        Route("/telephone", plain(_lock.answer), methods=post),
        Route("/setup", plain(_lock.setup), methods=post),
        Route("/break-glass", plain(_lock.break_glass), methods=post),
        Route("/leave", plain(_lock.leave), methods=post),
        Route("/language", plain(_who.choose_language), methods=post),
        Route("/", site.page(_who.home)),
        Route("/calls", plain(_watch.calls)),
        Route("/status", site.page(_who.status, held=False, touch=False)),
        Route("/speech/{key}", site.page(_who.spoken, held=False, touch=False)),
        Route("/sensors", site.page(_sensors.page), methods=["GET"]),
        Route("/sensors", site.action(_sensors.try_all), methods=post),
        Route("/sensors/list", site.page(_sensors.listed, held=False, touch=False)),
        Route("/find", site.page(_who.find_page), methods=["GET"]),
        Route("/find", site.action(_who.find), methods=post),
        Route("/find/code", site.action(_who.scan), methods=post),
        Route("/patients/new", site.page(_who.register_page), methods=["GET"]),
        Route("/patients/new", site.action(_who.register), methods=post),
        Route("/patients/{patient:uuid}", site.page(_who.patient)),
        Route("/patients/{patient:uuid}/correct", site.page(_who.correct_page), methods=["GET"]),
        Route("/patients/{patient:uuid}/correct", site.action(_who.correct), methods=post),
        Route("/patients/{patient:uuid}/exams", site.action(_who.begin), methods=post),
        Route("/answers", site.page(_who.from_the_hub)),
        Route("/unassigned", site.page(_tray.page)),
        Route("/unassigned/choose", site.action(_tray.choose), methods=post),
        Route("/unassigned/give", site.action(_tray.give), methods=post),
        Route("/unassigned/undo", site.action(_tray.undo), methods=post),
        Route("/unassigned/thrown", site.page(_tray.thrown_page), methods=["GET"]),
        Route("/unassigned/thrown", site.action(_tray.take_back), methods=post),
        Route("/more", site.page(_who.more)),
        Route("/stick/copy", site.action(_stick.copy), methods=post),
        Route("/stick/load", site.action(_stick.load), methods=post),
        Route("/practice", site.action(_who.practise), methods=post),
        Route("/workers", site.action(_who.add_worker), methods=post),
        Route("/workers/unlock", site.action(_who.unlock_worker), methods=post),
    ]


def _exam_routes(site: Site) -> list[BaseRoute]:
    exam, post = "/exams/{exam:uuid}", ["POST"]
    return [
        Route(exam, site.page(_exam.path)),
        Route(f"{exam}/undo", site.action(_exam.undo), methods=post),
        Route(f"{exam}/give-up", site.page(_exam.give_up_page), methods=["GET"]),
        Route(f"{exam}/give-up", site.action(_exam.give_up), methods=post),
        Route(f"{exam}/close", site.action(_exam.close), methods=post),
        Route(f"{exam}/questions", site.page(_exam.questions_page), methods=["GET"]),
        Route(f"{exam}/questions", site.action(_exam.answer), methods=post),
        Route(f"{exam}/questions/none", site.action(_exam.none_of_these), methods=post),
        Route(f"{exam}/vitals", site.page(_exam.vitals_page)),
        Route(f"{exam}/vitals/read", site.action(_exam.read_sensors), methods=post),
        Route(f"{exam}/vitals/{{code}}", site.page(_exam.measure_page), methods=["GET"]),
        Route(f"{exam}/vitals/{{code}}", site.action(_exam.enter), methods=post),
        Route(f"{exam}/watch", site.page(_watch.page), methods=["GET"]),
        Route(f"{exam}/watch", site.action(_watch.start), methods=post),
        Route(f"{exam}/watch/quiet", site.action(_watch.quiet), methods=post),
        Route(f"{exam}/watch/stop", site.action(_watch.stop), methods=post),
        Route(f"{exam}/watch/numbers", site.page(_watch.numbers, held=False, touch=False)),
        Route(f"{exam}/notes/{{code}}", site.page(_exam.note_page), methods=["GET"]),
        Route(f"{exam}/notes/{{code}}", site.action(_exam.write_down), methods=post),
        Route(f"{exam}/ecg", site.page(_exam.ecg_page)),
        Route(f"{exam}/eye/{{side}}", site.page(_exam.eye_page), methods=["GET"]),
        Route(f"{exam}/eye/{{side}}", site.action(_exam.take_photo), methods=post),
        Route(f"{exam}/alarm", site.page(_exam.alarm, held=False)),
        Route(f"{exam}/acknowledge", site.action(_exam.acknowledge), methods=post),
        Route(f"{exam}/result", site.page(_result.result)),
        Route(f"{exam}/report.pdf", site.page(_result.printed)),
        Route(f"{exam}/print", site.action(_result.print_report), methods=post),
        Route(f"{exam}/finish", site.action(_result.finish), methods=post),
        Route(f"{exam}/blobs/{{sha256}}", site.page(_result.blob, held=False)),
    ]


def _live_routes(site: Site) -> list[BaseRoute]:
    async def ecg(socket: WebSocket) -> None:
        await _admitted(site, socket, lambda workspace: _live_ecg(site, workspace, socket))

    async def eye(socket: WebSocket) -> None:
        await _admitted(site, socket, lambda workspace: _live_camera(site, workspace, socket))

    return [WebSocketRoute("/live/{exam:uuid}/ecg", ecg), WebSocketRoute("/live/{exam:uuid}/{side}", eye)]


async def _admitted(site: Site, socket: WebSocket, serve: Callable[[Workspace], Awaitable[None]]) -> None:
    """A live channel is for our own pages of the worker who is at the screen."""
    origin = socket.headers.get("origin", "")
    session = site.session(socket)
    exam = socket.path_params["exam"]
    if session is None or origin.split("//")[-1] != socket.headers.get("host"):
        await socket.close(4403)
        return
    workspace = site.workspace(session)
    if workspace.drafts.find(exam) is None:
        await socket.close(4404)
        return
    await socket.accept()
    try:
        await serve(workspace)
    except AidpostError as error:
        translate = site.languages.translator(session.language)
        await _tell(socket, {"error": translate(error.cause), "remedy": translate(error.remedy)})
    except WebSocketDisconnect:
        return


async def _tell(socket: WebSocket, what: dict[str, Any]) -> None:
    try:
        await socket.send_text(json.dumps(what))
        await socket.close()
    except (RuntimeError, WebSocketDisconnect):
        return  # the page is gone


async def _live_ecg(site: Site, workspace: Workspace, socket: WebSocket) -> None:
    """Record, show, keep. The page is told where to go only when the recording is on the disk."""
    exam, seconds = socket.path_params["exam"], site.configuration.exam.ecg_seconds
    loop, heard, stopped = asyncio.get_running_loop(), asyncio.Queue[Heard | None](), threading.Event()

    name = workspace.source("ecg", exam)

    def hear(one: Heard) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, one)

    def record() -> EcgRecording:
        try:
            with workspace.turns[name], open_ecg(name, workspace.store, exam) as source:
                return record_ecg(source, seconds, hear, stopped)
        finally:
            loop.call_soon_threadsafe(heard.put_nowait, None)

    recording = loop.run_in_executor(None, record)
    gone = asyncio.create_task(_until_gone(socket))
    gone.add_done_callback(lambda _: stopped.set())
    try:
        await _show(socket, heard, seconds)
    except (RuntimeError, WebSocketDisconnect):
        stopped.set()
    try:
        made = await recording
    except Stopped:
        return
    finally:
        gone.cancel()
    await _tell_saving(socket)
    await run_in_threadpool(workspace.take_ecg, exam, made)
    await _tell(socket, {"done": f"/exams/{exam}/ecg"})


async def _tell_saving(socket: WebSocket) -> None:
    try:
        await socket.send_text('{"saving": true}')
    except (RuntimeError, WebSocketDisconnect):
        return  # recorded to its end is kept, whoever is still looking


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _show(socket: WebSocket, heard: asyncio.Queue[Heard | None], seconds: float) -> None:
    lights, told, started = Lights(), 0.0, False
    while (piece := await heard.get()) is not None:
        lights.add(piece)
        if not started:
            started = True
            await socket.send_text(json.dumps({"fs": piece.fs_hz, "lead": piece.lead, "seconds": seconds}))
        if heard.qsize() < _STALE:
            # microvolt as int16: 32 mV is more than any electrode gives
            microvolt = (piece.millivolts * 1000).clip(-32767, 32767).astype("<i2")
            await socket.send_bytes(microvolt.tobytes())
        if lights.seconds - told >= 1:
            told = lights.seconds
            left = max(0, round(seconds - told))
            await socket.send_text(json.dumps({"left": left, "light": lights.judge(piece.fs_hz)}))


async def _live_camera(site: Site, workspace: Workspace, socket: WebSocket) -> None:
    """Frames as fast as the page draws them, and at most twelve a second."""
    exam, eye = socket.path_params["exam"], Eye(socket.path_params["side"])
    camera, source = site.cameras[workspace], workspace.source(eye.value, exam)
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        picture = await run_in_threadpool(camera.preview, source)
        if picture is None:
            await _tell(socket, {"none": True})
            return
        await socket.send_bytes(picture)
        await socket.send_text(json.dumps(guide(picture)))
        await socket.receive_text()  # the page has drawn it
        await asyncio.sleep(max(0.0, PREVIEW_S - (loop.time() - began)))


def _refused(site: Site, request: Request, error: HTTPException) -> Response:
    return site.render(request, "refused.html", site.session(request), error.status_code, error=error)


class _Headers:
    """Adds the headers to every answer, and refuses other host names: no page from elsewhere can rebind its name."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._hosts = app, {"127.0.0.1", "localhost", "[::1]", host}
        self._raw = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").rpartition(":")[0]
        if host not in self._hosts:
            refuse = Response("unknown host", 421) if scope["type"] == "http" else None
            if refuse is not None:
                await refuse(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 4421})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = [one for one in self._raw if one[0] not in own]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
