"""The other end of `aidpost.inference.worker`: what runs in the inference process."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

import msgspec

from aidpost.errors import AidpostError, ModelError
from aidpost.records import FundusPhoto

if TYPE_CHECKING:
    from aidpost.inference.model import Models
    from aidpost.inference.worker import WorkerSettings


@dataclass(frozen=True)
class Request:
    """One thing to do; `task` is "ready", "ecg" or "fundus"."""

    task: str
    arguments: tuple[Any, ...]


class Photo:
    """A photograph whose bytes lie in shared memory; it travels without them."""

    def __init__(self, photo: FundusPhoto, memory: str) -> None:
        self._size, self._memory = len(photo.encoded), memory
        self._photo = msgspec.structs.replace(photo, encoded=b"-")

    def read(self) -> FundusPhoto:
        """The photograph, its bytes copied out."""
        memory = SharedMemory(name=self._memory)
        try:
            return msgspec.structs.replace(self._photo, encoded=bytes(shared_bytes(memory)[: self._size]))
        finally:
            memory.close()


def shared_bytes(memory: SharedMemory) -> memoryview:
    """The buffer of a shared memory that is open."""
    assert memory.buf is not None
    return memory.buf


def serve(pipe: Connection, settings: WorkerSettings) -> None:
    """Answer requests until the other end closes."""
    # not at the top: who asks imports this module too, and needs none of what runs models
    from aidpost.inference.model import SHIPPED, Models

    # Ctrl-C in the terminal goes to the whole group; the parent decides when this ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    models = Models(
        roots=settings.roots or (SHIPPED,),
        profile=settings.profile,
        accepted=settings.accepted,
        chosen=settings.chosen,
        runtime=settings.runtime,
        heads=settings.heads,
    )
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(request, models, settings))


def _answer(request: Request, models: Models, settings: WorkerSettings) -> Any:
    try:
        return _do(request, models, settings)
    except AidpostError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, the exam goes on and the operator reads it
        return ModelError(operation="analysing", target=request.task, cause=f"{type(error).__name__}: {error}")


def _do(request: Request, models: Models, settings: WorkerSettings) -> Any:
    # imported with the first of their kind, so that an ECG does not wait for OpenCV
    if request.task == "ecg":
        from aidpost.inference import ecg

        recording, lead = request.arguments
        return ecg.analyze(recording, models, lead, limits=settings.limits.get("ecg"))
    if request.task == "fundus":
        from aidpost.inference import fundus

        shared, force, attempt = request.arguments
        limits = settings.limits.get("fundus")
        return fundus.analyze(shared.read(), models, force=force, attempt=attempt, limits=limits)
    return None
