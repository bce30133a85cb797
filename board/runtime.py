"""What runs on the device, and when: one table. `aidpost run` opens its parts in order and closes them in reverse."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aidpost.board import device
from aidpost.board.configuration import Configuration
from aidpost.board.console.clock import ConfirmedClock
from aidpost.board.remote import RemoteSettings, applied
from aidpost.board.remote_rules import RemoteRules
from aidpost.board.update import from_hub
from aidpost.board.update.report import told
from aidpost.board.update.slots import Slots
from aidpost.errors import AidpostError, ModelError, NotPossibleError, UsageError
from aidpost.firmware_bridge.states import KEPT_IN, STATES
from aidpost.inference.worker import InferenceWorker
from aidpost.sync import rules, settings
from aidpost.sync.applier import Applier, Subject
from aidpost.sync.keys import DeviceKey
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

if TYPE_CHECKING:
    from aidpost.board.console.site import Site
    from aidpost.board.console.workspace import Workspace

_log = logging.getLogger(__name__)


@dataclass
class Running:
    """The device while it runs. `practice_only`: simulated sensors and patients, and nothing else. `own` is the
    configuration without what the hub has set; by default the same."""

    configuration: Configuration
    state_dir: Path
    key: DeviceKey
    practice_only: bool
    own: Configuration | None = None
    store: Store | None = None
    practice: Store | None = None
    worker: InferenceWorker | None = None
    publisher: Publisher | None = None
    site: Site | None = None
    clock: ConfirmedClock = field(default_factory=ConfirmedClock)
    remote: RemoteSettings | None = None

    def use(self, configuration: Configuration) -> None:
        """Go on by another configuration, from the next page and the next connection on."""
        before, self.configuration = self.configuration, configuration
        if self.site is not None:
            self.site.configure(configuration)
        if self.publisher is not None and self.store is not None and configuration.sync != before.sync:
            self.publisher.use(device.link(configuration, self.store))
        if self.worker is not None and configuration.limits != before.limits:
            try:
                self.worker.use(device.worker_settings(configuration, self.state_dir))
            except ModelError as error:  # the first exam says it again, to somebody who can read it
                _log.warning("inference does not start: %s", error.cause)


class Part(NamedTuple):
    """A part of the device: its name, when it runs, and what opens it."""

    name: str
    when: Callable[[Running], bool]
    open: Callable[[Running], AbstractContextManager[None]]


def subjects(running: Running) -> dict[str, Subject]:
    """Who takes up what on this device, by the subject of the hub's deliveries."""
    assert running.remote is not None
    own = running.own or running.configuration
    limits = RemoteRules(own, running.state_dir, lambda: running.use(applied(own, running.state_dir)))
    return {
        settings.SUBJECT: Subject(running.remote.take_up),
        rules.SUBJECT: Subject(limits.take_up),
        from_hub.SUBJECT: Subject(from_hub.HubBundles(running.configuration, running.state_dir).take_up),
    }


@contextmanager
def _store(running: Running) -> Iterator[None]:
    with device.open_store(running.configuration, running.state_dir, running.key, running.clock) as running.store:
        running.remote = RemoteSettings(
            running.own or running.configuration, running.state_dir, running.store, running.use
        )
        yield


@contextmanager
def _practice(running: Running) -> Iterator[None]:
    """Practice has a store of its own, in a folder of its own, which nothing sends."""
    folder = running.state_dir / "practice"
    with device.open_store(running.configuration, folder, running.key, running.clock) as running.practice:
        yield


@contextmanager
def _inference(running: Running) -> Iterator[None]:
    settings = device.worker_settings(running.configuration, running.state_dir)
    running.worker = InferenceWorker(settings, deadline_s=running.configuration.inference.deadline_s)
    try:
        yield
    finally:
        running.worker.close()


@contextmanager
def _models(running: Running) -> Iterator[None]:
    """The screen is there before the models are: they load while the worker types the PIN, and take neither processor
    nor card from what the first page needs."""
    assert running.worker is not None
    warming = threading.Thread(target=_warm, args=(running.worker,), name="warm-inference", daemon=True)
    warming.start()
    try:
        yield
    finally:
        warming.join()


def _warm(worker: InferenceWorker) -> None:
    try:
        worker.start()
    except ModelError as error:  # the first exam says it again, to somebody who can read it
        _log.warning("inference does not start: %s", error.cause)


@contextmanager
def _sender(running: Running) -> Iterator[None]:
    assert running.store is not None
    try:
        link = device.link(running.configuration, running.store)
    except AidpostError as error:
        # an exam needs no hub: everything is kept, the screen says that nothing is sent, the doctor says why
        _log.error("nothing is sent: %s: %s", error.target, error.cause)
        yield
        return
    slots = Slots(Path(running.configuration.update.folder))
    attempted = running.remote.attempted if running.remote is not None else lambda _: None
    running.publisher = Publisher(running.store, link, lambda: told(slots), attempted)
    with running.publisher:
        yield


@contextmanager
def _applier(running: Running) -> Iterator[None]:
    """Takes up what the hub sent, by MQTT or stick: also while there is no connection."""
    assert running.store is not None
    assert running.remote is not None
    running.remote.tell()
    with Applier(running.store, subjects(running)):
        yield


@contextmanager
def _console(running: Running) -> Iterator[None]:
    try:
        from aidpost.board.console.people import Workers
        from aidpost.board.console.site import Site
        from aidpost.board.console.status import look
        from aidpost.board.console.workspace import Workspace
    except ImportError as error:
        raise NotPossibleError(
            operation="starting the screen",
            target="console",
            cause=str(error),
            remedy="pip install 'aidpost[console]'",
        ) from error
    assert running.worker is not None
    assert running.practice is not None
    configuration = running.configuration
    with ExitStack() as stack:

        def workspace(store: Store, *, practice: bool) -> Workspace:
            made = Workspace(configuration, store, running.worker, practice=practice)  # type: ignore[arg-type]
            stack.callback(made.close)
            made.watching.resume()
            return made

        real = workspace(running.store, practice=False) if running.store is not None else None
        practice = workspace(running.practice, practice=True)
        main = real or practice
        publisher = running.publisher
        connected = (lambda: publisher.connected) if publisher is not None else None
        workers = Workers(main.database, main.store)
        running.site = Site(configuration, real, practice, workers, lambda one: look(one, connected), running.clock)
        for camera in running.site.cameras.values():
            stack.callback(camera.close)
        yield


@contextmanager
def _learning(running: Running) -> Iterator[None]:
    from aidpost.board.learning.service import Learner
    from aidpost.board.power import on_mains

    assert running.store is not None
    assert running.site is not None
    site, quiet_s = running.site, running.configuration.federated.idle_minutes * 60
    with Learner(
        running.configuration, running.store, running.key, idle=lambda: site.quiet_s() >= quiet_s, mains=on_mains
    ):
        yield


@contextmanager
def _sensors(running: Running) -> Iterator[None]:
    """How the sensors are, for `aidpost devices list` beside the screen."""
    STATES.keep_in(running.state_dir / KEPT_IN)
    try:
        yield
    finally:
        STATES.keep_in(None)


PARTS = (
    Part("sensors", lambda _: True, _sensors),
    Part("store", lambda r: not r.practice_only, _store),
    Part("practice", lambda _: True, _practice),
    Part("inference", lambda _: True, _inference),
    Part("sender", lambda r: not r.practice_only and r.configuration.sync.enabled, _sender),
    Part("applier", lambda r: not r.practice_only, _applier),
    Part("console", lambda _: True, _console),
    Part("models", lambda _: True, _models),
    Part("learning", lambda r: not r.practice_only and r.configuration.federated.enabled, _learning),
)
"""The table: name, when, how. The order is that of need: what is lower uses what is higher."""


def run(running: Running, serving: Callable[[str], None] = lambda _: None) -> None:
    """Run the device until it is told to end (SIGTERM, SIGINT).

    Parameters
    ----------
    serving
        Told the screen's address once it answers.

    Raises
    ------
    UsageError
        The port is taken.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(_listen(running.configuration.console.host, running.configuration.console.port))
        for part in PARTS:
            if part.when(running):
                stack.enter_context(part.open(running))
        assert running.site is not None
        _serve(running.site, listening, serving)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(64)
    except OSError as error:
        raise UsageError(
            operation="opening the screen's port",
            target=f"{host}:{port}",
            cause=str(error),
            remedy="End the other `aidpost run`, or set console.port.",
        ) from None
    return made


def _serve(site: Site, listening: socket.socket, serving: Callable[[str], None]) -> None:
    import uvicorn

    from aidpost.board.console.app import create_app

    config = uvicorn.Config(
        create_app(site),
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )
    host, port = listening.getsockname()[:2]
    serving(f"http://{host}:{port}/")
    server = uvicorn.Server(config)

    def end(_signal: int, _frame: object) -> None:
        server.should_exit = True

    # uvicorn raises the signal that ended it once more: ours takes it, so that what runs is closed in order
    before = [(one, signal.signal(one, end)) for one in (signal.SIGINT, signal.SIGTERM)]
    try:
        server.run(sockets=[listening])
    finally:
        for one, handler in before:
            signal.signal(one, handler)
