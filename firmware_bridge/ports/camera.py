"""`camera:/dev/video0` (V4L2, USB cameras) and `csi:0` (Raspberry Pi or Jetson ribbon cameras).

Options of `camera:`: `width` and `height` of the still. Without a path, the first video device is taken. The camera
runs in a process of its own; one that stalls is replaced.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

from aidpost.errors import DeviceError, DeviceNotFoundError, DeviceTimeoutError, NotPossibleError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.inputs import photo_from_bytes
from aidpost.firmware_bridge.sources import BaseSource, Kind, SourceSpec
from aidpost.firmware_bridge.states import STATES
from aidpost.firmware_bridge.supervisor import STARTUP_S, Supervisor
from aidpost.records import Device, Eye, FundusPhoto, Origin

STILL_S = 10.0
DEVICES = Path("/dev")


class CameraSource(BaseSource):
    """A camera that Video4Linux knows."""

    kinds = frozenset({Kind.FUNDUS})

    def __init__(self, spec: SourceSpec, clock: Clock, devices: Path = DEVICES) -> None:
        super().__init__(spec, clock)
        spec.require_only("width", "height")
        self._size = tuple(int(spec.number(name, 0, low=0, high=20_000)) for name in ("width", "height"))
        self._device = spec.address or _first_camera(spec, devices)
        if not Path(self._device).exists():
            if not any(devices.glob("video*")):
                raise _no_camera(self._device)
            known = ", ".join(sorted(str(path) for path in devices.glob("video*")))
            raise DeviceNotFoundError(
                operation="opening the camera",
                target=self._device,
                cause="it is not there",
                remedy=f"There is {known}.",
            )
        self._worker: Supervisor | None = None

    def _supervised(self) -> Supervisor:
        from aidpost.firmware_bridge.ports import _camera_worker

        return Supervisor(_camera_worker.run, *self._backend(), *self._size)

    def _backend(self) -> tuple[str, int]:
        import cv2

        # anything but a video device is a recording, which OpenCV reads with whatever suits it
        return self._device, cv2.CAP_V4L2 if self._device.startswith("/dev/") else cv2.CAP_ANY

    def _picture(self, command: bytes) -> bytes:
        with STATES.reading(self.spec):
            data = self._take(command)
            STATES.heard(self.spec)
            STATES.told(self.spec, name=self._name())
        return data

    def _name(self) -> str:
        """The name that the kernel gives the camera, which a model's card may list."""
        name = Path("/sys/class/video4linux") / Path(self._device).name / "name"
        return name.read_text().strip() if name.is_file() else "camera"

    def _take(self, command: bytes) -> bytes:
        if self._worker is None:
            self._worker = self._supervised()
            self._worker.start()
        until, replaced, cause = time.monotonic() + STARTUP_S + STILL_S, self._worker.restarts, ""
        self._worker.send(command)
        while time.monotonic() < until:
            message = self._worker.receive(0.2)
            if self._worker.restarts != replaced:
                replaced = self._worker.restarts
                self._worker.send(command)  # the new process does not know what was asked of the old one
            if message is None:
                continue
            until = min(until, time.monotonic() + STILL_S)  # a process that starts on a busy board is no stalled camera
            if message[0] == "photo":
                data: bytes = message[2]
                return data
            if message[0] == "lost":
                cause = message[2]
        self.close()
        kind = DeviceError if cause else DeviceTimeoutError
        raise kind(
            operation="taking a photograph",
            target=self._device,
            cause=cause or f"the camera gave no picture in {STILL_S:g} s",
            remedy="Close other programs that use it, re-plug the camera, and try again.",
        )

    def preview(self) -> bytes:
        """A small JPEG of what the camera sees now, for the screen."""
        from aidpost.firmware_bridge.ports._camera_worker import PREVIEW

        return self._picture(PREVIEW)

    def read_photo(self, eye: Eye | None = None) -> FundusPhoto:
        from aidpost.firmware_bridge.ports._camera_worker import STILL

        data = self._picture(STILL)
        return photo_from_bytes(
            data,
            at=self.clock.now(),
            eye=eye,
            source=str(self.spec),
            origin=Origin.LIVE,
            camera=Device(name=self._name(), address=self._device),
        )

    def close(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


def _no_camera(target: str) -> NotPossibleError:
    return NotPossibleError(
        operation="opening the camera",
        target=target or "camera:",
        cause="this board has no video device",
        remedy="Plug a USB camera in, or use csi:0, watch:FOLDER or a file.",
    )


def _first_camera(spec: SourceSpec, devices: Path) -> str:
    found = sorted(devices.glob("video*"))
    if not found:
        raise _no_camera(str(spec))
    return str(found[0])


_JETSON = (
    "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM),width={},height={} ! nvvidconv ! video/x-raw,format=BGRx"
    " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=1 max-buffers=1"
)


class CsiSource(CameraSource):
    """A ribbon camera: through picamera2 on a Raspberry Pi, through GStreamer on a Jetson."""

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        BaseSource.__init__(self, spec, clock)
        spec.require_only("width", "height")
        width, height = (int(spec.number(name, 0, low=0, high=20_000)) for name in ("width", "height"))
        self._size, self._worker = (width, height), None
        if not (spec.address or "0").isdigit():
            raise spec.usage_error(f"{spec.address!r} is not the number of a camera", "Write csi:0.")
        self._number = int(spec.address or "0")
        self._device = f"csi:{self._number}"
        self._pi = _has_picamera2()
        if not self._pi and not _has_gstreamer():
            raise NotPossibleError(
                operation="opening the camera",
                target=self._device,
                cause="neither picamera2 is installed, nor has OpenCV been built with GStreamer",
                remedy="Raspberry Pi: sudo apt install python3-picamera2, in a virtual environment that sees system "
                "packages. Jetson: use the system's OpenCV instead of the pip wheel, which lacks GStreamer.",
            )

    def _supervised(self) -> Supervisor:
        from aidpost.firmware_bridge.ports import _camera_worker

        if not self._pi:
            return super()._supervised()
        return Supervisor(_camera_worker.run_picamera2, self._number, 0, *self._size)

    def _name(self) -> str:
        return "Raspberry Pi ribbon camera" if self._pi else "Jetson ribbon camera"

    def _backend(self) -> tuple[str, int]:
        import cv2

        width, height = self._size if all(self._size) else (3840, 2160)
        return _JETSON.format(self._number, width, height), cv2.CAP_GSTREAMER


def _has_picamera2() -> bool:
    """Whether it is there; it is loaded in the camera's own process, where libcamera may hang without harm."""
    return importlib.util.find_spec("picamera2") is not None


def _has_gstreamer() -> bool:
    import cv2

    return any("GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines())
