"""An MQTT broker inside this process, for the demo only: it keeps nothing, and a clinic runs Mosquitto."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType

from aidpost.errors import BrokerError, NotPossibleError


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DemoBroker:
    """amqtt on a free loopback port, in a thread with an event loop of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="demo-broker", daemon=True)

    def __enter__(self) -> DemoBroker:
        self._thread.start()
        self._ready.wait(timeout=20)
        if isinstance(self._failure, ImportError):
            raise NotPossibleError(
                operation="starting the demonstration",
                target="embedded broker",
                cause="amqtt is not installed",
                remedy="Install it with: pip install 'aidpost[demo]'",
            )
        if self._failure is not None or not self._ready.is_set():
            raise BrokerError(
                operation="starting the demonstration",
                target=f"127.0.0.1:{self.port}",
                cause=str(self._failure or "the embedded broker did not start within 20 s"),
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            from amqtt.broker import Broker

            broker = Broker(
                {
                    "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}", "max_connections": 16}},
                    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
                }
            )
            await broker.start()
        except Exception as error:  # noqa: BLE001  whatever it is, the starting thread raises it
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        await self._stop.wait()
        await broker.shutdown()
