"""The hub: ingest on the broker, pages on a port, until it is told to stop.

In tests and the demo it is one process. `serve` and `run`, for good, have the ingest in a process of its own, and give
way to it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable

import uvicorn

from aidpost.errors import AidpostError, UsageError
from aidpost.sync.hub import _quality_data, enrolment
from aidpost.sync.hub._exporter import Exporter, Target
from aidpost.sync.hub._fhir_push import FhirPush
from aidpost.sync.hub._ingest_process import IngestProcess
from aidpost.sync.hub._notifier import Notifier
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.dicom import DicomPush, Writer
from aidpost.sync.hub.lock import StateLock
from aidpost.sync.hub.mosquitto import Mosquitto, own_broker
from aidpost.sync.hub.service import HubService
from aidpost.sync.hub.tally import Tally
from aidpost.sync.hub.web import create_app
from aidpost.sync.rules import Judge

_log = logging.getLogger(__name__)

_GIVE_WAY = 10
"""The niceness of all but the ingest: of a processor that both want, readers get a tenth."""


class HubServer:
    """A hub in this process, for the demo and for tests; `serve` is the same for good.

    Parameters
    ----------
    write_dicom
        Makes DICOM objects; without it, `hub.dicom_url` gets nothing.
    judge_limits
        Holds clinical limits to the golden cases; without it, none are signed on a page.
    apart
        Whether the ingest runs in a process of its own.

    Attributes
    ----------
    url
        Where the pages are, once `start` has returned.
    """

    def __init__(
        self,
        config: HubConfig,
        write_dicom: Writer | None = None,
        judge_limits: Judge | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self.config, self._judge_limits = config, judge_limits
        self.database = Database(config.url)
        self.files = BlobFiles(config.blobs)
        self.service: HubService | IngestProcess | None = None
        if config.broker_host:
            self.service = IngestProcess(config) if apart else HubService(config, self.database, self.files)
        self.notifier = Notifier(config, self.database)
        self.tally = Tally(self.database, _quality_data.prepare)
        targets: list[Target] = [FhirPush(config, self.database, self.files)] if config.fhir_url else []
        if config.dicom_url and write_dicom:
            targets.append(DicomPush(config, self.database, self.files, write_dicom))
        self.exporters = [Exporter(self.database, target) for target in targets]
        self.url = ""
        self._lock = StateLock(config.state)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._server = uvicorn.Server(self._settings())
        self._enrolment = EnrolmentPort(config, self.database) if config.public_host else None

    def start(self) -> None:
        """Listens, connects to the broker and returns.

        Raises
        ------
        UsageError
            The port is taken, or this user may not listen on it.
        """
        self._listen()
        self._start_ingest()
        self._start_workers()
        self._thread = threading.Thread(target=self._serve, name="hub-web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends open requests, commits what is in hand, leaves the broker."""
        self._server.should_exit = True
        if self._thread:
            self._thread.join(10)
        self.close()

    def run(self, ready: Callable[[str], None] = lambda _: None) -> None:
        """Serves until SIGTERM or SIGINT; must be called on the main thread. `ready` is told the pages' URL."""
        for told in (signal.SIGTERM, signal.SIGINT):
            signal.signal(told, lambda *_: None)  # uvicorn raises it again when it has stopped, and we are not done yet
        self._listen()
        self._start_ingest()
        if isinstance(self.service, IngestProcess):
            os.nice(_GIVE_WAY)  # of this thread, and of those that it starts from here on
        self._start_workers()
        ready(self.url)
        self._serve()
        self.close()

    def close(self) -> None:
        """Leaves the broker and the database."""
        for worker in (self._enrolment, self.notifier, self.tally, *self.exporters, self.service):
            if worker:
                worker.stop()
        if self._socket:
            self._socket.close()
        self.database.close()
        self._lock.release()

    def _start_ingest(self) -> None:
        try:
            if self.service:
                self.service.start()
        except AidpostError:
            self.close()
            raise

    def _start_workers(self) -> None:
        for worker in (self._enrolment, self.notifier, self.tally, *self.exporters):
            if worker:
                worker.start()

    def _settings(self) -> uvicorn.Config:
        config, service = self.config, self.service
        app = create_app(
            config,
            self.database,
            self.files,
            wake=service.wake if service else lambda: None,
            broker_connected=(lambda: service.connected) if service else None,
            trouble=(lambda: service.trouble.value) if service else lambda: "",
            judge_limits=self._judge_limits,
        )
        return uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
            proxy_headers=config.behind_https,
            ssl_certfile=config.tls_certificate or None,
            ssl_keyfile=config.tls_key or None,
        )

    def _listen(self) -> None:
        config = self.config
        try:
            self._lock.share()
            self._socket = _open(config.listen_host, config.listen_port, "hub.listen_port")
        except AidpostError:
            self._lock.release()
            self.database.close()
            raise
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if config.tls_certificate else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"

    def _serve(self) -> None:
        assert self._socket is not None
        self._server.run(sockets=[self._socket])


class EnrolmentPort:
    """The HTTPS port where devices get their certificates, in a thread of its own: apart from the pages, since it may
    be open to the world where they are not."""

    def __init__(self, config: HubConfig, database: Database) -> None:
        self._config = config
        registrar = enrolment.Registrar(config, database)
        certificate, key = enrolment.server_pair(config, registrar.authority)
        settings = uvicorn.Config(
            enrolment.create_app(registrar, config.updates_dir),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
        )
        self._server = uvicorn.Server(settings)
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Listens and returns; raises UsageError where the port is taken."""
        self._socket = listener = _open(self._config.enrolment_bind, self._config.enrolment_port, "hub.enrolment_port")
        self._thread = threading.Thread(
            target=lambda: self._server.run(sockets=[listener]), name="hub-enrolment", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends what is under way."""
        self._server.should_exit = True
        if self._thread:
            self._thread.join(10)
        if self._socket:
            self._socket.close()


def _open(host: str, port: int, key: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            operation="opening the hub's port",
            target=f"{host}:{port}",
            cause=error.strerror or str(error),
            remedy=f"Set another {key}, or stop what listens there.",
        ) from None


def serve(
    config: HubConfig,
    ready: Callable[[str], None] = lambda _: None,
    write_dicom: Writer | None = None,
    judge_limits: Judge | None = None,
) -> None:
    """Runs the hub until SIGTERM or SIGINT. `ready` is told the URL of the pages once they are open.

    Raises
    ------
    AidpostError
        The database, the port or the certificates cannot be used. A broker that is away is waited for.
    """
    HubServer(config, write_dicom, judge_limits, apart=True).run(ready)


def run(
    config: HubConfig,
    ready: Callable[[str], None] = lambda _: None,
    write_dicom: Writer | None = None,
    judge_limits: Judge | None = None,
) -> None:
    """Runs the hub with a broker of its own, Mosquitto, until SIGTERM or SIGINT.

    Raises
    ------
    AidpostError
        As `serve`; or Mosquitto is not installed, or does not start.
    """
    config = own_broker(config)
    mosquitto = Mosquitto(config)
    mosquitto.start()
    try:
        serve(config, ready, write_dicom, judge_limits)
    finally:
        mosquitto.stop()
