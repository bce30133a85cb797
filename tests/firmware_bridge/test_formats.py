"""EDF, DICOM and CSV: files written by other people's tools, and folders of all of them."""

from __future__ import annotations

from pathlib import Path

import edfio
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    OphthalmicPhotography8BitImageStorage,
    generate_uid,
)

from aidpost.errors import UnreadableInputError, UnsupportedFormatError
from aidpost.firmware_bridge.formats.inputs import Input, Skipped, list_inputs, read_ecg_file, read_photo_file
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.records import EcgRecording, Eye, Timestamp

AT = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=False)


def read(path: Path, seconds: float | None = None) -> EcgRecording:
    return read_ecg_file(path, at=AT, seconds=seconds)


# ---- EDF


def write_edf(path: Path, *signals: edfio.EdfSignal) -> None:
    edfio.Edf(list(signals)).write(path)


def test_edf_written_by_edfio_reads_back_in_millivolt(tmp_path: Path) -> None:
    wave = 1000 * np.sin(np.arange(2500) / 20)
    one = edfio.EdfSignal(wave, 250, label="ECG II", physical_dimension="uV", physical_range=(-2000, 2000))
    other = edfio.EdfSignal(np.zeros(100), 10, label="Resp chest", physical_dimension="V", physical_range=(-1, 1))
    write_edf(tmp_path / "x.edf", one, other)
    recording = read(tmp_path / "x.edf")
    assert (recording.leads, recording.fs_hz) == (("II",), 250)
    # half a step of EDF's 16 bits for each of its and our rounding of the offset
    np.testing.assert_allclose(recording.millivolts(0), one.data / 1000, atol=recording.lsb_mv[0])


def test_edf_is_known_by_its_first_bytes_not_its_name(tmp_path: Path) -> None:
    signal = edfio.EdfSignal(np.arange(250.0), 250, label="ECG", physical_dimension="mV", physical_range=(0, 300))
    write_edf(tmp_path / "x.edf", signal)
    (tmp_path / "x.edf").rename(tmp_path / "holter")
    assert read(tmp_path / "holter", seconds=0.5).samples.shape == (1, 125)


def test_edf_without_an_ecg_names_what_it_holds(tmp_path: Path) -> None:
    signal = edfio.EdfSignal(np.zeros(100), 100, label="EEG Fpz-Cz", physical_dimension="uV", physical_range=(-1, 1))
    write_edf(tmp_path / "x.edf", signal)
    with pytest.raises(UnreadableInputError, match="EEG Fpz-Cz in uV"):
        read(tmp_path / "x.edf")


def test_damaged_and_discontinuous_edf(tmp_path: Path) -> None:
    signal = edfio.EdfSignal(np.zeros(1000), 100, label="ECG", physical_dimension="mV", physical_range=(-1, 1))
    write_edf(tmp_path / "x.edf", signal)
    data = (tmp_path / "x.edf").read_bytes()
    for cut in (200, 300, 511):
        (tmp_path / "cut.edf").write_bytes(data[:cut])
        with pytest.raises(UnreadableInputError):
            read(tmp_path / "cut.edf")
    (tmp_path / "d.edf").write_bytes(data[:192] + b"EDF+D" + data[197:])
    with pytest.raises(UnsupportedFormatError, match="discontinuous"):
        read(tmp_path / "d.edf")


# ---- DICOM


def test_the_waveform_of_pydicoms_test_file() -> None:
    recording = read(Path(get_testdata_file("waveform_ecg.dcm")))
    assert recording.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert (recording.samples.shape, recording.fs_hz) == ((12, 10_000), 1000)
    np.testing.assert_allclose(recording.millivolts(0)[:5], [0.1, 0.08125, 0.0625, 0.04375, 0.04625])
    assert recording.device.model == "el250"


def dicom_photo(path: Path, pixel_data: bytes, syntax: str, **tags: object) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = OphthalmicPhotography8BitImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
        "OP",
    )
    data.Rows = data.Columns = 256
    data.SamplesPerPixel, data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 3, 8, 8, 7, 0
    data.PhotometricInterpretation = "RGB" if syntax == ExplicitVRLittleEndian else "YBR_FULL_422"
    data.PlanarConfiguration = 0
    data.Manufacturer, data.ManufacturerModelName = "Kowa", "VX-10"
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixel_data
    data["PixelData"].VR = "OB"
    data.save_as(path)


def test_jpeg_inside_dicom_is_taken_out_byte_for_byte(tmp_path: Path) -> None:
    jpeg = encode_fundus(render_fundus(size=256))
    dicom_photo(tmp_path / "x.dcm", encapsulate([jpeg]), JPEGBaseline8Bit, ImageLaterality="L")
    photo = read_photo_file(tmp_path / "x.dcm", at=AT)
    assert (photo.encoded, photo.media_type, photo.eye) == (jpeg, "image/jpeg", Eye.LEFT)
    assert photo.camera.model == "VX-10"
    with pytest.raises(UnreadableInputError, match="left eye, not the right"):
        read_photo_file(tmp_path / "x.dcm", at=AT, eye=Eye.RIGHT)


def test_plain_pixels_inside_dicom_become_png_without_loss(tmp_path: Path) -> None:
    import cv2

    image = render_fundus(size=256)
    dicom_photo(tmp_path / "x.dcm", image[..., ::-1].tobytes(), ExplicitVRLittleEndian)
    photo = read_photo_file(tmp_path / "x.dcm", at=AT)
    assert (photo.media_type, photo.eye) == ("image/png", None)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(photo.encoded, np.uint8), cv2.IMREAD_COLOR), image)


@pytest.mark.parametrize(
    ("tags", "eye"),
    [
        ({"Laterality": "R"}, Eye.RIGHT),
        ({"ImageLaterality": "B", "SeriesDescription": "OD"}, None),
        ({"SeriesDescription": "Fundus OD 45"}, Eye.RIGHT),
        ({"SeriesDescription": "OD and OS"}, None),
        ({"SeriesDescription": "codos"}, None),
    ],
)
def test_laterality_comes_from_tags_then_plain_words_and_is_never_guessed(
    tags: dict[str, str], eye: Eye | None, tmp_path: Path
) -> None:
    dicom_photo(tmp_path / "x.dcm", encapsulate([encode_fundus(render_fundus(size=256))]), JPEGBaseline8Bit, **tags)
    assert read_photo_file(tmp_path / "x.dcm", at=AT).eye is eye


def test_dicom_that_cannot_be_kept_as_taken_is_unsupported(tmp_path: Path) -> None:
    dicom_photo(tmp_path / "x.dcm", encapsulate([b"\xff\xd8\xff\xd9"]), JPEGLosslessSV1)
    with pytest.raises(UnsupportedFormatError, match="JPEG Lossless"):
        read_photo_file(tmp_path / "x.dcm", at=AT)
    with pytest.raises(UnreadableInputError, match="no recorded waveform"):
        read(tmp_path / "x.dcm")


def test_damaged_dicom_is_unreadable(tmp_path: Path) -> None:
    data = Path(get_testdata_file("waveform_ecg.dcm")).read_bytes()
    for cut in (140, 400, 3000, 40_000):
        (tmp_path / "x.dcm").write_bytes(data[:cut])
        with pytest.raises(UnreadableInputError):
            read(tmp_path / "x.dcm")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for package, name, head in (("edfio", "x.edf", b"0       "), ("pydicom", "x.dcm", bytes(128) + b"DICM")):
        (tmp_path / name).write_bytes(head.ljust(300))
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UnsupportedFormatError, match=package) as caught:
            read(tmp_path / name)
        assert "aidpost[formats]" in caught.value.remedy


# ---- CSV


@pytest.mark.parametrize(
    ("text", "leads", "fs_hz", "first"),
    [
        ("time_s,I_mV,II_mV\n0,0.5,1\n0.004,0.25,-1\n0.008,0,0\n", ("I", "II"), 250, 0.5),
        ("time (ms), ECG (uV)\n0,500\n4,250\n8,0\n", ("ECG",), 250, 0.5),
        ("# fs_hz: 125\nII [mV]\n-0.3\n0.1\n", ("II",), 125, -0.3),
        ("'Elapsed time','MLII'\n'hh:mm:ss.mmm','mV'\n'0:00.000',-0.145\n'0:00.003',-0.1\n'0:00.006',1\n'0:00.008',1\n",
         ("MLII",), 375, -0.145),
    ],
)  # fmt: skip
def test_csv_with_units(text: str, leads: tuple[str, ...], fs_hz: float, first: float, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    recording = read(tmp_path / "x.csv")
    assert (recording.leads, recording.fs_hz) == (leads, fs_hz)
    assert recording.millivolts(0)[0] == pytest.approx(first)


def test_csv_nan_and_gaps_are_missing_not_zero(tmp_path: Path) -> None:
    rows = ["time_s,I_mV,II_mV", "0,1,1", "0.01,nan,nan", "0.02,1,", "0.03,1,1", "0.06,1,1", "0.07,1,1"]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    recording = read(tmp_path / "x.csv")
    assert (recording.fs_hz, recording.samples.shape[1]) == (100, 8)
    assert (recording.missing, recording.lead_off) == (((1, 2), (4, 6)), ((1, 2, 3),))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "empty"),
        ("time,I\n0,1\n", "no column has a unit"),
        ("time_s,I_mV\n", "no sample"),
        ("time_s,I_mV\n0,1\n", "one sample has no rate"),
        ("time_s,I_mV\n0,1\n0.1,two\n", "'two' in data row 2"),
        ("time_s,I_mV\n0,1\n0.1\n", "1 cells, not 2"),
        ("time_s,I_mV\n0,1\n0,1\n", "does not increase"),
        ("I_mV\n1\n", "no rate"),
        ("time_s,I_mV\n0,nan\n0.1,nan\n", "no valid sample"),
        ("time,I_mV\n0,1\n1,1\n", "time column has no unit"),
        ("time_s,I_mV\n0,1e300\n0.1,1\n", "beyond"),
        ("time_s,I_mV\n0,1\n0.001,1\n0.002,1\n1000000,1\n", "irregular"),
    ],
)
def test_broken_csv_says_what_is_wrong(text: str, cause: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UnreadableInputError, match=cause):
        read(tmp_path / "x.csv")


# ---- folders


def test_a_folder_lists_each_input_once_and_says_why_it_skips_the_rest(tmp_path: Path) -> None:
    for name in ("100.dat", "100.atr", "alone.dat", "notes.txt", ".hidden"):
        (tmp_path / name).write_bytes(bytes(10))
    (tmp_path / "100.hea").write_text("100 1 250 5\n100.dat 16 200 12 0 0 0 0 I\n")
    (tmp_path / "labels.csv").write_text("file,grade\na,1\n")
    (tmp_path / "ecg.csv").write_text("time_s,I_mV\n0,1\n0.1,1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "left.jpg").write_bytes(b"no photograph")
    ecg = list(list_inputs(tmp_path, "ecg"))
    assert [i.name for i in ecg if isinstance(i, Input)] == ["100", "ecg.csv"]
    skipped = {s.path.name: s.reason for s in ecg if isinstance(s, Skipped)}
    assert skipped == {
        "100.atr": "belongs to the WFDB record 100",
        "100.dat": "belongs to the WFDB record 100",
        "alone.dat": "a signal file without its header .hea",
        "labels.csv": "a table without a voltage column",
        "left.jpg": "a photograph",
        "notes.txt": "not a format that is read",
    }
    # a file that claims to be a photograph is listed, so that reading it tells
    assert [i.name for i in list_inputs(tmp_path, "fundus") if isinstance(i, Input)] == ["left.jpg"]


def test_dicom_in_a_folder_goes_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(Path(get_testdata_file("waveform_ecg.dcm")).read_bytes())
    dicom_photo(tmp_path / "b.dcm", encapsulate([b"\xff\xd8\xff\xd9"]), JPEGBaseline8Bit)
    pydicom.dcmread(tmp_path / "b.dcm")
    assert [i.name for i in list_inputs(tmp_path, "ecg") if isinstance(i, Input)] == ["a"]
    assert [i.name for i in list_inputs(tmp_path, "fundus") if isinstance(i, Input)] == ["b.dcm"]


@pytest.mark.parametrize(
    ("content", "cause"), [(b"", "empty"), (b"hello", "no WFDB, EDF, DICOM or CSV"), (b"\xff\xd8\xff", "photograph")]
)
def test_what_is_no_recording_says_so(content: bytes, cause: str, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(UnreadableInputError, match=cause):
        read(tmp_path / "x.bin")
    with pytest.raises(UnreadableInputError, match="folder"):
        read(tmp_path)
