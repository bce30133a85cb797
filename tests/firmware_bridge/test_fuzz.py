"""File readers take arbitrary bytes: they read them, or refuse them by name; nothing else."""

from __future__ import annotations

import warnings
from pathlib import Path

import fuzzing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from aidpost.errors import AidpostError, UnreadableInputError
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.capture import open_capture
from aidpost.firmware_bridge.decoders.catalogue import CHARACTERISTICS
from aidpost.firmware_bridge.formats.inputs import read_ecg_file, read_photo_file
from aidpost.firmware_bridge.formats.write import write_ecg
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import Timestamp

AT = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=False)
HEADS = {
    ".hea": b"r 2 250 20\nr.dat 212 200(0)/mV 12 0 0 0 0 I\nr.dat 212 200 12 0 0 0 0 II\n",
    ".edf": b"0       " + b"X X X X".ljust(160) + b"01.01.2600.00.00512     " + b" " * 44 + b"1       1       1   ",
    ".csv": b"time_s,I_mV\n0,1\n0.01,2\n",
    ".dcm": bytes(128) + b"DICM",
    ".jpg": b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00\xff\xda\x00\x03\x00",
    "": b"\x89AIDCAP\n",
}


@st.composite
def mutations(draw: st.DrawFn, head: bytes) -> bytes:
    """A valid beginning with some bytes changed, and arbitrary bytes behind it."""
    data = bytearray(head)
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data) + draw(st.binary(max_size=200))


@pytest.mark.parametrize("suffix", HEADS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_arbitrary_files_are_read_or_refused(suffix: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / f"r{suffix}"
    path.write_bytes(data.draw(mutations(HEADS[suffix])))
    (tmp_path / "r.dat").write_bytes(bytes(range(60)))
    try:
        if suffix == "":
            capture = open_capture(path)
            assert capture is None or sum(len(chunk.data) for chunk in capture.chunks()) <= 300
        elif suffix == ".jpg":
            assert read_photo_file(path, at=AT).encoded
        else:
            assert read_ecg_file(path, at=AT).samples.size
    except AidpostError as error:
        assert isinstance(error, UnreadableInputError)  # noqa: PT017 (either outcome is right, but no other)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 12_000), value=st.integers(0, 255), length=st.integers(200, 12_000))
def test_a_damaged_dicom_waveform_is_read_or_refused(position: int, value: int, length: int, tmp_path: Path) -> None:
    data = bytearray(Path(get_testdata_file("waveform_ecg.dcm")).read_bytes())
    data[position] = value
    (tmp_path / "x.dcm").write_bytes(data[: len(data) if length > 6000 else length])
    try:
        assert read_ecg_file(tmp_path / "x.dcm", at=AT).samples.size
    except AidpostError as error:
        assert isinstance(error, UnreadableInputError)  # noqa: PT017 (either outcome is right, but no other)


def test_the_kept_corpus_and_a_short_run_break_no_decoder_and_no_reader() -> None:
    """The bounded run of `scripts/fuzz`; an AssertionError names the input."""
    tried = fuzzing.fuzz(seconds=60, rounds=6, seed=20261125, keep=None)
    assert min(tried.values()) >= 6 * 20
    assert set(tried) >= {*BOARDS, *CHARACTERISTICS}


def test_the_fuzzer_finds_a_decoder_that_raises_hangs_or_depends_on_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "HANG_S", 0.1)

    def hangs(data: bytes) -> str:
        while True:
            pass

    for answer, name in ((lambda data: str(data[5]), "IndexError"), (hangs, "Hang")):
        with pytest.raises(AssertionError, match=f"x: {name}.*: 0102$"):
            fuzzing.try_input("x", answer, b"\x01\x02")


def test_an_edf_that_is_cut_off_is_refused_and_not_read_in_part(tmp_path: Path) -> None:
    write_ecg(open_source("sim:ecg?fs=250", clock=fuzzing.Clock()).read_ecg(4), tmp_path / "r.edf")
    data = (tmp_path / "r.edf").read_bytes()
    (tmp_path / "r.edf").write_bytes(data[:-300])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as outside of the tests, where a warning stops nothing
        with pytest.raises(UnreadableInputError, match="damaged"):
            read_ecg_file(tmp_path / "r.edf", at=AT)
