"""A bad mobile link, played in user space: a TCP proxy with rate, delay, stalls and cuts, the same for each seed."""

from __future__ import annotations

import contextlib
import queue
import random
import socket
import threading
import time

from ports import free_port

_SEGMENT = 1400
_BUFFER = 8 * 1024
"""What lies in the modem: enough for rate times delay, and far less than a backlog."""


class SlowLink:
    """Forwards a loopback port to another, as a 2G link would.

    Parameters
    ----------
    bits_per_s, round_trip_s
        Of each direction, and of both together.
    stalls
        The share of segments that is lost and sent again by TCP: seen from above, all waits for `stall_s`.
    cut_every_s
        After so long each connection is cut in the middle of whatever it carries.
    """

    def __init__(
        self,
        target: int,
        *,
        bits_per_s: int = 100_000,
        round_trip_s: float = 0.8,
        stalls: float = 0.05,
        stall_s: float = 1.0,
        cut_every_s: float = 60.0,
        seed: int = 1,
    ) -> None:
        self._target, self._rate, self._delay = target, bits_per_s / 8, round_trip_s / 2
        self._stalls, self._stall_s, self._cut_every_s = stalls, stall_s, cut_every_s
        self._random = random.Random(seed)
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self.carried, self.cuts = 0, 0
        self.port = free_port()

    def up(self) -> None:
        """From now on there is a network."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # before it listens, so that no connection's kernel buffer hides a backlog
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(5)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        if self._listener is not None:
            # close alone does not wake a thread in accept
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for one in list(self._open):
            self._shut(one)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                near, _ = listener.accept()
            except OSError:
                return
            time.sleep(2 * self._delay)  # the handshake, which the kernel has done without us
            far = socket.create_connection(("127.0.0.1", self._target))
            pair = (near, far)
            self._open.update(pair)
            for source, sink in (pair, pair[::-1]):
                segments: queue.Queue[tuple[float, bytes]] = queue.Queue(_BUFFER // _SEGMENT)
                threading.Thread(target=self._read, args=(source, segments), daemon=True).start()
                threading.Thread(target=self._write, args=(sink, segments), daemon=True).start()
            threading.Timer(self._cut_every_s, self._cut, pair).start() if self._cut_every_s else None

    def _read(self, source: socket.socket, segments: queue.Queue[tuple[float, bytes]]) -> None:
        free = 0.0
        while True:
            try:
                data = source.recv(_SEGMENT)
            except OSError:
                data = b""
            free = max(free, time.monotonic()) + len(data) / self._rate
            if self._random.random() < self._stalls:
                free += self._stall_s
            self.carried += len(data)
            segments.put((free + self._delay, data))
            if not data:
                return
            time.sleep(max(0.0, free - time.monotonic()))

    def _write(self, sink: socket.socket, segments: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, data = segments.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                sink.sendall(data)
            except OSError:
                data = b""
            if not data:
                self._shut(sink)
                return

    def _cut(self, *pair: socket.socket) -> None:
        if any(one in self._open for one in pair):
            self.cuts += 1
        for one in pair:
            self._shut(one)

    def _shut(self, one: socket.socket) -> None:
        self._open.discard(one)
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
