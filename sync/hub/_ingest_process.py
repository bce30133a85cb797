"""The ingest in a process of its own beside the hub's pages, so that what devices send waits for no reader.

In one process they would share one interpreter lock, and the kernel could not tell them apart. What runs here is
`HubService`; the hub's own process starts it, is told how it is, and starts it again should it die or fall silent. The
two talk in lines: the configuration and "something is to go down" in, its state out, at least every few seconds while
its threads go round. A closed pipe means that the other has gone: the ingest then commits what it has in hand and ends,
so that a hub that was killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import subprocess
import sys
import threading
import time
from typing import IO

import msgspec

from aidpost.errors import AidpostError, BrokerError
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.lock import StateLock
from aidpost.sync.hub.service import HubService, Trouble

_log = logging.getLogger(__name__)

_LOOK_S = 0.2
_LONGEST_WAIT_S = 30.0
_END_S = 30.0
"""For the batch in hand and both of the service's threads."""
_WAKE = b"wake\n"
_TELL_EVERY_S = 5.0
_STUCK_S = 300.0
"""A batch, and one round of what goes down, are done in seconds; a database that is away is tried again sooner."""
_SILENT_S = 120.0
"""Also for a beginning on a slow board."""


class _State(msgspec.Struct, frozen=True):
    """What the process tells: how it is, or why it cannot begin."""

    connected: bool = False
    trouble: str = ""
    error: dict[str, str] = {}


class IngestProcess:
    """`HubService` in a process of its own; it may be used like one.

    While it is being started again, `trouble` says that nothing can be stored, which is so.
    """

    def __init__(self, config: HubConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._state = _State(trouble=Trouble.STORE.value)
        self._stopping = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="hub-ingest-watch", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker answers now."""
        return self._state.connected

    @property
    def trouble(self) -> Trouble:
        """Whether what devices send can be kept."""
        return Trouble(self._state.trouble)

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Returns once it has begun. A broker that is away is waited for there.

        Raises
        ------
        BrokerError
            The broker's certificate files cannot be read, or the process does not begin; its log says why.
        """
        output = self._spawn()
        state = _read(output)
        if state is None or state.error:
            self._end()
            output.close()
            told = state.error if state else {}
            raise BrokerError(
                operation=told.get("operation", "starting the ingest"),
                target=told.get("target", self._config.broker_host),
                cause=told.get("cause", "its process ended; what it said stands above"),
                remedy=told.get("remedy", "Start the hub again."),
            )
        self._state = state
        self._thread.start()

    def stop(self) -> None:
        """Commits what is in hand, then leaves the broker. What was not acknowledged comes again."""
        self._stopping.set()
        self._end()
        if self._thread.is_alive():
            self._thread.join(10)

    def wake(self) -> None:
        """Something new waits to go down."""
        # it may be about to be started again, and looks by itself every two seconds
        with contextlib.suppress(OSError, ValueError), self._writing:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(_WAKE)
                self._process.stdin.flush()

    def _spawn(self) -> IO[bytes]:
        command = [sys.executable, "-m", __name__]
        # unbuffered: a line that was read ahead would not be waited for
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdin is not None
        assert process.stdout is not None
        with self._writing:
            self._process = process
            with contextlib.suppress(OSError):  # it has ended already, which is seen by its silence
                # by the pipe: the configuration holds passwords, and a command line is for everybody to read
                process.stdin.write(msgspec.json.encode(self._config) + b"\n")
                process.stdin.flush()
        return process.stdout

    def _watch(self) -> None:
        wait = 1.0
        while True:
            assert self._process is not None
            output = self._process.stdout
            assert output is not None
            while (state := _heard(self._process, output)) is not None and not state.error:
                self._state, wait = state, 1.0 if state.connected else wait
            self._state = _State(trouble=Trouble.STORE.value)
            code = self._process.wait()
            output.close()
            if self._stopping.is_set():
                return
            _log.error("the ingest ended with %s; starting it again", code)
            if self._stopping.wait(wait):
                return
            wait = min(wait * 2, _LONGEST_WAIT_S)
            with contextlib.suppress(OSError), self._writing:
                assert self._process.stdin is not None
                self._process.stdin.close()
            while not self._spawned() and not self._stopping.wait(_LONGEST_WAIT_S):
                pass

    def _spawned(self) -> bool:
        try:
            self._spawn()
        except OSError as error:  # no memory for another process now
            _log.error("the ingest cannot be started: %s", error)
            return False
        return True

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError), self._writing:
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read(output: IO[bytes]) -> _State | None:
    """The next state, None at the end."""
    try:
        line = output.readline()
        return msgspec.json.decode(line, type=_State) if line else None
    except (OSError, ValueError, msgspec.DecodeError):
        return None


def _heard(process: subprocess.Popen[bytes], output: IO[bytes]) -> _State | None:
    """The next state. A process that gives none in time, as one that hangs, is killed, and this is its end."""
    waiting = select.poll()
    waiting.register(output, select.POLLIN)
    if not waiting.poll(_SILENT_S * 1000):
        _log.error("the ingest has said nothing for %d seconds and is killed", _SILENT_S)
        process.kill()
    return _read(output)


def _tell(state: _State) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(state) + b"\n")
    sys.stdout.buffer.flush()


def _tell_changes(service: HubService, stopping: threading.Event) -> None:
    last, told_s = None, 0.0
    while not stopping.wait(_LOOK_S):
        state, now_s = _State(service.connected, service.trouble.value), time.monotonic()
        if state != last or (now_s - told_s >= _TELL_EVERY_S and service.stuck_s < _STUCK_S):
            try:
                _tell(state)
            except OSError:  # the hub has gone, which the other pipe says, too
                return
            last, told_s = state, now_s


def main() -> None:
    """The process: serves until its standard input ends."""
    # Ctrl-C at a terminal and a service manager's SIGTERM come to all processes: the hub decides when this one ends
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, signal.SIG_IGN)
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=HubConfig)
    lock = StateLock(config.state)  # of its own: should the hub be killed, no backup is restored under its last batch
    try:
        lock.share()
        database = Database(config.url)
        service = HubService(config, database, BlobFiles(config.blobs))
    except AidpostError as error:
        names = ("operation", "target", "cause", "remedy")
        _tell(_State(error={name: str(getattr(error, name)) for name in names}))
        return
    service.start()
    _tell(_State())
    stopping = threading.Event()
    thread = threading.Thread(target=_tell_changes, args=(service, stopping), name="hub-ingest-state", daemon=True)
    thread.start()
    while sys.stdin.buffer.readline():
        service.wake()
    stopping.set()
    service.stop(_END_S / 3)
    database.close()
    lock.release()


if __name__ == "__main__":
    main()
