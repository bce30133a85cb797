"""Which reader a file needs, and which files of a folder are inputs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aidpost.errors import AidpostError, UnreadableInputError
from aidpost.firmware_bridge.formats.photograph import inspect_photo, media_type
from aidpost.firmware_bridge.formats.wave import to_recording, unreadable
from aidpost.records import Device, EcgRecording, Eye, FundusPhoto, Origin, Timestamp

MAX_PHOTO_BYTES = 256 << 20
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png"})
WFDB_SUFFIXES = frozenset({".hea", ".dat", ".mat"})


@dataclass(frozen=True)
class Input:
    """A file, or a WFDB record by its header, that can be read as what was asked for; `name` is short, for people."""

    path: Path
    name: str


@dataclass(frozen=True)
class Skipped:
    """A file of a folder that is not an input of that kind, and why."""

    path: Path
    reason: str


def list_inputs(path: Path, kind: str) -> Iterator[Input | Skipped]:
    """The inputs of `kind` ("ecg" or "fundus") under `path`, in the order of their names.

    A path that is no folder is one input, whatever it holds: reading it tells. In a folder a WFDB record is listed
    once, by its header; a file that claims to be an input and is not is listed too, so that reading it gives the error;
    all else is skipped with the reason. Hidden files are left out.
    """
    header = path.with_name(path.name + ".hea")
    if not path.exists() and header.is_file():
        path = header  # a WFDB record is named without an ending
    if not path.is_dir():
        yield Input(path, path.stem if path.suffix in WFDB_SUFFIXES else path.name)
        return
    for entry in sorted(path.iterdir(), key=lambda p: p.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from list_inputs(entry, kind)
            continue
        reason = _why_not(entry, kind)
        if reason is None:
            yield Input(entry, entry.stem if entry.suffix == ".hea" else entry.name)
        else:
            yield Skipped(entry, reason)


def _why_not(path: Path, kind: str) -> str | None:
    """Why the file is no input of that kind; None if it is one."""
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    if head[128:132] == b"DICM":
        return _why_not_dicom(path, kind)
    if media_type(head) is not None or suffix in PHOTO_SUFFIXES:
        return None if kind == "fundus" else "a photograph"
    if suffix in {".hea", ".edf", ".csv"}:
        if kind != "ecg":
            return "not a photograph"
        return "a table without a voltage column" if suffix == ".csv" and _lacks_voltage(head) else None
    if suffix in {".dcm", ".dicom"}:
        return None  # claims to be DICOM and is not: reading it says so
    if path.with_suffix(".hea").is_file():
        return f"belongs to the WFDB record {path.stem}"
    return "not a format that is read" if suffix not in {".dat", ".mat"} else "a signal file without its header .hea"


def _lacks_voltage(head: bytes) -> bool:
    lines = [line for line in head.decode("utf-8", "replace").splitlines() if line.strip() and not line.startswith("#")]
    return bool(lines) and not any(unit in " ".join(lines[:2]).lower() for unit in ("mv", "uv", "µv", "μv", "(v)"))


def _why_not_dicom(path: Path, kind: str) -> str | None:
    from aidpost.firmware_bridge.formats.dicom import dicom_holds

    try:
        holds = dicom_holds(path)
    except AidpostError:
        return None  # reading it gives the error
    return None if holds == kind else {"ecg": "an ECG", "fundus": "a photograph"}.get(holds, f"DICOM: {holds}")


def read_ecg_file(path: Path, *, at: Timestamp, seconds: float | None = None, source: str = "") -> EcgRecording:
    """The ECG in a WFDB record, EDF, DICOM waveform or CSV file; the first bytes decide, then the suffix.

    `at` is when it was read: the clock that made the recording is not this one.

    Raises
    ------
    UnreadableInputError
        Missing, empty, cut off, damaged or no ECG; `UnsupportedFormatError` where there is no reader for it.
    """
    from aidpost.firmware_bridge.formats import dicom, ecg_csv, edf, wfdb

    head = _head(path)
    suffix = path.suffix.lower()
    if suffix in WFDB_SUFFIXES or head is None:
        name, wave = path.stem if suffix in WFDB_SUFFIXES else path.name, wfdb.read_wfdb(path)
    elif head[128:132] == b"DICM" or suffix in {".dcm", ".dicom"}:
        name, wave = path.name, dicom.read_dicom_ecg(path)
    elif head[:8] == b"0       " or suffix == ".edf":
        name, wave = path.name, edf.read_edf(path)
    elif suffix in {".csv", ".txt"}:
        name, wave = path.name, ecg_csv.read_csv(path)
    elif media_type(head) is not None:
        raise unreadable(path, "it is a photograph, not an ECG", "Give a WFDB, EDF, DICOM or CSV recording.")
    else:
        raise unreadable(path, "it is no WFDB, EDF, DICOM or CSV recording", "Convert it to one of these.")
    return to_recording(wave, path=path, source=source or name, at=at, seconds=seconds)


def _head(path: Path) -> bytes | None:
    """The first bytes; None where only a WFDB header of that name exists."""
    if path.is_dir():
        raise unreadable(path, "it is a folder", "Name a recording in it.")
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        if path.with_name(path.name + ".hea").is_file():
            return None
        raise unreadable(path, f"it cannot be opened ({error.strerror})", "Check the path.") from None
    if not head:
        raise unreadable(path, "the file is empty")
    return head


def read_photo_file(path: Path, *, at: Timestamp, eye: Eye | None = None, source: str = "") -> FundusPhoto:
    """The photograph in a JPEG, PNG or DICOM file: bytes as taken, checked for being complete.

    `eye` is what the operator says; without it DICOM's laterality counts, and nothing is guessed from names.

    Raises
    ------
    UnreadableInputError
        Missing, empty, cut off, damaged, too large, no photograph, or of the other eye than `eye`.
    """
    try:
        if path.stat().st_size > MAX_PHOTO_BYTES:
            raise _bad_photo(path, "the file is larger than 256 MB", "Check the file.")
        data = path.read_bytes()
    except OSError as error:
        raise _bad_photo(path, f"it cannot be opened ({error.strerror})", "Check the path.") from None
    name = source or path.name
    if media_type(data) != "application/dicom":
        return photo_from_bytes(data, at=at, eye=eye, source=name, origin=Origin.FILE)
    from aidpost.firmware_bridge.formats.dicom import read_dicom_photo

    encoded, _, tagged, camera = read_dicom_photo(path)
    if eye is not None and tagged is not None and eye is not tagged:
        raise _bad_photo(path, f"its tags say the {tagged.value} eye, not the {eye.value}", "Check which eye it shows.")
    return photo_from_bytes(encoded, at=at, eye=eye or tagged, source=name, origin=Origin.FILE, camera=camera)


def _bad_photo(path: Path, cause: str, remedy: str) -> UnreadableInputError:
    return UnreadableInputError(operation="reading the photograph", target=str(path), cause=cause, remedy=remedy)


def photo_from_bytes(
    data: bytes, *, at: Timestamp, eye: Eye | None, source: str, origin: Origin, camera: Device | None = None
) -> FundusPhoto:
    """A photograph of checked bytes; without `camera`, EXIF's make and model are taken.

    Raises
    ------
    UnreadableInputError
        The bytes are no complete JPEG or PNG.
    """
    info = inspect_photo(data, source=source)
    return FundusPhoto(
        id=uuid.uuid4(),
        encoded=data,
        media_type=info.media_type,
        eye=eye,
        at=at,
        origin=origin,
        camera=camera or info.camera,
        source=source,
    )
