"""What the service tells systemd (sd_notify(3)): that it is ready when its page answers, and that it lives as long as
the page goes on answering. A process that merely exists is not a device that works."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping


def answers(url: str, deadline_s: float) -> bool:
    """Whether the page at `url` answers at all within the deadline; a redirect or a refusal is an answer too."""
    try:
        # the device's own address: a proxy of the environment's is not meant
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(url, timeout=deadline_s).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except (OSError, ValueError):
        return False
    return True


def notify(environment: Mapping[str, str], message: str) -> None:
    """Send a message to systemd; nothing where the process was not started by it."""
    where = environment.get("NOTIFY_SOCKET", "")
    if not where:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        # a name that begins with @ is one of the abstract ones
        sender.connect("\0" + where[1:] if where.startswith("@") else where)
        sender.send(message.encode())


class Watchdog:
    """Says READY once `works` does, and WATCHDOG as often as systemd asks for (WATCHDOG_USEC) while it does.

    Parameters
    ----------
    environment
        What systemd has set; without it the watchdog does nothing.
    works
        Whether the device works, within so many seconds.
    """

    def __init__(self, environment: Mapping[str, str], works: Callable[[float], bool]) -> None:
        self._environment, self._works = environment, works
        self._over = threading.Event()
        asked = environment.get("WATCHDOG_USEC", "")
        # three chances within the time that systemd waits
        self._every_s = int(asked) / 3e6 if asked.isdigit() and int(asked) else 10.0
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> Watchdog:
        """Begin, in a thread of its own."""
        if self._environment.get("NOTIFY_SOCKET"):
            self._thread.start()
        return self

    def stop(self) -> None:
        """End; systemd is told that the service is stopping."""
        self._over.set()
        notify(self._environment, "STOPPING=1")
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        ready = False
        while not self._over.is_set():
            if self._works(self._every_s):
                notify(self._environment, "WATCHDOG=1" if ready else "READY=1")
                ready = True
            self._over.wait(self._every_s if ready else 0.2)


def start(environment: Mapping[str, str], url: str) -> Watchdog:
    """The watchdog over the page at `url`."""
    return Watchdog(environment, lambda deadline_s: answers(url, deadline_s)).start()
