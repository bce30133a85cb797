"""The process that reads one serial port. It imports little, so that it starts fast, and decodes nothing.

Says `open` with the port's name, `data` with bytes, and `lost` with the reason; then tries again by itself, also under
another name if the same USB device comes back under one.
"""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import serial

from aidpost.firmware_bridge.supervisor import HEARTBEAT_S
from aidpost.firmware_bridge.usb_boards import Remembered

READ_S = 0.05
RETRY_S = 0.25
MAX_READ = 1 << 16


def run(pipe: Connection, port: str, baud: int, start: bytes, stop: bytes, board: Remembered | None = None) -> None:
    """Read `port` until the pipe closes. `start` is written whenever it has been opened, `stop` before it is closed.
    `board` is which one it is where that is known: a worker that is replaced goes on with the same."""
    board = board or Remembered(port)
    port = board.port() or port
    try:
        while True:
            try:
                if stranger := board.stranger(port):
                    raise serial.SerialException(stranger)
                with serial.Serial(port, baud, timeout=READ_S, write_timeout=1, exclusive=True) as device:
                    device.reset_input_buffer()  # what piled up while nobody read is of another time
                    device.write(start)
                    pipe.send(("open", time.monotonic(), port))
                    board.look(port)
                    _pump(pipe, device, stop)
                    return
            except (serial.SerialException, OSError) as error:
                pipe.send(("lost", time.monotonic(), f"{type(error).__name__}: {error}"))
            _wait(pipe, RETRY_S)
            port = board.port() or port
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # whoever asked for the port has gone


def _pump(pipe: Connection, device: serial.Serial, stop: bytes) -> None:
    """Pass bytes on, as they come, until the pipe closes; a failing port raises."""
    said = 0.0
    while True:
        data = device.read(min(MAX_READ, max(1, device.in_waiting)))
        now = time.monotonic()
        try:
            if data:
                pipe.send(("data", now, data))
                said = now
            elif now - said > HEARTBEAT_S:
                pipe.send(("heartbeat", now, None))
                said = now
            if pipe.poll():
                device.write(pipe.recv())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            device.write(stop)
            raise


def _wait(pipe: Connection, seconds: float) -> None:
    pipe.send(("heartbeat", time.monotonic(), None))
    if pipe.poll(seconds):
        pipe.recv()  # nothing can be written while the port is gone; a closed pipe raises here
