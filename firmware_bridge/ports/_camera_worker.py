"""The process that holds one camera. Frames are read all the time, so that a still is of now and a stall is noticed."""

from __future__ import annotations

import importlib
import io
import time
from multiprocessing.connection import Connection
from typing import Any

import cv2

from aidpost.firmware_bridge.supervisor import HEARTBEAT_S

STILL, PREVIEW = b"still", b"preview"
WARM_UP_FRAMES = 8
"""Frames until exposure and white balance have settled."""
PREVIEW_HEIGHT = 480
JPEG_QUALITY = 95


def run(pipe: Connection, device: str, backend: int, width: int, height: int) -> None:
    """Read the camera until the pipe closes; answer `STILL` and `PREVIEW` with `photo`, and say `lost` when it
    fails."""
    capture = cv2.VideoCapture(device, backend)
    try:
        if not capture.isOpened():
            pipe.send(("lost", time.monotonic(), "it cannot be opened"))
            return
        if backend == cv2.CAP_V4L2:
            _set_up(capture, width, height)
        pipe.send(("open", time.monotonic(), device))
        _pump(pipe, capture)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    finally:
        capture.release()


def _set_up(capture: cv2.VideoCapture, width: int, height: int) -> None:
    # a UVC camera's own JPEG, as it made it: full resolution at full rate, and never encoded a second time
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    if width and height:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)


def _pump(pipe: Connection, capture: cv2.VideoCapture) -> None:
    said, number = 0.0, 0
    wanted: bytes | None = None
    while True:
        good, frame = capture.read()
        if not good:
            pipe.send(("lost", time.monotonic(), "it gives no frame any more"))
            return
        number += 1
        now = time.monotonic()
        if wanted is None and pipe.poll():
            wanted = pipe.recv()
        if wanted is not None and number > WARM_UP_FRAMES:
            pipe.send(("photo", now, encode(frame, preview=wanted == PREVIEW)))
            wanted = None
        elif now - said > HEARTBEAT_S:
            pipe.send(("heartbeat", now, None))
            said = now


def run_picamera2(pipe: Connection, number: int, _: int, width: int, height: int) -> None:
    """The same of a Raspberry Pi's ribbon camera, after the Picamera2 manual (sections 4 and 6.1)."""
    picamera2 = importlib.import_module("picamera2")  # a package of Raspberry Pi OS, not of PyPI
    try:
        with picamera2.Picamera2(number) as camera:
            size = {"main": {"size": (width, height)}} if width and height else {}
            still = camera.create_still_configuration(**size)
            camera.configure(camera.create_preview_configuration(main={"size": (640, 480), "format": "RGB888"}))
            camera.start()
            pipe.send(("open", time.monotonic(), f"csi:{number}"))
            _pump_picamera2(pipe, camera, still)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:  # noqa: BLE001 (libcamera's errors are of every kind: IndexError, RuntimeError, OSError)
        pipe.send(("lost", time.monotonic(), f"{type(error).__name__}: {error}"))


def _pump_picamera2(pipe: Connection, camera: Any, still: Any) -> None:
    said, number = 0.0, 0
    while True:
        frame = camera.capture_array("main")  # "RGB888" is blue, green, red in memory, as OpenCV has it
        number, now = number + 1, time.monotonic()
        if number > WARM_UP_FRAMES and pipe.poll():
            if pipe.recv() == PREVIEW:
                data = encode(frame, preview=True)
            else:
                out = io.BytesIO()
                camera.switch_mode_and_capture_file(still, out, format="jpeg")
                data = out.getvalue()
            pipe.send(("photo", time.monotonic(), data))
        elif now - said > HEARTBEAT_S:
            pipe.send(("heartbeat", now, None))
            said = now


def encode(frame: Any, *, preview: bool) -> bytes:
    """A frame as JPEG: the camera's own bytes where it sends JPEG, else encoded; a preview is scaled down."""
    if frame.ndim < 3 or 1 in frame.shape[:2]:
        data = frame.tobytes()
        if data[:2] == b"\xff\xd8" and not preview:
            return bytes(data[: data.rfind(b"\xff\xd9") + 2])
        frame = cv2.imdecode(frame.reshape(-1), cv2.IMREAD_COLOR)
    elif frame.shape[2] == 2:
        frame = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_YUYV)
    if preview:
        scale = PREVIEW_HEIGHT / frame.shape[0]
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
