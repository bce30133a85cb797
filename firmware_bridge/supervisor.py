"""A device's port in a process of its own, watched from here: a port that hangs is killed and started again.

The worker sends messages through a pipe, and at least a heartbeat every `HEARTBEAT_S`. Nothing from it for `HUNG_S`
means that it hangs (a driver in the kernel, a library in a lock), and only a new process helps.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

HEARTBEAT_S = 0.5
HUNG_S = 2.0
KILL_S = 0.5
STARTUP_S = 15.0
"""A fresh interpreter on a busy Pi takes seconds to import what it needs; only then does it have to be punctual."""

Message = tuple[str, float, Any]
"""What a worker says: a kind, when (monotonic seconds), and what. Kinds `heartbeat` and `error` are known to all."""


class Supervisor:
    """Runs `target(connection, *arguments)` in a spawned process and keeps it running.

    `restarts` counts how often it had to be replaced. `target` is a module's function that ends when the pipe closes.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any, hung_s: float = HUNG_S) -> None:
        self._target, self._arguments, self._hung_s = target, arguments, hung_s
        self.restarts = 0
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._heard, self._greeted = 0.0, False

    def start(self) -> None:
        """Start the worker; nothing if it runs."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, child = context.Pipe()
            self._process = context.Process(target=self._target, args=(child, *self._arguments), daemon=True)
            self._process.start()
            child.close()
            self._heard, self._greeted = time.monotonic(), False

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        return None if self._process is None else self._process.pid

    def receive(self, timeout_s: float) -> Message | None:
        """The next message but heartbeats; None after `timeout_s` without one. Replaces a worker that hangs or died."""
        until = time.monotonic() + timeout_s
        while True:
            self.start()
            assert self._pipe is not None
            limit = self._heard + (self._hung_s if self._greeted else STARTUP_S)
            wait = min(until, limit) - time.monotonic()
            message = self._next(max(0.0, wait))
            if message is not None:
                self._heard, self._greeted = time.monotonic(), True
                if message[0] != "heartbeat":
                    return message
            elif self._process is None or time.monotonic() >= limit:
                self._replace()
            if time.monotonic() >= until:
                return None

    def _next(self, wait_s: float) -> Message | None:
        assert self._pipe is not None
        try:
            if self._pipe.poll(wait_s):
                message: Message = self._pipe.recv()
                return message
        except (EOFError, OSError):  # it died
            self._heard = -self._hung_s - STARTUP_S
        return None

    def send(self, data: bytes) -> None:
        """Hand bytes to the worker, to be written to the device."""
        if self._pipe is not None:
            self._pipe.send(data)

    def _replace(self) -> None:
        self.stop()
        self.restarts += 1
        self.start()

    def stop(self) -> None:
        """End the worker: asked first, then killed. May be called twice."""
        process, self._process = self._process, None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if process is not None:
            process.join(KILL_S)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
