"""A thread beside the pages that looks for work."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Worker(ABC):
    """Runs until `stop`. `start` may be called once.

    Parameters
    ----------
    name
        The thread's.
    end_s
        How long `stop` waits for the work in hand.
    """

    def __init__(self, name: str, end_s: float = 30.0) -> None:
        self._stopping, self._end_s = threading.Event(), end_s
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the work in hand; what else was due is done after the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._end_s)

    @abstractmethod
    def _run(self) -> None:
        """Works until `_stopping` is set."""
