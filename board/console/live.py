"""What is seen while it is recorded: the ECG as it comes, the camera's picture, and how good both are."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aidpost.board.console.words import N_
from aidpost.errors import AidpostError, DeviceError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.sources import Source, open_source
from aidpost.kernels.ecg_quality import assess
from aidpost.records import EcgRecording, Eye, FundusPhoto

CHUNK_S = 0.04
JUDGED_S = 4.0
_SHARP, _DARK, _BRIGHT = 60.0, 35.0, 200.0
"""Of a preview: variance of the Laplacian inside the field, and mean grey. They guide the hand; the model judges."""

Trace = npt.NDArray[np.float64]


class Stopped(Exception):
    """The page was left while an ECG was being recorded."""


class Heard(NamedTuple):
    """A piece of the live trace: millivolts at `fs_hz`, and whether the electrode has no contact."""

    fs_hz: float
    lead: str
    millivolts: Trace
    off: bool


def record_ecg(source: Source, seconds: float, hear: Callable[[Heard], None], stopped: threading.Event) -> EcgRecording:
    """Record an ECG and tell its trace as it comes; blocks.

    Raises
    ------
    Stopped
        `stopped` was set.
    DeviceError
        As `Source.read_ecg`.
    """
    from aidpost.firmware_bridge.ports.serial import SerialSource

    if not isinstance(source, SerialSource):
        return _played(source.read_ecg(seconds), hear, stopped)
    told = 0

    def watch(assembler: Any) -> None:
        nonlocal told
        if stopped.is_set():
            raise Stopped
        values, off = assembler.tail(told)
        told += len(values)
        if values:
            hear(Heard(assembler.fs_hz, assembler.leads[0], np.array(values), off))

    source.watcher = watch
    return source.read_ecg(seconds)


def _played(recording: EcgRecording, hear: Callable[[Heard], None], stopped: threading.Event) -> EcgRecording:
    """A recording that is there at once (a file, a simulated patient) takes its time on the screen all the same."""
    whole = recording.millivolts(0)
    step = max(1, round(CHUNK_S * recording.fs_hz))
    began = time.monotonic()
    for start in range(0, len(whole), step):
        if stopped.wait(max(0.0, began + start / recording.fs_hz - time.monotonic())):
            raise Stopped
        piece = whole[start : start + step]
        off = bool(np.isnan(piece).any())
        hear(Heard(recording.fs_hz, recording.leads[0], np.nan_to_num(piece), off))
    return recording


class Lights:
    """The quality lights: what the last seconds of the trace are worth."""

    def __init__(self) -> None:
        self._recent: list[Trace] = []
        self._off = False
        self.seconds = 0.0

    def add(self, heard: Heard) -> None:
        """Takes a piece."""
        self._recent.append(heard.millivolts if not heard.off else np.full_like(heard.millivolts, np.nan))
        self._off = heard.off
        self.seconds += len(heard.millivolts) / heard.fs_hz
        while sum(map(len, self._recent)) > JUDGED_S * heard.fs_hz:
            self._recent.pop(0)

    def judge(self, fs_hz: float) -> str:
        """ "off", "noisy" or "good"."""
        if self._off:
            return "off"
        found = assess(np.concatenate(self._recent), fs_hz)
        if found.lead_off[-2:].any():
            return "off"
        return "good" if found.usable[-3:].all() else "noisy"


class Camera:
    """The one camera, opened when a page shows it. Methods block; one caller at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._source: tuple[str, Source] | None = None

    def preview(self, source: str) -> bytes | None:
        """A small JPEG; None where this camera has no preview (a watched folder, a file)."""
        with self._lock:
            opened = self._opened(source)
            look = getattr(opened, "preview", None)
            if look is None:
                return None
            picture: bytes = look()
            return picture

    def take(self, source: str, eye: Eye) -> FundusPhoto:
        """A photograph of that eye. Raises as `Source.read_photo`; then the camera is opened afresh the next time."""
        with self._lock:
            try:
                return self._opened(source).read_photo(eye)
            except AidpostError:
                self._close()
                raise

    def close(self) -> None:
        """Let go of the camera."""
        with self._lock:
            self._close()

    def _opened(self, source: str) -> Source:
        if self._source is None or self._source[0] != source:
            self._close()
            self._source = (source, open_source(source, clock=self._clock))
        return self._source[1]

    def _close(self) -> None:
        if self._source is not None:
            self._source[1].close()
            self._source = None


def guide(picture: bytes) -> dict[str, Any]:
    """Focus (0 to 1; 1 is sharp) and light ("dark", "good", "bright") of a preview."""
    import cv2

    grey = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_2)
    if grey is None:
        return {"focus": 0.0, "light": "dark"}
    field = grey[grey > 12]
    mean = float(field.mean()) if field.size > 0.05 * grey.size else 0.0
    height, width = grey.shape
    middle = grey[height // 4 : -height // 4, width // 4 : -width // 4]
    sharp = float(cv2.Laplacian(middle, cv2.CV_32F).var())
    light = "dark" if mean < _DARK else "bright" if mean > _BRIGHT else "good"
    return {"focus": round(min(1.0, sharp / _SHARP), 2), "light": light}


def open_ecg(source: str, clock: Clock, exam: uuid.UUID) -> Any:
    """The ECG's source, to be used in a `with`.

    Raises
    ------
    DeviceError
        There is none.
    """
    if not source:
        raise no_sensor("ECG", exam)
    return closing(open_source(source, clock=clock))


def no_sensor(what: str, exam: uuid.UUID) -> DeviceError:
    """There is no such sensor on this device."""
    return DeviceError(
        operation=f"recording ({what})",
        target=str(exam),
        cause=N_("no such sensor is configured on this device"),
        remedy=N_("Set it under [sensors] in the configuration."),
    )
