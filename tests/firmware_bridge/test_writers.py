"""What is written opens in others' programs: wfdb, edfio, pydicom and dcmtk's dcmdump; and comes back exactly."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
import warnings
from pathlib import Path
from typing import Any

import cv2
import edfio
import msgspec
import numpy as np
import pydicom
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aidpost.errors import StoreError, UnsupportedFormatError, UsageError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.inputs import photo_from_bytes, read_ecg_file, read_photo_file
from aidpost.firmware_bridge.formats.write import write_ecg, write_photo
from aidpost.firmware_bridge.simulators.ecg import LEADS
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import Device, EcgRecording, Eye, Origin, Patient, Sex, Timestamp

AT = Timestamp(wall_ms=1_700_000_000_000, monotonic_ms=1000, boot=3, synced=True, utc_offset_min=180)
PATIENT = Patient(id=uuid.UUID(int=7), name="Nalubega Grace", birth_date="1961-03-02", sex=Sex.FEMALE)


def recording(
    samples: Any,
    *,
    fs_hz: float = 250,
    leads: tuple[str, ...] = ("I", "II"),
    lsb_mv: float = 0.00123,
    baseline: int = 3,
    **fields: Any,
) -> EcgRecording:
    samples = np.asarray(samples, np.int32)
    count = len(samples)
    return EcgRecording(
        id=uuid.UUID(int=99),
        samples=samples,
        fs_hz=fs_hz,
        leads=leads[:count],
        lsb_mv=(lsb_mv,) * count,
        baseline=(baseline,) * count,
        at=AT,
        origin=fields.pop("origin", Origin.LIVE),
        device=Device(name="bench board", manufacturer="Aidpost"),
        **fields,
    )


def wave(length: int, amplitude: int = 900) -> Any:
    n = np.arange(length)
    return np.stack([amplitude * np.sin(n / 7), amplitude * np.cos(n / 11) - 50]).astype(np.int32)


def agree(ours: EcgRecording, back: EcgRecording, *, lsb: float = 0.0) -> None:
    """The same samples, or the same lack of one, in every lead."""
    assert (back.fs_hz, back.leads) == (ours.fs_hz, ours.leads)
    for lead in range(len(ours.leads)):
        np.testing.assert_allclose(back.millivolts(lead), ours.millivolts(lead), rtol=1e-12, atol=lsb)


@pytest.mark.parametrize(("amplitude", "form"), [(900, "16"), (1 << 20, "24"), (1 << 29, "32")])
def test_wfdb_opens_what_is_written_and_finds_the_checksum_right(tmp_path: Path, amplitude: int, form: str) -> None:
    ours = recording(wave(1001, amplitude), missing=((10, 20),), lead_off=((1, 900, 1001),))
    write_ecg(ours, tmp_path / "r1.hea")
    theirs = wfdb.rdrecord(str(tmp_path / "r1"), return_res=64)
    digital = wfdb.rdrecord(str(tmp_path / "r1"), physical=False, return_res=64)
    assert (theirs.fmt, theirs.sig_name, theirs.units, theirs.fs) == ([form] * 2, ["I", "II"], ["mV"] * 2, 250)
    # header(5) has a signed 16-bit sum, wfdb calculates it unsigned
    assert [n % 65536 for n in digital.checksum] == digital.calc_checksum()
    for lead in range(2):
        np.testing.assert_allclose(theirs.p_signal[:, lead], ours.millivolts(lead), rtol=1e-12)
    agree(ours, read_ecg_file(tmp_path / "r1.hea", at=AT))


def test_edfio_opens_what_is_written_with_what_is_missing_as_annotations(tmp_path: Path) -> None:
    ours = recording(wave(1001), missing=((10, 20),), lead_off=((1, 900, 950),))
    write_ecg(ours, tmp_path / "r.edf", PATIENT)
    theirs = edfio.read_edf(tmp_path / "r.edf")
    assert [signal.label for signal in theirs.signals] == ["ECG I", "ECG II"]
    assert (theirs.patient.name, theirs.patient.sex, theirs.recording.equipment_code) == (
        "Nalubega_Grace", "F", "bench_board"
    )  # fmt: skip
    notes = [(round(note.onset, 3), round(note.duration or 0, 3), note.text) for note in theirs.annotations]
    assert notes == [(0.04, 0.04, "missing"), (3.6, 0.2, "lead off II"), (4.004, 0.996, "missing")]
    step_uv = ours.lsb_mv[0] * 1000
    got = theirs.signals[0].data[:1001] / 1000
    valid = np.isfinite(ours.millivolts(0))
    np.testing.assert_allclose(got[valid], ours.millivolts(0)[valid], atol=step_uv / 1000 / 2)
    agree(ours, read_ecg_file(tmp_path / "r.edf", at=AT), lsb=step_uv / 1000 / 2)


def test_edf_takes_counts_beyond_16_bits_where_their_span_is_within(tmp_path: Path) -> None:
    ours = recording(wave(500) + 3_000_000, baseline=2_999_000, lsb_mv=0.001)
    write_ecg(ours, tmp_path / "r.edf")
    # half a step from the eight characters of the scale, half a step from our reader's whole baseline
    agree(ours, read_ecg_file(tmp_path / "r.edf", at=AT), lsb=0.001)
    with pytest.raises(UnsupportedFormatError, match="more than 16 bits"):
        write_ecg(recording(wave(500, 1 << 20)), tmp_path / "x.edf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.edf"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), fs_hz=st.sampled_from([130, 250, 360, 500, 1000]), length=st.integers(1, 700))
@pytest.mark.parametrize("name", ["r.hea", "r.edf", "r.dcm"])
def test_any_length_rate_and_gap_comes_back(
    name: str, data: st.DataObject, fs_hz: int, length: int, tmp_path: Path
) -> None:
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    off = data.draw(st.integers(1, length))
    ours = recording(wave(length), fs_hz=fs_hz, missing=((start, stop),), lead_off=((0, off - 1, off),))
    # a file that says nothing is valid is refused on reading, rightly
    valid = np.isfinite(np.stack([ours.millivolts(n) for n in range(2)])).any(axis=0)
    write_ecg(ours, tmp_path / name)
    if not valid.any():
        return
    back = read_ecg_file(tmp_path / name, at=AT)
    kept = back.samples.shape[1]
    # EDF cannot tell a gap at the end from the padding of its last record
    assert kept == (int(np.flatnonzero(valid)[-1]) + 1 if name == "r.edf" else length)
    for lead in range(2):
        np.testing.assert_allclose(back.millivolts(lead), ours.millivolts(lead)[:kept], atol=ours.lsb_mv[0] / 2)


def dcmdump(path: Path) -> str:
    """What dcmtk makes of the file; a warning or an error fails."""
    tool = shutil.which("dcmdump")
    assert tool is not None, "dcmtk is not installed (Debian package dcmtk)"
    done = subprocess.run([tool, "--print-all", str(path)], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


def test_every_mandatory_attribute_of_dicoms_tables_is_there(tmp_path: Path) -> None:
    """Against the standard's tables (PS3.3) as highdicom carries them, top level, waveform and channel."""
    tables = json.loads((Path(__file__).parent / "data" / "dicom_mandatory.json").read_text())
    write_ecg(recording(wave(2500), fs_hz=500), tmp_path / "general.dcm")
    write_ecg(recording(np.tile(wave(2500), (6, 1)), leads=LEADS, fs_hz=500), tmp_path / "twelve.dcm")
    write_ecg(recording(wave(1250), fs_hz=125), tmp_path / "slow.dcm")
    photo = photo_from_bytes(encode_fundus(render_fundus(size=128)), at=AT, eye=Eye.LEFT, source="", origin=Origin.LIVE)
    write_photo(photo, tmp_path / "photo.dcm")
    kinds = {}
    for path in sorted(tmp_path.glob("*.dcm")):
        data = pydicom.dcmread(path)
        kinds[path.stem] = data.SOPClassUID.name
        for keyword, kind in tables[data.SOPClassUID].items():
            where = data.WaveformSequence[0] if keyword.startswith("WaveformSequence.") else data
            where = where.ChannelDefinitionSequence[0] if ".ChannelDefinitionSequence." in keyword else where
            name = keyword.rpartition(".")[2]
            assert name in where, f"{path.name} lacks {keyword}"
            assert kind == "2" or where[name].value not in (None, ""), f"{path.name}: {keyword} is empty"
        assert "=JPEGBaseline" in dcmdump(path) or "=LittleEndianExplicit" in dcmdump(path)
    assert kinds == {
        "general": "General ECG Waveform Storage",
        "photo": "Ophthalmic Photography 8 Bit Image Storage",
        "slow": "Ambulatory ECG Waveform Storage",
        "twelve": "12-lead ECG Waveform Storage",
    }


@pytest.mark.parametrize("amplitude", [900, 1 << 20])
def test_pydicom_reads_the_waveform_in_microvolt(tmp_path: Path, amplitude: int) -> None:
    ours = recording(wave(1000, amplitude), fs_hz=500, missing=((5, 9),))
    write_ecg(ours, tmp_path / "e.dcm", PATIENT)
    data = pydicom.dcmread(tmp_path / "e.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = data.waveform_array(0)
    valid = np.isfinite(ours.millivolts(0))
    np.testing.assert_allclose(theirs[valid, 0] / 1000, ours.millivolts(0)[valid], rtol=1e-9, atol=1e-9)
    assert (str(data.PatientName), data.PatientBirthDate, data.PatientSex) == ("Nalubega Grace", "19610302", "F")
    assert data.AcquisitionDateTime == "20231115011320.000+0300"
    assert data.SOPInstanceUID == f"2.25.{ours.id.int}"
    assert "Lead II" in dcmdump(tmp_path / "e.dcm")
    agree(ours, read_ecg_file(tmp_path / "e.dcm", at=AT), lsb=1e-9)


def test_a_rate_that_dicom_does_not_allow_is_refused(tmp_path: Path) -> None:
    for fs_hz, amplitude in ((25, 900), (2000, 900), (125, 1 << 20)):
        with pytest.raises(UnsupportedFormatError, match="which DICOM allows"):
            write_ecg(recording(wave(100, amplitude), fs_hz=fs_hz), tmp_path / "e.dcm")
    assert list(tmp_path.iterdir()) == []


def test_a_jpeg_goes_into_dicom_byte_for_byte(tmp_path: Path) -> None:
    jpeg = encode_fundus(render_fundus(size=200))
    photo = photo_from_bytes(jpeg, at=AT, eye=Eye.RIGHT, source="", origin=Origin.LIVE)
    write_photo(photo, tmp_path / "p.dcm", PATIENT)
    back = read_photo_file(tmp_path / "p.dcm", at=AT)
    assert (back.encoded, back.eye, back.media_type) == (jpeg, Eye.RIGHT, "image/jpeg")
    data = pydicom.dcmread(tmp_path / "p.dcm")
    assert (data.ImageLaterality, data.Modality, data.LossyImageCompression) == ("R", "OP", "01")
    text = dcmdump(tmp_path / "p.dcm")
    assert "YBR_FULL_422" in text


def test_a_jpeg_that_exif_turns_is_turned_and_a_png_loses_nothing(tmp_path: Path) -> None:
    tall = render_fundus(size=64)[:, :40]
    jpeg = cv2.imencode(".jpg", tall)[1].tobytes()
    turn = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    exif = b"Exif\0\0" + turn
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    photo = photo_from_bytes(turned, at=AT, eye=Eye.LEFT, source="", origin=Origin.LIVE)
    write_photo(photo, tmp_path / "t.dcm")
    data = pydicom.dcmread(tmp_path / "t.dcm")
    expected = cv2.rotate(cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1), cv2.ROTATE_90_CLOCKWISE)[:, :, ::-1]
    np.testing.assert_array_equal(data.pixel_array, expected)
    assert data.LossyImageCompression == "01"
    png = cv2.imencode(".png", tall)[1].tobytes()
    write_photo(photo_from_bytes(png, at=AT, eye=Eye.LEFT, source="", origin=Origin.LIVE), tmp_path / "n.dcm")
    back = read_photo_file(tmp_path / "n.dcm", at=AT)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(back.encoded, np.uint8), 1), tall)


def test_the_eye_is_asked_for_and_never_guessed(tmp_path: Path) -> None:
    jpeg = encode_fundus(render_fundus(size=64))
    photo = photo_from_bytes(jpeg, at=AT, eye=None, source="OD_left.jpg", origin=Origin.LIVE)
    with pytest.raises(UsageError, match="which eye"):
        write_photo(photo, tmp_path / "p.dcm")
    assert list(tmp_path.iterdir()) == []
    write_photo(photo, tmp_path / "p.jpg")
    assert (tmp_path / "p.jpg").read_bytes() == jpeg
    with pytest.raises(UsageError, match="does not say a form"):
        write_photo(photo, tmp_path / "p.png")


def test_what_is_simulated_or_of_an_unset_clock_says_so_in_the_file(tmp_path: Path, clock: Clock) -> None:
    simulated = open_source("sim:ecg?seconds=2", clock=clock).read_ecg()
    for name in ("s.hea", "s.edf", "s.dcm"):
        write_ecg(simulated, tmp_path / name)
    assert "# origin SIMULATED" in (tmp_path / "s.hea").read_text()
    assert "origin_SIMULATED" in str(edfio.read_edf(tmp_path / "s.edf").recording.additional)
    assert pydicom.dcmread(tmp_path / "s.dcm").SeriesDescription == "origin SIMULATED"


def test_a_clock_that_was_never_set_spoils_no_file(tmp_path: Path) -> None:
    ours = msgspec.structs.replace(
        recording(wave(500)), at=Timestamp(wall_ms=5000, monotonic_ms=5000, boot=1, synced=False)
    )
    for name in ("r.hea", "r.edf", "r.dcm"):
        write_ecg(ours, tmp_path / name)
        agree(ours, read_ecg_file(tmp_path / name, at=AT), lsb=ours.lsb_mv[0] / 2)
    assert "clock_not_confirmed" in str(edfio.read_edf(tmp_path / "r.edf").recording.additional)


def test_a_form_or_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ours = recording(wave(10))
    with pytest.raises(UsageError, match="does not say a form"):
        write_ecg(ours, tmp_path / "r.xyz")
    with pytest.raises(UnsupportedFormatError, match="no name of a record"):
        write_ecg(ours, tmp_path / "two words.hea")
    with pytest.raises(UnsupportedFormatError, match="means no sample"):
        write_ecg(recording([[-(1 << 31), 0]]), tmp_path / "low.hea")
    for name in ("r.hea", "r.edf"):
        with pytest.raises(StoreError, match="No such file"):
            write_ecg(ours, tmp_path / "none" / name)
