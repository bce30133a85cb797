"""Serial boards that do not exist, each behind a pseudo-terminal that any program can open.

`BoardSimulator` plays an ECG (a recording's counts, or a simulated one) as the board would send it, at its own pace,
and can do what real ones do: lose bytes, repeat, fall silent, go away and come back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.decoders.bitalino import encode_bitalino
from aidpost.firmware_bridge.decoders.cyton import encode_cyton
from aidpost.firmware_bridge.decoders.olimex import encode_olimex
from aidpost.firmware_bridge.decoders.own import encode_hello, encode_samples
from aidpost.firmware_bridge.decoders.protocentral import encode_frame, encode_healthypi4

TICK_S = 0.02
PIECE = 2048
"""So much always fits into a terminal's buffer (4096 bytes): what did not would wait in a place that nothing shows."""
SETTLE_S = 2.0
"""Programs set a port up when they have opened it, and most throw away what came before; one that has not done so for
so long will not,"""
SETTLED_S = 1.0
"""and one that has done so, often twice, is ready after so long."""

Encoder = Callable[[int, int], bytes]
"""(frame number, count of the first channel) -> the bytes of one frame."""


def _healthypi5(number: int, count: int) -> bytes:
    return encode_frame(struct.pack("<iiBiihBBB", count, 0, 0, 90_000, 91_000, 3690, 98, 72, 15))


def _own(number: int, count: int) -> bytes:
    samples = encode_samples(number, [(count,)])
    # announced every second, at 250 Hz
    return samples if number % 250 else encode_hello("simulated board", 250, ("I",), (1.0,)) + samples


def _healthypi4(number: int, count: int) -> bytes:
    return encode_healthypi4(count, temperature_cel=36.9, respiratory_rate=15, spo2=98, rate=72)


ENCODERS: dict[str, Encoder] = {
    "healthypi3": _healthypi4,
    "healthypi4": _healthypi4,
    "healthypi5": _healthypi5,
    "healthypi6": lambda n, count: encode_frame(struct.pack("<3i13xhBBh", count, count, count, 72, 98, 15, 3690)),
    "ads1292r": lambda n, count: encode_frame(struct.pack("<hhHHB", count, 0, 15, 72, 0)),
    "ads1293": lambda n, count: encode_frame(struct.pack("<3i", count, count, count)),
    "max30003": lambda n, count: encode_frame(struct.pack("<3i", count, 833, 72)),
    "max30001": lambda n, count: encode_frame(struct.pack("<iiB", count, 0, 0)),
    "cyton": lambda n, count: encode_cyton(n, (count, *[0] * 7)),
    "bitalino": lambda n, count: encode_bitalino(n, (max(0, min(1023, count)),)),
    "olimex": lambda n, count: encode_olimex(n, (max(0, min(1023, count)), 512, 512, 512, 512, 512)),
    "aidpost": _own,
    "ad8232": lambda n, count: b"%d\r\n" % max(0, min(1023, count)),
}
"""The boards that can be simulated."""


def frames(board: str, counts: Iterable[int]) -> Iterator[bytes]:
    """What the board sends for those counts, one frame at a time."""
    encode = ENCODERS[board]
    return (encode(number, count) for number, count in enumerate(counts))


class BoardSimulator:
    """A board on a pseudo-terminal, sending in a thread; used as a context manager.

    Parameters
    ----------
    board
        A name of `ENCODERS`.
    counts
        The ECG in the board's counts. When it ends, the board falls silent.
    speed
        Times the board's own pace.
    damage
        Called with each frame's number and bytes; what it returns is sent instead.
    """

    def __init__(
        self,
        board: str,
        counts: Iterable[int],
        *,
        speed: float = 1.0,
        damage: Callable[[int, bytes], bytes] | None = None,
    ) -> None:
        self._frames, self._period = frames(board, counts), 1 / (BOARDS[board].fs_hz * speed)
        self._damage = damage
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        self._stop, self._pause = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send, name=f"simulated {board}", daemon=True)
        self.sent, self.unheard = 0, 0
        """Frames whose time has come, and how many of them never went onto the wire (`pause`, or nobody took them)."""

    def __enter__(self) -> BoardSimulator:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def pause(self) -> None:
        """Fall silent: what would have been sent meanwhile is lost, as on a real wire."""
        self._pause.set()

    def resume(self) -> None:
        """Speak again."""
        self._pause.clear()

    def _send(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(TICK_S):
            due = int((time.monotonic() - began) / self._period) - self.sent
            before, out = self.sent, bytearray()
            for _ in range(due):
                data = next(self._frames, None)
                if data is None:
                    self._stop.set()
                    break
                out += self._damage(self.sent, data) if self._damage else data
                self.sent += 1
            if out and not self._spoke(out):
                self.unheard += self.sent - before

    def _spoke(self, data: bytearray) -> bool:
        """Whether it went onto the wire: not where nobody reads, or it is full. A board does not wait."""
        if self._pause.is_set():
            return False
        with contextlib.suppress(BlockingIOError):
            os.write(self._master, data)
            return True
        return False

    def unplug(self) -> None:
        """Go away: whoever has the port open sees it go. No other pseudo-terminal gets its name before `close`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(OSError):
            os.close(self._master)
        self._master = -1

    def close(self) -> None:
        """Unplug it, and let the system use its name again. May be called twice."""
        self.unplug()
        with contextlib.suppress(OSError):
            os.close(self._slave)
        self._slave = -1


class PseudoTerminal:
    """A serial port that does not exist, for bytes that must all arrive; used as a context manager. `port` is its
    name."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(slave)
        os.close(slave)  # so that the master hangs up when the last reader has gone
        # TIOCPKT(2const): says when a reader empties it
        fcntl.ioctl(self._master, termios.TIOCPKT, struct.pack("i", 1))

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._master)

    def _events(self, timeout_s: float, awaited: int = select.POLLOUT) -> int:
        poller = select.poll()
        poller.register(self._master, awaited)
        return sum(event for _, event in poller.poll(timeout_s * 1000))

    def wait_for_reader(self) -> None:
        """Return once somebody has opened the port, and has emptied it or will not: what is sent before is lost."""
        while self._events(0) & select.POLLHUP:
            time.sleep(TICK_S)
        until = time.monotonic() + SETTLE_S
        while (left := until - time.monotonic()) > 0:
            if self._events(left, select.POLLPRI) & select.POLLPRI:
                with contextlib.suppress(OSError):  # the reader has gone again
                    if os.read(self._master, 1)[0] & termios.TIOCPKT_FLUSHREAD:
                        until = time.monotonic() + SETTLED_S
        fcntl.ioctl(self._master, termios.TIOCPKT, struct.pack("i", 0))

    def write(self, data: bytes) -> bool:
        """Send all of it, waiting while the reader does not take it; False once the reader has gone."""
        for start in range(0, len(data), PIECE):
            if not self.drain():
                return False
            os.write(self._master, data[start : start + PIECE])
        return True

    def drain(self) -> bool:
        """Return once the reader has taken everything: what is left is lost when the port is closed. False once it has
        gone."""
        while not self._events(0) & select.POLLHUP:
            if self._taken():
                return True
            time.sleep(TICK_S / 4)
        return False

    def _taken(self) -> bool:
        slave = os.open(self.port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            poller = select.poll()
            poller.register(slave, select.POLLIN)
            # What was written may still be on its way through the kernel, where FIONREAD does not count it. A poll that
            # finds nothing has waited until it has arrived (n_tty_poll flushes the port's buffer); one that finds
            # something has not, and the reader may take that before it is counted.
            if poller.poll(0):
                return False
            return not int.from_bytes(fcntl.ioctl(slave, termios.FIONREAD, bytes(4)), sys.byteorder)
        finally:
            os.close(slave)
