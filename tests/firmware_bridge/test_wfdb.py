"""WFDB records, sample for sample against the wfdb package, and every way in which they can be broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from aidpost.errors import UnreadableInputError, UnsupportedFormatError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.inputs import read_ecg_file
from aidpost.firmware_bridge.formats.wfdb import read_wfdb


@pytest.mark.parametrize(
    "record",
    [
        "mitdb/101",
        "mitdb/102",
        "mitdb/230",
        "ludb/1",
        "ludb/101",
        "nstdb/bw",
        "nstdb/ma",
        "cinc2017/wfdb_samples/A00002",
    ],
)
def test_public_records_read_as_the_wfdb_package_reads_them(record: str, public_data: Path) -> None:
    path = public_data / "ecg" / record
    ours, theirs = read_wfdb(path), wfdb.rdrecord(str(path), physical=False)
    np.testing.assert_array_equal(ours.counts, theirs.d_signal.T)
    assert (list(ours.names), ours.fs_hz, list(ours.baseline)) == (theirs.sig_name, theirs.fs, theirs.baseline)
    np.testing.assert_allclose(1 / np.array(ours.lsb_mv), theirs.adc_gain)


RANGE = {"80": 127, "212": 2047, "16": 32767, "24": 2**23 - 1, "32": 2**31 - 1}


@pytest.mark.parametrize("form", ["16", "24", "32", "80", "212"])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000, 1001])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_signal_format_round_trips_through_the_wfdb_package(form: str, length: int, width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(length)
    top = RANGE[form]
    signal = rng.integers(-top, top, (length, width), endpoint=True)
    signal[0] = top
    _write(tmp_path, signal, form)
    ours = read_wfdb(tmp_path / "r.hea")
    np.testing.assert_array_equal(ours.counts, signal.T)


def _write(folder: Path, signal: np.ndarray, form: str) -> None:
    width = signal.shape[1]
    wfdb.wrsamp(
        "r",
        fs=250,
        units=["mV"] * width,
        sig_name=[f"lead {n}" for n in range(width)],
        d_signal=signal,
        fmt=[form] * width,
        adc_gain=[200.0] * width,
        baseline=[0] * width,
        write_dir=str(folder),
    )


@pytest.mark.parametrize("form", ["8", "61", "80", "160", "212", "310", "311"])
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 300])
def test_arbitrary_signal_bytes_read_as_the_wfdb_package_reads_them(form: str, frames: int, tmp_path: Path) -> None:
    raw = np.frombuffer(np.random.default_rng(5).bytes(4 * frames + 8), "<u4")
    # signal(5) leaves the two top bits of format 311 unused; the package takes one of them for a part of the sample
    (tmp_path / "r.dat").write_bytes((raw & 0x3FFFFFFF if form == "311" else raw).tobytes())
    lines = "".join(f"r.dat {form} 200/mV 12 0 {start} 0 0 {name}\n" for name, start in (("I", 33), ("II", -7)))
    (tmp_path / "r.hea").write_text(f"r 2 250 {frames}\n{lines}")
    theirs = wfdb.rdrecord(str(tmp_path / "r"), physical=False)
    np.testing.assert_array_equal(read_wfdb(tmp_path / "r").counts, theirs.d_signal.T)


def test_matlab_file_of_several_leads_is_read_behind_its_header(tmp_path: Path) -> None:
    signal = np.arange(-30, 30, dtype="<i2").reshape(20, 3)
    (tmp_path / "m.mat").write_bytes(bytes(24) + signal.tobytes())
    lines = "".join(f"m.mat 16+24 1000/mV 16 0 {signal[0, n]} 0 0 {name}\n" for n, name in enumerate(("I", "II", "V1")))
    (tmp_path / "m.hea").write_text(f"m 3 500 20\n{lines}")
    wave = read_wfdb(tmp_path / "m.mat")
    np.testing.assert_array_equal(wave.counts, signal.T)
    assert wave.names == ("I", "II", "V1")


def test_several_samples_a_frame_raise_the_rate(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(np.array([0, 1, 10, 11, 2, 3, 12, 13], "<i2").tobytes())
    (tmp_path / "r.hea").write_text("r 2 100 2\nr.dat 16x2 200 12 0 0 0 0 I\nr.dat 16x2 200 12 0 0 0 0 II\n")
    wave = read_wfdb(tmp_path / "r.hea")
    assert wave.fs_hz == 200
    np.testing.assert_array_equal(wave.counts, [[0, 1, 2, 3], [10, 11, 12, 13]])


def test_units_scale_and_other_signals_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(np.arange(9, dtype="<i2").tobytes())
    (tmp_path / "r.hea").write_text(
        "r 3 250 3\nr.dat 16 2/uV 12 0 0 0 0 I\nr.dat 16 100/mmHg 12 0 0 0 0 ABP\nr.dat 16 200 12 5 0 0 0 RESP\n"
    )
    wave = read_wfdb(tmp_path / "r.hea")
    assert (wave.names, wave.lsb_mv) == (("I",), (0.0005,))


def test_the_lowest_number_of_a_format_means_no_sample(tmp_path: Path, clock: Clock) -> None:
    signal = np.array([[1, 2], [-32768, -32768], [3, -32768], [4, 5]])
    (tmp_path / "r.dat").write_bytes(signal.astype("<i2").tobytes())
    (tmp_path / "r.hea").write_text("r 2 250 4\nr.dat 16 200 12 0 0 0 0 I\nr.dat 16 200 12 0 0 0 0 II\n")
    recording = read_ecg_file(tmp_path / "r.hea", at=clock.now())
    assert (recording.missing, recording.lead_off) == (((1, 2),), ((1, 2, 3),))
    assert np.isnan(recording.millivolts(1)[1:3]).all()


HEADER = "r 1 250 100\nr.dat 16 200 12 0 0 0 0 I\n"


@pytest.mark.parametrize(
    ("header", "signal", "cause"),
    [
        (HEADER, None, "r.dat cannot be read"),
        (HEADER, 150, "cut off: the header says 100 samples, the file holds 75"),
        (HEADER, 0, "cut off"),
        ("", 200, "empty"),
        ("just some text\n", 200, "record line is missing"),
        ("r 0\n", 200, "no signal"),
        ("r 3 250 100\nr.dat 16 200 12 0 0 0 0 I\n", 200, "announces 3 signals"),
        ("r 1 nan 100\nr.dat 16\n", 200, "rate"),
        ("r 1 -5 100\nr.dat 16\n", 200, "rate"),
        ("r 1 250 x\nr.dat 16\n", 200, "not numbers"),
        ("r 1 250 100\nr.dat sixteen\n", 200, "does not follow"),
        ("r 1 250 100\n../../etc/passwd 16\n", 200, "not beside it"),
        ("r 1 250 100\nr.dat 16 200/mmHg 12 0 0 0 0 ABP\n", 200, "no signal is an ECG"),
        ("r 1 250\nr.dat 16 200 12 0 0 0 0 I\n", 0, "no sample"),
    ],
)
def test_a_broken_record_says_what_is_wrong(
    header: str, signal: int | None, cause: str, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "r.hea").write_text(header)
    if signal is not None:
        (tmp_path / "r.dat").write_bytes(bytes(signal))
    with pytest.raises(UnreadableInputError, match=cause) as caught:
        read_ecg_file(tmp_path / "r.hea", at=clock.now())
    assert caught.value.remedy
    assert "r.hea" in caught.value.target


@pytest.mark.parametrize(
    "header",
    ["r/2 1 250 100\nr1 50\nr2 50\n", "r 1 250 100\nr.dat 516 200\n", "r 1 250 100\nr.dat 16:3 200\n",
     "r 2 250 100\nr.dat 16x2 200\nr.dat 16 200\n"],
)  # fmt: skip
def test_what_nobody_here_reads_is_unsupported(header: str, tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text(header)
    (tmp_path / "r.dat").write_bytes(bytes(2000))
    with pytest.raises(UnsupportedFormatError):
        read_wfdb(tmp_path / "r.hea")


def test_one_sample_and_zeros_are_recordings_for_the_quality_gate_to_judge(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "r.hea").write_text("r 1 250 1\nr.dat 16 200 12 0 0 0 0 I\n")
    (tmp_path / "r.dat").write_bytes(bytes(2))
    assert read_ecg_file(tmp_path / "r", at=clock.now()).samples.tolist() == [[0]]
