"""A camera that sends by DICOM, played by dcmtk's storescu: accepted, refused, cut off, sent again, and whose it is."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pydicom
import pynetdicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from aidpost.errors import DeviceBusyError, DeviceError, DeviceTimeoutError, NotPossibleError, UsageError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.write import write_photo
from aidpost.firmware_bridge.ports.dicom import DicomSource
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import Eye, Origin


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encode_fundus(render_fundus(size=400))


@contextlib.contextmanager
def camera(folder: Path, clock: Clock, options: str = "wait=60") -> Iterator[DicomSource]:
    source = open_source(f"dicom:127.0.0.1:0?folder={folder}/spool&{options}", clock=clock)
    assert isinstance(source, DicomSource)
    with source:
        yield source


def photograph(path: Path, jpeg: bytes, clock: Clock, eye: Eye | None, **tags: str) -> Path:
    """A DICOM file as a camera would make it; `eye` None leaves the laterality out."""
    photo = open_source("sim:fundus?size=64", clock=clock).read_photo(Eye.LEFT)
    write_photo(msgspec.structs.replace(photo, encoded=jpeg, eye=eye or Eye.LEFT), path)
    data = pydicom.dcmread(path)
    if eye is None:
        del data.ImageLaterality
    for tag, value in tags.items():
        setattr(data, tag, value)
    data.save_as(path)
    return path


def send(port: int, *paths: Path, title: str = "AIDPOST", propose: str = "-xy") -> subprocess.CompletedProcess[str]:
    storescu = shutil.which("storescu")
    assert storescu, "dcmtk is not installed"
    command = [storescu, "-v", "-aet", "CAMERA", "-aec", title, propose, "127.0.0.1", str(port), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_photograph_arrives_byte_for_byte_with_its_eye_and_camera(tmp_path: Path, clock: Clock, jpeg: bytes) -> None:
    sent = photograph(tmp_path / "a.dcm", jpeg, clock, Eye.RIGHT, Manufacturer="Topcon", ManufacturerModelName="NW500")
    with camera(tmp_path, clock) as source:
        done = send(source.port, sent)
        assert done.returncode == 0, done.stderr
        assert "Received Store Response (Success)" in done.stdout + done.stderr
        photo = source.read_photo()
    assert (photo.encoded, photo.eye, photo.origin, photo.camera.model) == (jpeg, Eye.RIGHT, Origin.LIVE, "NW500")


def test_the_eye_is_the_tags_or_what_is_said_and_never_guessed(tmp_path: Path, clock: Clock, jpeg: bytes) -> None:
    right = photograph(tmp_path / "right.dcm", jpeg, clock, Eye.RIGHT)
    untold = photograph(tmp_path / "OS_left.dcm", jpeg, clock, None)
    both = photograph(tmp_path / "both.dcm", jpeg, clock, Eye.LEFT, ImageLaterality="B")
    with camera(tmp_path, clock, "wait=1") as source:
        assert send(source.port, right, untold, both).returncode == 0
        # asked for the left one, the right one is not it, and waits
        assert source.read_photo(Eye.LEFT).eye is Eye.LEFT
        assert source.read_photo(Eye.RIGHT).eye is Eye.RIGHT
        assert source.read_photo().eye is None
        assert send(source.port, photograph(tmp_path / "again.dcm", jpeg, clock, Eye.RIGHT)).returncode == 0
        with pytest.raises(DeviceTimeoutError, match="1 of the other eye"):
            source.read_photo(Eye.LEFT)
        assert source.read_photo(Eye.RIGHT).eye is Eye.RIGHT


def test_an_object_that_is_sent_again_is_one_photograph(tmp_path: Path, clock: Clock, jpeg: bytes) -> None:
    sent = photograph(tmp_path / "a.dcm", jpeg, clock, Eye.LEFT)
    with camera(tmp_path, clock, "wait=0.3") as source:
        assert send(source.port, sent, sent).returncode == 0
        source.read_photo()
        assert send(source.port, sent).returncode == 0
        with pytest.raises(DeviceTimeoutError, match="no photograph came"):
            source.read_photo()
    with camera(tmp_path, clock, "wait=0.3") as source, pytest.raises(DeviceTimeoutError):
        source.read_photo()  # nor is it one after a restart


def test_ps3_4_b2_3_what_cannot_be_read_is_refused_with_its_status(tmp_path: Path, clock: Clock, jpeg: bytes) -> None:
    cut = photograph(tmp_path / "cut.dcm", jpeg, clock, Eye.LEFT)
    data = pydicom.dcmread(cut)
    data.PixelData = pydicom.encaps.encapsulate([jpeg[: len(jpeg) // 2]])
    data.save_as(cut)
    video = photograph(tmp_path / "video.dcm", jpeg, clock, Eye.LEFT, NumberOfFrames="2")
    good = photograph(tmp_path / "good.dcm", jpeg, clock, Eye.LEFT)
    with camera(tmp_path, clock) as source:
        for bad in (cut, video):
            said = send(source.port, bad)
            assert re.search("Cannot ?Understand|C000", said.stdout + said.stderr, re.IGNORECASE), said
        assert send(source.port, good).returncode == 0
        assert source.read_photo().encoded == jpeg
    assert [path.name[-4:] for path in (tmp_path / "spool").iterdir() if path.is_file()] == []


def test_ps3_4_b2_3_an_object_that_is_not_the_one_announced_is_a_mismatch(
    tmp_path: Path, clock: Clock, jpeg: bytes
) -> None:
    """A900, and nothing is kept: neither under the announced name nor under its own."""
    data = pydicom.dcmread(photograph(tmp_path / "a.dcm", jpeg, clock, Eye.LEFT))
    with camera(tmp_path, clock, "wait=0.3") as source:
        for instance, sop_class in (
            (generate_uid(), data.SOPClassUID),
            (data.SOPInstanceUID, "1.2.840.10008.5.1.4.1.1.77.1.4"),
        ):
            assert announced(source.port, data, instance, sop_class) == 0xA900
        with pytest.raises(DeviceTimeoutError):
            source.read_photo()
        assert announced(source.port, data, data.SOPInstanceUID, data.SOPClassUID) == 0x0000
        assert source.read_photo().encoded == jpeg
    assert list((tmp_path / "spool").glob("*.part")) == []


def announced(port: int, data: pydicom.Dataset, instance: str, sop_class: str) -> int:
    """Send an object under that announcement, whatever it is; gives the status."""
    scu = pynetdicom.AE("CAMERA")
    scu.add_requested_context(sop_class, data.file_meta.TransferSyntaxUID)
    association = scu.associate("127.0.0.1", port, ae_title="AIDPOST")
    assert association.is_established
    try:
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
        request.DataSet = io.BytesIO(encode(data, False, True))
        # the answer is ours, not the association's own thread's: as its send_c_store does it
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            time.sleep(0.01)
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        return int(answer.Status)
    finally:
        association.release()


def test_an_ecg_another_title_or_a_strange_syntax_is_refused_before_it_is_sent(
    tmp_path: Path, clock: Clock, jpeg: bytes
) -> None:
    sent = photograph(tmp_path / "a.dcm", jpeg, clock, Eye.LEFT)
    ecg = pydicom.dcmread(sent)
    ecg.SOPClassUID = ecg.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    ecg.save_as(tmp_path / "ecg.dcm")
    with camera(tmp_path, clock, "wait=0.3&from=TOPCON") as source:
        assert send(source.port, sent).returncode != 0  # CAMERA is not TOPCON
    with camera(tmp_path, clock, "wait=0.3") as source:
        assert send(source.port, sent, title="SOMEBODY").returncode != 0
        assert send(source.port, tmp_path / "ecg.dcm").returncode != 0
        with pytest.raises(DeviceTimeoutError):
            source.read_photo()


def test_a_full_disk_is_said_and_nothing_half_is_kept(
    tmp_path: Path, clock: Clock, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = photograph(tmp_path / "a.dcm", jpeg, clock, Eye.LEFT)
    with camera(tmp_path, clock) as source:
        (tmp_path / "spool").rename(tmp_path / "away")  # a folder that cannot be written to, for root as well
        said = send(source.port, sent)
        assert re.search("Resources|A700", said.stdout + said.stderr), said
        (tmp_path / "away").rename(tmp_path / "spool")
        assert send(source.port, sent).returncode == 0
        assert source.read_photo().encoded == jpeg


class Cut:
    """A cable to `port` that breaks once so many bytes have gone to it."""

    def __init__(self, port: int, after: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._to, self._left = port, after
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with self._server, self._server.accept()[0] as here, socket.create_connection(("127.0.0.1", self._to)) as there:
            back = threading.Thread(target=self._copy, args=(there, here), daemon=True)
            back.start()
            while self._left > 0 and (data := here.recv(min(4096, self._left))):
                there.sendall(data)
                self._left -= len(data)
            for end in (there, here):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)


def test_an_association_that_breaks_loses_nothing_that_was_answered(tmp_path: Path, clock: Clock) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)
    large = encode_fundus(noise)
    first, second = (photograph(tmp_path / f"{n}.dcm", large, clock, Eye.LEFT) for n in "ab")
    for name, path in (("1", first), ("2", second)):
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[name])
        data.save_as(path)
    size = first.stat().st_size
    with camera(tmp_path, clock, "wait=30") as source:
        cable = Cut(source.port, after=size + size // 2)
        assert send(cable.port, first, second).returncode != 0
        spool = tmp_path / "spool"
        kept = [path.stem for path in spool.glob("*.dcm")]
        assert kept == [generate_uid(entropy_srcs=["1"])]
        assert send(source.port, first, second).returncode == 0  # as a camera does: all of them once more
        assert [source.read_photo().encoded, source.read_photo().encoded] == [large, large]
        assert len(list((spool / "given").iterdir())) == 2
    (spool / "left.part").write_bytes(b"half")
    with camera(tmp_path, clock):
        assert not (spool / "left.part").exists()


def test_a_photograph_of_another_time_is_not_taken_for_this_patients(tmp_path: Path, clock: Clock, jpeg: bytes) -> None:
    yesterday = photograph(tmp_path / "a.dcm", jpeg, clock, Eye.LEFT, AcquisitionDateTime="20231113221320+0000")
    untimed = photograph(tmp_path / "b.dcm", jpeg, clock, Eye.LEFT, AcquisitionDateTime="")
    data = pydicom.dcmread(untimed)
    data.ContentDate = data.ContentTime = ""
    data.save_as(untimed)
    with camera(tmp_path, clock, "wait=0.5") as source:
        assert send(source.port, yesterday, untimed).returncode == 0
        source.read_photo()  # without a time of its own it is of when it came
        with pytest.raises(DeviceTimeoutError, match="1 that were not taken just now") as caught:
            source.read_photo()
        assert str(tmp_path / "spool") in str(caught.value.cause)
        assert "its path" in caught.value.remedy
    with camera(tmp_path, clock, "wait=0.5&near=0") as source:
        assert source.read_photo().eye is Eye.LEFT


def test_what_was_given_is_deleted_after_a_time(tmp_path: Path, clock: Clock, jpeg: bytes) -> None:
    sent = photograph(tmp_path / "a.dcm", jpeg, clock, Eye.LEFT)
    with camera(tmp_path, clock, "wait=0.2&keep=0") as source:
        assert send(source.port, sent).returncode == 0
        source.read_photo()
        time.sleep(0.05)
        with pytest.raises(DeviceTimeoutError):
            source.read_photo()
    assert list((tmp_path / "spool").rglob("*.dcm")) == []


def test_a_source_that_is_written_wrongly_or_cannot_listen(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (f"dicom:104?folder={tmp_path}", "dicom:0.0.0.0:104", f"dicom::104?folder={tmp_path}&ae={'A' * 17}"):
        with pytest.raises(UsageError):
            open_source(wrong, clock=clock)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DeviceError, match="nothing can be kept"):
        open_source(f"dicom:127.0.0.1:0?folder={tmp_path}/file", clock=clock)
    with camera(tmp_path, clock) as source, pytest.raises(DeviceBusyError, match="cannot be listened at"):
        open_source(f"dicom:127.0.0.1:{source.port}?folder={tmp_path}/other", clock=clock)
    monkeypatch.setitem(__import__("sys").modules, "pynetdicom", None)
    with pytest.raises(NotPossibleError, match="pynetdicom is not installed"):
        open_source(f"dicom:127.0.0.1:0?folder={tmp_path}/x", clock=clock)
