"""Writing recordings and photographs as files that other programs read: WFDB, EDF+, DICOM.

Nothing is rounded: counts go out as they are, with their scale, and what a form cannot hold is refused by name. What is
not live (replayed, simulated, from a file) is said in the file. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from aidpost.errors import StoreError, UnsupportedFormatError, UsageError
from aidpost.firmware_bridge.formats.wave import Mask
from aidpost.records import EcgRecording, FundusPhoto, Origin, Patient, Timestamp

INT16, INT24 = (-(1 << 15), (1 << 15) - 1), (-(1 << 23), (1 << 23) - 1)


def cannot_hold(path: Path, form: str, cause: str, remedy: str) -> UnsupportedFormatError:
    """The error for a recording that a form cannot hold exactly; the caller raises it."""
    return UnsupportedFormatError(operation=f"writing {form}", target=str(path), cause=cause, remedy=remedy)


def invalid_of(recording: EcgRecording) -> Mask:
    """Which samples mean nothing, bool (leads, n): missing in all leads, or without contact in one."""
    out = np.zeros(recording.samples.shape, bool)
    for start, stop in recording.missing:
        out[:, start:stop] = True
    for lead, start, stop in recording.lead_off:
        out[lead, start:stop] = True
    return out


def local_time(at: Timestamp) -> datetime:
    """The wall time, in the zone shown to people where that is known, else in UTC."""
    zone = timezone(timedelta(minutes=at.utc_offset_min or 0))
    return datetime.fromtimestamp(at.wall_ms / 1000, zone)


def remarks_of(origin: Origin, at: Timestamp) -> list[str]:
    """What whoever reads the file must know: that it is not live, or that the clock was not set."""
    out = [] if origin is Origin.LIVE else [f"origin {origin.value.upper()}"]
    return out if at.synced else [*out, "clock not confirmed"]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, and give it that name once it is on the disk.

    Raises
    ------
    StoreError
        The disk is full, or the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StoreError(
            operation="writing a file",
            target=str(path),
            cause=error.strerror or str(error),
            remedy="Choose a folder that can be written and has space.",
        ) from error
    finally:
        part.unlink(missing_ok=True)


def write_ecg(recording: EcgRecording, path: Path, patient: Patient | None = None) -> None:
    """Write the recording in the form that the name ends in: `.hea` (WFDB), `.edf` (EDF+) or `.dcm` (DICOM).

    Parameters
    ----------
    patient
        Named in EDF+ and DICOM; without one the file names nobody. WFDB never does.

    Raises
    ------
    UsageError
        The ending is another.
    UnsupportedFormatError
        The form cannot hold the recording exactly, or needs a package that is not installed.
    StoreError
        The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".hea":
        from aidpost.firmware_bridge.formats.wfdb_write import write_wfdb

        write_wfdb(recording, path)
    elif suffix == ".edf":
        from aidpost.firmware_bridge.formats.edf_write import write_edf

        write_edf(recording, path, patient)
    elif suffix in {".dcm", ".dicom"}:
        from aidpost.firmware_bridge.formats.dicom_write import write_dicom_ecg

        write_dicom_ecg(recording, path, patient)
    else:
        raise _no_form(path, ".hea (WFDB), .edf (EDF+) or .dcm (DICOM)")


def write_photo(photo: FundusPhoto, path: Path, patient: Patient | None = None) -> None:
    """Write a photograph: `.dcm` as DICOM Ophthalmic Photography, `.jpg` or `.png` as the camera's own bytes.

    Raises
    ------
    UsageError
        The ending is another than the photograph's, or DICOM is asked for and the eye is not known.
    UnsupportedFormatError
        pydicom is not installed.
    StoreError
        The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix in {".dcm", ".dicom"}:
        from aidpost.firmware_bridge.formats.dicom_write import write_dicom_photo

        write_dicom_photo(photo, path, patient)
        return
    own = {"image/jpeg": {".jpg", ".jpeg"}, "image/png": {".png"}}.get(photo.media_type, set())
    if suffix not in own:
        raise _no_form(path, f".dcm, or {' or '.join(sorted(own))} for this photograph")
    write_whole(path, lambda part: part.write_bytes(photo.encoded))


def _no_form(path: Path, known: str) -> UsageError:
    return UsageError(
        operation="writing a file", target=str(path), cause="its name does not say a form", remedy=f"End it in {known}."
    )
