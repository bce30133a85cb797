"""When the device asks the hub for more of a large body, and for how much of it at once."""

from __future__ import annotations

from aidpost.sync.envelope import CHUNK, BlobHeld, Chunks
from aidpost.sync.store import Store

_AGAIN_S = (10.0, 20.0, 40.0, 60.0)
_AT_ONCE_S = 0.5
"""An answer within this says that the link is no bottleneck."""
_WIDEN = 8


class Asking:
    """One body at a time, one ask under way; asked again, ever more slowly, while nothing comes. A second ask beside it
    would be answered with the same chunks, and each answer followed by an ask, for as long as the body lasts.

    Parameters
    ----------
    window_bytes
        What is asked for at once over a slow link; eight times as much while answers come at once.
    bytes_s
        The most that comes in a second; 0 for no bound.
    """

    def __init__(self, store: Store, window_bytes: int, bytes_s: int) -> None:
        self._store, self._window, self._rate = store, max(CHUNK, window_bytes), bytes_s
        self._wide, self._quiet = 1, 0
        self._next, self._asked = 0.0, 0.0
        self._under_way = False
        self._told: set[bytes] = set()

    def begin(self) -> None:
        """A conversation begins: nothing is under way."""
        self._wide, self._quiet, self._next, self._under_way = 1, 0, 0.0, False
        self._told.clear()

    def soon(self) -> None:
        """Something new came down: asked for at once, unless an answer is still to come."""
        if not self._under_way:
            self._next = 0.0

    def refused(self) -> None:
        """The hub sends no more of it: the next body is asked for at once."""
        self._next, self._under_way = 0.0, False

    def due(self, now: float) -> tuple[BlobHeld, ...]:
        """What to ask for, and what is whole and not told yet; empty where it is not the time."""
        if now < self._next:
            return ()
        whole = tuple(one for one in self._store.deliveries.complete() if one.sha256 not in self._told)
        self._told |= {one.sha256 for one in whole}
        wanted = self._store.deliveries.wanted(self._window * self._wide)
        self._next = now + _AGAIN_S[min(self._quiet, len(_AGAIN_S) - 1)] if wanted else now + _AGAIN_S[-1]
        self._quiet += 1
        if self._quiet > 1:
            self._wide = 1
        self._asked, self._under_way = now, wanted is not None
        return (*whole, wanted) if wanted else whole

    def arrived(self, chunks: Chunks, now: float) -> None:
        """Keep what came, durably; the next ask follows at once, or when the rate allows it.

        Raises
        ------
        StoreError
            The disk is full or failed: asked again later.
        """
        if not self._store.deliveries.keep_chunks(chunks.chunks):
            return
        self._wide = min(_WIDEN, 2 * self._wide) if now - self._asked < _AT_ONCE_S else max(1, self._wide // 2)
        self._quiet, self._under_way = 0, False
        size = sum(len(one.data) for one in chunks.chunks)
        self._next = self._asked + size / self._rate if self._rate else 0.0
