"""Photographs that are taken now: the watched folder, and cameras (played from a recording, since none is plugged
in)."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from aidpost.errors import (
    DeviceError,
    DeviceNotFoundError,
    DeviceTimeoutError,
    NotPossibleError,
    UnreadableInputError,
    UsageError,
)
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.discovery import Found, video_devices
from aidpost.firmware_bridge.formats.photograph import inspect_photo
from aidpost.firmware_bridge.ports import camera, watch
from aidpost.firmware_bridge.ports._camera_worker import encode
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.firmware_bridge.sources import SourceSpec, open_source
from aidpost.records import Eye, Origin


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encode_fundus(render_fundus(size=256))


def test_a_photograph_dropped_into_a_watched_folder_in_two_halves(tmp_path: Path, clock: Clock, jpeg: bytes) -> None:
    (tmp_path / "yesterday.jpg").write_bytes(jpeg)
    source = open_source(f"watch:{tmp_path}?wait=60", clock=clock)

    def drop() -> None:
        (tmp_path / "today").mkdir()
        with (tmp_path / "today" / "OS.jpg").open("wb") as file:
            file.write(jpeg[:1000])
            file.flush()
            time.sleep(0.7)
            file.write(jpeg[1000:])

    thread = threading.Thread(target=drop)
    thread.start()
    photo = source.read_photo(Eye.LEFT)
    thread.join()
    assert (photo.encoded, photo.origin, photo.source, photo.eye) == (jpeg, Origin.LIVE, "OS.jpg", Eye.LEFT)
    (tmp_path / "next.jpg").write_bytes(jpeg)
    assert source.read_photo().source == "next.jpg"


def test_a_file_that_never_becomes_whole_is_an_error_once(
    tmp_path: Path, clock: Clock, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "UNCHANGED_S", 0.5)
    source = open_source(f"watch:{tmp_path}?wait=60", clock=clock)
    (tmp_path / "cut.jpg").write_bytes(jpeg[:2000])
    with pytest.raises(UnreadableInputError, match="cut off"):
        source.read_photo()
    (tmp_path / "whole.jpg").write_bytes(jpeg)
    assert source.read_photo().source == "whole.jpg"


def test_a_folder_that_is_missing_or_stays_empty(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(DeviceNotFoundError):
        open_source(f"watch:{tmp_path}/none", clock=clock)
    with pytest.raises(DeviceTimeoutError, match="no photograph"):
        open_source(f"watch:{tmp_path}?wait=0.3", clock=clock).read_photo()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "camera.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (640, 480))
    frame = cv2.resize(render_fundus(size=480), (640, 480))
    for _ in range(1500):
        writer.write(frame)
    writer.release()
    return path


def test_a_still_and_a_preview_come_from_a_process_of_their_own(recording: Path, clock: Clock) -> None:
    source = open_source(f"camera:{recording}", clock=clock)
    try:
        preview = inspect_photo(source.preview(), source="x")
        photo = source.read_photo(Eye.RIGHT)
    finally:
        source.close()
    still = inspect_photo(photo.encoded, source="x")
    assert ((preview.height, still.width, still.height)) == (480, 640, 480)
    assert (photo.origin, photo.eye, photo.media_type) == (Origin.LIVE, Eye.RIGHT, "image/jpeg")


def test_a_camera_that_gives_nothing_is_reported(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "STILL_S", 3)
    (tmp_path / "dead").write_bytes(b"no video")
    source = open_source(f"camera:{tmp_path / 'dead'}", clock=clock)
    with pytest.raises(DeviceError, match=r"cannot be opened|no picture"):
        source.read_photo()


def test_no_camera_at_all_is_not_possible_here(tmp_path: Path, clock: Clock) -> None:
    for address in ("", "/dev/video7"):
        with pytest.raises(NotPossibleError, match="no video device"):
            camera.CameraSource(SourceSpec("camera", address), clock, devices=tmp_path)
    (tmp_path / "video0").touch()
    with pytest.raises(DeviceNotFoundError, match="not there"):
        camera.CameraSource(SourceSpec("camera", str(tmp_path / "video7")), clock, devices=tmp_path)


def test_a_ribbon_camera_needs_its_boards_stack(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "_has_picamera2", lambda: False)
    monkeypatch.setattr(camera, "_has_gstreamer", lambda: False)
    with pytest.raises(NotPossibleError, match=r"neither picamera2 .* nor has OpenCV .* GStreamer") as caught:
        open_source("csi:0", clock=clock)
    assert "python3-picamera2" in caught.value.remedy
    assert "Jetson" in caught.value.remedy
    with pytest.raises(UsageError, match="not the number of a camera"):
        open_source("csi:left", clock=clock)


PICAMERA2 = """
# what of libcamera's own class is used, as the Picamera2 manual describes it
import time
from pathlib import Path
import cv2, numpy as np

HERE = Path(__file__).parent

class Picamera2:
    def __init__(self, camera_num=0):
        if camera_num > 0:
            raise IndexError("list index out of range")  # what it says of a camera that is not there
        count = HERE / "opened"
        count.write_text(str(int(count.read_text()) + 1) if count.exists() else "1")
        self.frames = 0
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def create_still_configuration(self, **given): return {"size": (1024, 768), **given.get("main", {})}
    def create_preview_configuration(self, main): assert main["format"] == "RGB888"; return main
    def configure(self, configuration): self.size = configuration["size"]
    def start(self): pass
    def capture_array(self, name):
        assert name == "main"
        time.sleep(0.01)
        self.frames += 1
        if (HERE / "stall").exists() and self.frames > 12:
            (HERE / "stall").unlink()
            time.sleep(3600)
        return np.full((self.size[1], self.size[0], 3), (200, 40, 10), np.uint8)
    def switch_mode_and_capture_file(self, configuration, file_output, format):
        assert format == "jpeg"
        width, height = configuration["size"]
        file_output.write(cv2.imencode(".jpg", np.full((height, width, 3), (200, 40, 10), np.uint8))[1].tobytes())
"""


@pytest.fixture
def picamera2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library of Raspberry Pi OS, with a camera that sees blue."""
    (tmp_path / "picamera2.py").write_text(PICAMERA2)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_pis_ribbon_camera_gives_previews_and_full_stills(picamera2: Path, clock: Clock) -> None:
    source = open_source("csi:0?width=2028&height=1520", clock=clock)
    assert isinstance(source, camera.CsiSource)
    try:
        preview = cv2.imdecode(np.frombuffer(source.preview(), np.uint8), cv2.IMREAD_COLOR)
        photo = source.read_photo(Eye.LEFT)
    finally:
        source.close()
    assert preview is not None
    assert (preview.shape[0], photo.eye, photo.camera.address) == (480, Eye.LEFT, "csi:0")
    blue, _, red = preview[100, 100]  # not red for blue
    assert blue > 150 > red
    still = inspect_photo(photo.encoded, source="x")
    assert (still.width, still.height, photo.camera.name) == (2028, 1520, "Raspberry Pi ribbon camera")


def test_a_pis_ribbon_camera_that_stalls_is_replaced(picamera2: Path, clock: Clock) -> None:
    (picamera2 / "stall").touch()
    source = open_source("csi:0", clock=clock)
    assert isinstance(source, camera.CsiSource)
    try:
        source.preview()
        until = time.monotonic() + 60
        while (picamera2 / "stall").exists() and time.monotonic() < until:
            time.sleep(0.05)
        photo = source.read_photo(Eye.LEFT)
    finally:
        source.close()
    assert inspect_photo(photo.encoded, source="x").width == 1024
    assert int((picamera2 / "opened").read_text()) >= 2


def test_a_ribbon_camera_that_is_not_there_says_what_libcamera_says(picamera2: Path, clock: Clock) -> None:
    source = open_source("csi:3", clock=clock)
    with pytest.raises(DeviceError, match="IndexError: list index out of range"):
        source.read_photo()


def test_a_jetsons_camera_is_opened_through_gstreamer(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    here = camera._has_gstreamer()
    monkeypatch.setattr(camera, "_has_picamera2", lambda: False)
    monkeypatch.setattr(camera, "_has_gstreamer", lambda: True)
    source = open_source("csi:1?width=1920&height=1080", clock=clock)
    assert isinstance(source, camera.CsiSource)
    pipeline, backend = source._backend()
    assert backend == cv2.CAP_GSTREAMER
    assert "nvarguscamerasrc sensor-id=1" in pipeline
    assert "width=1920,height=1080" in pipeline
    assert pipeline.endswith("appsink drop=1 max-buffers=1")
    bare = open_source("csi:0", clock=clock)
    assert isinstance(bare, camera.CsiSource)
    assert "width=3840,height=2160" in bare._backend()[0]
    if not here:  # this OpenCV cannot open it: that is said, of the camera that was asked for
        with pytest.raises(DeviceError, match="cannot be opened") as caught:
            source.read_photo()
        assert caught.value.target == "csi:1"


def test_a_cameras_own_jpeg_is_not_encoded_again(jpeg: bytes) -> None:
    raw = np.frombuffer(jpeg + bytes(9), np.uint8)
    assert encode(raw, preview=False) == jpeg
    assert encode(raw.reshape(1, -1), preview=False) == jpeg
    yuyv = np.full((48, 64, 2), 128, np.uint8)
    assert inspect_photo(encode(yuyv, preview=False), source="x").width == 64


def test_video_devices_have_the_names_that_the_kernel_gives(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    (tmp_path / "names" / "video0").mkdir(parents=True)
    (tmp_path / "names" / "video0" / "name").write_text("Fundus Camera\n")
    assert video_devices(tmp_path, tmp_path / "names") == [Found(f"camera:{tmp_path}/video0", "Fundus Camera")]
