"""Which sensors are alive, as a page that looks again by itself; and trying those that nobody is reading."""

from __future__ import annotations

import threading
from contextlib import closing

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.board.console.live import Camera
from aidpost.board.console.site import Form, Session, Site
from aidpost.board.console.words import N_
from aidpost.board.console.workspace import Workspace
from aidpost.errors import AidpostError, UsageError
from aidpost.firmware_bridge.sources import open_source


def page(site: Site, request: Request, session: Session) -> Response:
    """Each sensor: whether it is there, what was heard of it and when, its battery, what went wrong."""
    return _shown(site, request, session, "sensors.html")


def listed(site: Site, request: Request, session: Session) -> Response:
    """The list alone, for the page that looks again."""
    return _shown(site, request, session, "_sensors.html")


def _shown(site: Site, request: Request, session: Session, template: str) -> Response:
    workspace = site.workspace(session)
    return site.render(request, template, session, sensors=workspace.sensors_now(), trying=workspace in site.trying)


def try_all(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Ask each sensor whether it answers, one after the other, while the page shows how far it is."""
    workspace = site.workspace(session)
    if workspace.watching.exam is not None:
        raise UsageError(
            operation="trying the sensors",
            target="sensors",
            cause=N_("a patient is watched"),
            remedy=N_("The watch itself shows whether they answer."),
        )
    if workspace not in site.trying:
        site.trying.add(workspace)
        threading.Thread(target=_try, args=(site, workspace), name="trying-sensors", daemon=True).start()
    return RedirectResponse("/sensors", 303)


def _try(site: Site, workspace: Workspace) -> None:
    try:
        for sensor in workspace.sensors_now():
            if not sensor.is_read:
                reach(workspace, site.cameras[workspace], sensor.source)
    finally:
        site.trying.discard(workspace)


def reach(workspace: Workspace, camera: Camera, source: str) -> None:
    """Whether this sensor answers: a port sends something, a camera shows a picture, Bluetooth connects. Nothing is
    measured or kept; a folder or a simulated patient is left as it is."""
    from aidpost.firmware_bridge.ports.ble import BleSource
    from aidpost.firmware_bridge.ports.serial import SerialSource

    try:
        if source.startswith(("camera:", "csi:")):
            camera.preview(source)
        elif source.startswith(("serial:", "ble:")):
            with workspace.turns[source], closing(open_source(source, clock=workspace.store)) as opened:
                assert isinstance(opened, SerialSource | BleSource)
                opened.reach()
    except AidpostError:
        return  # the port has noted it
