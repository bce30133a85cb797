"""Writing WFDB records (header(5) and signal(5) of the WFDB Applications Guide): `NAME.hea` and `NAME.dat`.

Format 16 where the counts fit, else 24, else 32. The lowest number of the format means "no sample", and stands where
samples are missing or an electrode had no contact.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aidpost.firmware_bridge.formats.write import cannot_hold, invalid_of, local_time, remarks_of, write_whole
from aidpost.records import EcgRecording

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def write_wfdb(recording: EcgRecording, path: Path) -> None:
    """Write the record whose header is `path`; the signal file comes first, so that a header never lacks it.

    Raises
    ------
    UnsupportedFormatError
        The name is none that WFDB allows, a lead's name has a line break, or a count is the lowest int32.
    StoreError
        The files cannot be written.
    """
    if not _NAME.fullmatch(path.stem):
        remedy = "Use letters, digits, - and _."
        raise cannot_hold(path, "WFDB", f"{path.stem!r} is no name of a record", remedy)
    if any(re.search(r"[\r\n]", lead) for lead in recording.leads):
        raise cannot_hold(path, "WFDB", "a lead's name has a line break", "Rename the lead.")
    invalid = invalid_of(recording)
    counts = np.where(invalid, 0, recording.samples)
    bits = next((n for n in (16, 24, 32) if _fits(counts, n)), None)
    if bits is None:
        raise cannot_hold(path, "WFDB", "a count is the number that means no sample", "Write EDF+ or DICOM.")
    marked = np.where(invalid, -(1 << (bits - 1)), counts).astype(np.int32)
    data = path.with_suffix(".dat")
    write_whole(data, lambda part: part.write_bytes(_pack(marked, bits)))
    write_whole(path, lambda part: part.write_text(_header(recording, path.stem, data.name, marked, bits), "ascii"))


def _fits(counts: npt.NDArray[np.int32], bits: int) -> bool:
    limit = 1 << (bits - 1)
    return bool(counts.min() > -limit and counts.max() < limit)


def _pack(counts: npt.NDArray[np.int32], bits: int) -> bytes:
    frames = np.ascontiguousarray(counts.T)
    if bits == 16:
        return frames.astype("<i2").tobytes()
    octets = frames.astype("<i4").view(np.uint8).reshape(-1, 4)
    return octets[:, : bits // 8].tobytes()


def _header(recording: EcgRecording, name: str, data: str, counts: npt.NDArray[np.int32], bits: int) -> str:
    leads, length = counts.shape
    at = local_time(recording.at)
    lines = [f"{name} {leads} {recording.fs_hz:.12g} {length} {at:%H:%M:%S} {at:%d/%m/%Y}"]
    for lead, label in enumerate(recording.leads):
        gain, baseline = 1 / recording.lsb_mv[lead], recording.baseline[lead]
        checksum = int(counts[lead].astype(np.int64).sum()) & 0xFFFF
        checksum -= 0x10000 if checksum >> 15 else 0
        text = label.encode("ascii", "replace").decode()
        lines.append(f"{data} {bits} {gain:.15g}({baseline})/mV {bits} 0 {counts[lead, 0]} {checksum} 0 {text}")
    # nobody's name: a WFDB header is read and passed on by everybody
    lines += [f"# {remark}" for remark in remarks_of(recording.origin, recording.at)]
    return "\n".join(lines) + "\n"
