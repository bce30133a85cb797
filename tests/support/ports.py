"""Ports for what a test starts, and perhaps starts again."""

from __future__ import annotations

import random
import socket

_chance = random.SystemRandom()


def free_port() -> int:
    """A loopback port where nothing listens.

    It lies below those that the kernel gives to outgoing connections (from 32768 on Linux): another test's connection
    does not take it before somebody listens there.
    """
    while True:
        port = _chance.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
