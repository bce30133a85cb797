"""Mosquitto beside the hub: configured, started, started again when it ends, told of revocations."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import msgspec

from aidpost.errors import BrokerError, ConfigurationError, NotPossibleError
from aidpost.sync._durable import replace_file
from aidpost.sync.hub import broker, enrolment
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database

_log = logging.getLogger(__name__)

_FOLDER = "broker"
_LOOK_S = 2.0
_LONGEST_WAIT_S = 30.0
_START_S = 20.0


def own_broker(config: HubConfig) -> HubConfig:
    """The configuration of a hub whose broker is its own, on this machine.

    Raises
    ------
    ConfigurationError
        Nobody said by which name devices reach it: it stands in the broker's certificate.
    """
    if not config.public_host:
        raise ConfigurationError(
            operation="starting the hub with a broker of its own",
            target="hub.public_host",
            cause="it is empty",
            remedy=f"Set the name or address by which devices reach this machine: {socket.gethostname()}?",
        )
    folder = config.state / _FOLDER
    return msgspec.structs.replace(
        config,
        broker_host="127.0.0.1",
        broker_port=config.public_broker_port,
        broker_ca=str(folder / "authority.pem"),
        broker_certificate=str(folder / "hub.pem"),
        broker_key=str(folder / "hub.key"),
    )


class Mosquitto:
    """The broker of `own_broker`, with the configuration that `aidpost hub broker` writes.

    Raises
    ------
    NotPossibleError
        Mosquitto is not installed.
    """

    def __init__(self, config: HubConfig) -> None:
        self._config, self._folder = config, config.state / _FOLDER
        found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found is None:
            raise NotPossibleError(
                operation="starting the broker",
                target="mosquitto",
                cause="it is not installed",
                remedy="Install it (Debian: apt-get install mosquitto), or use `aidpost hub serve` and another.",
            )
        self._binary = found
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hub-broker", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Writes the configuration and returns once the broker listens.

        Raises
        ------
        BrokerError
            It ended at once: another program has the port, most likely.
        """
        self._path = broker.write(self._config, self._folder)
        if os.geteuid() == 0:
            # it would become a user who cannot read the hub's state folder
            replace_file(self._path, self._path.read_bytes() + b"user root\n", mode=0o644)
        self._end_left_over()
        self._spawn()
        deadline = time.monotonic() + _START_S
        while not self._listens():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise BrokerError(
                    operation="starting the broker",
                    target=f"port {self._config.public_broker_port}",
                    cause="Mosquitto does not listen; what it said stands above",
                    remedy="Stop what has that port, or set another hub.public_broker_port.",
                )
            time.sleep(0.05)
        self._thread.start()

    def stop(self) -> None:
        """Ends the broker; what it holds it writes to its folder."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _watch(self) -> None:
        wait, serials = 1.0, self._revoked()
        while not self._stopping.wait(_LOOK_S):
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                _log.error("the broker ended with %s; starting it again", code)
                if self._stopping.wait(wait):
                    return
                wait = min(wait * 2, _LONGEST_WAIT_S)
                self._spawn()
            elif (now := self._revoked()) != serials:
                serials = now
                broker.write_revocations(self._config, self._folder)
                self._process.send_signal(signal.SIGHUP)

    def _spawn(self) -> None:
        self._process = subprocess.Popen([self._binary, "-c", str(self._path)], stdin=subprocess.DEVNULL)
        (self._folder / "pid").write_text(str(self._process.pid))

    def _end_left_over(self) -> None:
        """A hub that was killed leaves its broker running."""
        try:
            pid = int((self._folder / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if os.fsencode(self._path) in command:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 10
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._config.public_broker_port)) == 0

    def _revoked(self) -> list[int]:
        database = Database(self._config.url)
        try:
            with database.read() as connection:
                return sorted(enrolment.revoked_serials(connection))
        finally:
            database.close()
