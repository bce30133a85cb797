"""What a check of the doctor is given, and what it answers."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from aidpost.board.configuration import Configuration
from aidpost.inference.model import SHIPPED, Verification, verify
from aidpost.inference.runtime import available_runtimes, delegate
from aidpost.sync.clock import Clock

State = Literal["ok", "warning", "failed", "unknown"]


class Answer(msgspec.Struct, frozen=True):
    """What one check found, why it says so, and what mends it: a command where one does, empty where nothing is to be
    done."""

    state: State
    why: str
    mend: str = ""


def _free_bytes(folder: Path) -> int:
    """Free bytes of the file system that `folder` lies on, or will lie on when it is made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _may_open(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK)


def connect(host: str, port: int, deadline_s: float) -> None:
    """Open a TCP connection and close it again.

    Raises
    ------
    OSError
        It was refused, the name is unknown, or nobody answered within the deadline (TimeoutError).
    """
    problems: list[OSError] = []

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=deadline_s).close()
        except OSError as error:
            problems.append(error)

    # looking a name up has no time-out of its own: a thread that may be left behind has
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {deadline_s:g} s")
    if problems:
        raise problems[0]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """All that a check may touch. `root` stands for /, or holds a copy of another board's /proc, /sys, /dev, /etc, /run
    and /var/lib; `state_dir` and the files that the configuration names are taken where they are."""

    state_dir: Path
    configuration: Configuration
    clock: Clock
    root: Path = Path("/")
    credentials: Path | None = None
    connect: Callable[[str, int, float], None] = connect
    deadline_s: float = 3.0
    free_bytes: Callable[[Path], int] = _free_bytes
    may_open: Callable[[Path], bool] = _may_open
    runtimes: Callable[[], Sequence[str]] = available_runtimes
    delegate: Callable[[str], str] = delegate
    verify_models: Callable[[Iterable[Path]], Sequence[Verification]] = verify

    @property
    def model_roots(self) -> tuple[Path, ...]:
        """The folders that models are taken from."""
        site = self.configuration.inference.models_dir
        return (Path(site), SHIPPED) if site else (SHIPPED,)
