"""A relay before a broker that refuses every subscription until it is told to stop, as nats-server does for a while
after its cluster has lost a node: the SUBACK's codes become 0x80 (MQTT 3.1.1, 3.9.3), all else goes through as it is.
"""

from __future__ import annotations

import contextlib
import socket
import threading


class RefusingBroker:
    """Listens on `port` until `stop`."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port, self.refusing, self.refused = broker_port, True, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):  # closed by its other end
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self._broker_port))
            self._open += [client, broker]
            threading.Thread(target=self._forward, args=(client, broker), daemon=True).start()
            threading.Thread(target=self._answer, args=(broker, client), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the other end has gone, or the test is over
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def _answer(self, source: socket.socket, target: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):  # as above
            while piece := source.recv(65536):
                data += piece
                while packet := _packet(data):
                    data = data[len(packet) :]
                    target.sendall(self._refuse(packet) if self.refusing and packet[0] == 0x90 else packet)
            target.shutdown(socket.SHUT_WR)

    def _refuse(self, packet: bytes) -> bytes:
        self.refused += 1
        return packet[:4] + b"\x80" * (len(packet) - 4)  # type, length (one byte, these are short), number, codes


def _packet(data: bytes) -> bytes:
    """The first whole packet; empty where there is none yet."""
    length, shift = 0, 0
    for place, byte in enumerate(data[1:5], start=1):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            end = place + 1 + length
            return data[:end] if len(data) >= end else b""
    return b""
