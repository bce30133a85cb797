"""One event loop for all Bluetooth that is under way: bleak keeps a table of managers by loop, and several loops in as
many threads trip over it. The loop runs in a thread of its own while anybody needs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Shared:
    """The loop, its thread, and how many wait for something in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own: set[asyncio.Task[Any] | None] = set()
        self._thread: threading.Thread | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop, self._own), name="bluetooth", daemon=True
                )
                self._thread.start()
            self._users += 1
            return self._loop

    async def work(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task = asyncio.current_task()
        self._own.add(task)
        try:
            return await work()
        finally:
            self._own.discard(task)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            # the next one waits until this one has let go of the bus
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop = self._thread = None


def _serve(loop: asyncio.AbstractEventLoop, own: set[asyncio.Task[Any] | None]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        # our own were cancelled when they were given up; once more would cut short their letting go of the sensor
        for task in left - own:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


_SHARED = _Shared()


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What `work()` gives, from any thread that runs no event loop; others' work goes on beside it."""
    loop = _SHARED.enter()
    try:
        future = asyncio.run_coroutine_threadsafe(_SHARED.work(work), loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C too: the sensor is let go of
            future.cancel()
            raise
    finally:
        _SHARED.leave()
