"""Inference in a process of its own, behind a deadline: a model that hangs or crashes never takes the exam with it.

The process is spawned, never forked, and speaks over one framed pipe: each request is answered by its result or its
error. A photograph's bytes go through shared memory. When an answer does not come in time, or the process dies, it is
killed and replaced, and the caller gets an error at once.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aidpost.errors import InferenceTimeoutError, ModelError
from aidpost.inference._worker_process import Photo, Request, serve, shared_bytes
from aidpost.records import EcgRecording, EcgResult, FundusPhoto

if TYPE_CHECKING:
    from aidpost.inference.fundus import FundusAnalysis

__all__ = ["InferenceWorker", "WorkerSettings"]

_END_S = 5.0
_START_S = 20.0  # a Pi's first imports from a cold card; an answer's own deadline starts after it


@dataclass(frozen=True)
class WorkerSettings:
    """What the process makes its `Models` of, and the site's own limits by rule file ("ecg", "fundus")."""

    roots: tuple[Path, ...] | None = None
    profile: str = "research"
    accepted: tuple[str, ...] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    heads: Path | None = None
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class InferenceWorker:
    """The analyses of `aidpost.inference.ecg` and `fundus`, done in a process of their own.

    It starts with the first request, or with `start`. Methods may be called from any thread; one request runs at a
    time.

    Parameters
    ----------
    deadline_s
        Longest time an answer may take.
    """

    def __init__(self, settings: WorkerSettings | None = None, *, deadline_s: float = 10.0) -> None:
        self._settings, self._deadline_s = settings or WorkerSettings(), deadline_s
        self._lock = threading.Lock()
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> InferenceWorker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process's id; None where it is not running."""
        return self._process.pid if self._process is not None and self._process.is_alive() else None

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises as `ecg` does."""
        with self._lock:
            self._ready()

    def use(self, settings: WorkerSettings) -> None:
        """Go on by other settings, from the next recording on: the process ends, and a new one is started. Raises as
        `ecg` does."""
        with self._lock:
            self._settings = settings
            self._kill()
            self._ready()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._kill()

    def ecg(self, recording: EcgRecording, lead: str | None = None) -> EcgResult:
        """`aidpost.inference.ecg.analyze`.

        Raises
        ------
        InferenceTimeoutError
            No answer within the deadline; the process was killed, a new one is being started.
        ModelError
            The process died, or a model is missing, damaged or refused.
        UsageError
            The recording has no such lead.
        """
        answer: EcgResult = self._ask("ecg", str(recording.source or recording.id), (recording, lead))
        return answer

    def fundus(self, photo: FundusPhoto, *, force: bool = False, attempt: int = 1) -> FundusAnalysis:
        """`aidpost.inference.fundus.analyze`. Raises as `ecg` does, and UnreadableInputError."""
        memory = SharedMemory(create=True, size=len(photo.encoded))
        try:
            shared_bytes(memory)[: len(photo.encoded)] = photo.encoded
            shared = Photo(photo, memory.name)
            answer: FundusAnalysis = self._ask("fundus", str(photo.source or photo.id), (shared, force, attempt))
            return answer
        finally:
            memory.close()
            memory.unlink()

    def _ask(self, task: str, target: str, arguments: tuple[Any, ...]) -> Any:
        with self._lock:
            self._ready()
            return self._exchange(Request(task, arguments), target, self._deadline_s, again=True)

    def _ready(self) -> None:
        if self.pid is not None:
            return
        self._launch()
        self._exchange(Request("ready", ()), "worker", _START_S)

    def _launch(self) -> None:
        self._kill()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, self._settings), name="aidpost-inference", daemon=True
        )
        self._process.start()
        theirs.close()

    def _exchange(self, request: Request, target: str, deadline_s: float, *, again: bool = False) -> Any:
        pipe, process = self._pipe, self._process
        assert pipe is not None
        assert process is not None
        # It ends the process, and with it whatever waits on the pipe: a send may hang as well as an answer.
        watchdog = _Watchdog(deadline_s, process)
        try:
            with watchdog:
                pipe.send(request)
                answer = pipe.recv()
        except (EOFError, OSError) as error:
            if again and isinstance(error, BrokenPipeError) and not watchdog.struck:
                # it was ending already and has not got the request, which is not to blame: another one gets it
                self._kill()
                self._ready()
                return self._exchange(request, target, deadline_s)
            process.join(_END_S)
            code = process.exitcode
            self._launch()  # the next request finds it ready, or nearly
            raise _lost(request.task, target, deadline_s if watchdog.struck else None, code) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _kill(self) -> None:
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if process is not None:
            process.kill()
            process.join(_END_S)
        if pipe is not None:
            pipe.close()


class _Watchdog:
    """Kills a process that is still being waited for when the time is up."""

    def __init__(self, seconds: float, process: SpawnProcess) -> None:
        self._timer = threading.Timer(seconds, self._strike)
        self._timer.daemon = True
        self._process = process
        self.struck = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _strike(self) -> None:
        self.struck = True
        self._process.kill()


def _lost(task: str, target: str, deadline_s: float | None, code: int | None) -> ModelError:
    operation, again = f"analysing ({task})", "Try again. If it happens again, run `aidpost models verify`"
    if deadline_s is not None:
        cause = f"no answer within {deadline_s:g} s; the process was ended and a new one started"
        return InferenceTimeoutError(operation=operation, target=target, cause=cause, remedy=f"{again}.")
    cause = f"the process ended by itself (exit code {code}); a new one was started"
    return ModelError(operation=operation, target=target, cause=cause, remedy=f"{again} and look at the memory in use.")
