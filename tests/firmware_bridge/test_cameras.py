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
    monkeypatch.setattr(camera, "_picamera2", lambda: None)
    monkeypatch.setattr(camera, "_has_gstreamer", lambda: False)
    with pytest.raises(NotPossibleError, match="picamera2"):
        open_source("csi:0", clock=clock)
    with pytest.raises(UsageError):
        open_source("csi:left", clock=clock)


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
