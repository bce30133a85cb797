"""When the device has time: rounds go on by themselves, learning only while nobody needs it and it is on the mains.

The work is done by a process of its own, the kindest there is to others, which is killed when somebody touches the
screen or pulls the plug: it can be killed anywhere (`participant`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

from aidpost.board import device
from aidpost.board.analysis import models_for
from aidpost.board.configuration import Configuration
from aidpost.board.learning.participant import Participant, waiting
from aidpost.errors import AidpostError
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Store

__all__ = ["Learner", "answer_rounds", "participant"]

_log = logging.getLogger(__name__)

EVERY_S = 30.0
AFTER_FAILURE_S = 900.0
_WATCH_S = 0.5
_NICE = 19


def participant(configuration: Configuration, store: Store) -> Participant:
    """This device in rounds, by its configuration; the heads learned here are left out."""
    return Participant(store, configuration.federated, models_for(configuration.inference))


def answer_rounds(configuration: Configuration, store: Store, *, learn: bool = True) -> int:
    """Do every step that is due, here and now; gives how many.

    Parameters
    ----------
    learn
        Whether steps that take time are done, too.

    Raises
    ------
    AidpostError
        As `Participant.do`.
    """
    me, done = participant(configuration, store), 0
    for due in me.due():
        if learn or due.step != "answer":
            kept = me.do(due)
            done += 1
            _log.info("round %s/%d: %s %s", due.call.model, due.call.number, kept.state, kept.reason)
    me.forget()
    return done


def _child(configuration: Configuration, state_dir: Path, key: DeviceKey, learn: bool) -> None:
    os.nice(_NICE)
    with device.open_store(configuration, state_dir, key) as store:
        answer_rounds(configuration, store, learn=learn)


class Learner:
    """The thread that looks for rounds and lets a process answer them.

    Parameters
    ----------
    idle
        Whether nobody needs the device now.
    mains
        Whether it runs on the mains now.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: Store,
        key: DeviceKey,
        idle: Callable[[], bool],
        mains: Callable[[], bool],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._configuration, self._store, self._key = configuration, store, key
        self._idle, self._mains, self._every_s = idle, mains, every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="learning", daemon=True)

    def __enter__(self) -> Learner:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._every_s
        while not self._stopping.wait(pause):
            try:
                pause = self._every_s if self._turn() else max(self._every_s, AFTER_FAILURE_S)
            except AidpostError as error:
                _log.error("rounds are not answered: %s: %s", error.target, error.cause)
                pause = max(self._every_s, AFTER_FAILURE_S)

    def _may_learn(self) -> bool:
        return self._idle() and self._mains()

    def _turn(self) -> bool:
        """One look; False where the process failed."""
        due = participant(self._configuration, self._store).due()
        learn = waiting(due) and self._may_learn()
        if not learn and all(one.step == "answer" for one in due):
            return True
        process = multiprocessing.get_context("spawn").Process(
            target=_child, args=(self._configuration, self._store.folder, self._key, learn), name="learning"
        )
        process.start()
        stopped = self._watch(process, learn)
        failed = process.exitcode != 0 and not stopped
        if failed:
            _log.error("answering rounds ended with code %s", process.exitcode)
        process.close()
        return not failed

    def _watch(self, process: SpawnProcess, learn: bool) -> bool:
        """Wait for its end, or kill it when it is in somebody's way; whether it was."""
        while process.is_alive():
            process.join(_WATCH_S)
            if process.is_alive() and (self._stopping.is_set() or (learn and not self._may_learn())):
                process.kill()
                process.join()
                return True
        return False
