"""DICOM: ECG waveform objects (PS3.3 A.34) and photographs of the eye, through pydicom.

A photograph that DICOM carries as baseline JPEG is taken out byte for byte. One that it carries as plain pixels is
packed as PNG, which loses nothing. Other transfer syntaxes are refused rather than decoded and encoded again.
"""

from __future__ import annotations

import re
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from aidpost.errors import AidpostError, UnreadableInputError, UnsupportedFormatError
from aidpost.firmware_bridge.formats.edf import missing_extra
from aidpost.firmware_bridge.formats.photograph import MAX_PIXELS
from aidpost.firmware_bridge.formats.wave import MILLIVOLT, Wave, unique_names, unreadable
from aidpost.records import Device, Eye

JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
_PLAIN = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
# PS3.16 CID 3001 in MDC codes: 2:1 is lead I
_MDC_LEADS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"} | {n + 2: f"V{n}" for n in range(1, 7)}
# what pydicom raises on damaged bytes is not documented, and is nearly anything
_DAMAGED = Exception


def _read(path: Path, what: str, *, pixels: bool) -> Any:
    try:
        import pydicom
    except ImportError:
        raise missing_extra(path, "pydicom") from None
    try:
        with warnings.catch_warnings():  # pydicom warns of values that break a rule which does not matter here
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except _DAMAGED as error:
        raise UnreadableInputError(
            operation=f"reading the {what}", target=str(path), cause=f"its DICOM data is damaged ({error})"
        ) from error


def dicom_holds(path: Path) -> str:
    """What a DICOM file is: "ecg", "fundus", or the name of its SOP class.

    Raises
    ------
    UnreadableInputError
        It is damaged, or pydicom is not installed (then its subclass `UnsupportedFormatError`).
    """
    data = _read(path, "DICOM file", pixels=False)
    if "WaveformSequence" in data:
        return "ecg"
    if "Rows" in data and str(data.get("Modality", "")) in {"OP", "XC", "OT", "SC", "OPT", ""}:
        return "fundus"
    return str(getattr(data.get("SOPClassUID", ""), "name", "")) or "DICOM without a SOP class"


def read_dicom_ecg(path: Path) -> Wave:
    """The first original multiplex group of an ECG waveform object (a later one holds averaged beats).

    Raises
    ------
    UnreadableInputError
        It is damaged, holds no waveform, or no channel has a unit of voltage.
    UnsupportedFormatError
        pydicom is not installed, or the samples have a form that it cannot read.
    """
    data = _read(path, "recording", pixels=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _first_group(path, data)
    except AidpostError:
        raise
    except _DAMAGED as error:
        raise unreadable(path, f"its DICOM waveform is damaged ({error})") from error


def _first_group(path: Path, data: Any) -> Wave:
    groups = list(data.get("WaveformSequence", []))
    index = next((n for n, g in enumerate(groups) if g.get("WaveformOriginality", "ORIGINAL") == "ORIGINAL"), None)
    if index is None:
        raise unreadable(path, "this DICOM file holds no recorded waveform", "Give the ECG object.")
    group = groups[index]
    raw = _raw_samples(data, index)
    chosen, lsb_mv, baseline, names = [], [], [], []
    for number, channel in enumerate(group.ChannelDefinitionSequence):
        units = channel.get("ChannelSensitivityUnitsSequence")
        scale = MILLIVOLT.get(str(units[0].CodeValue).lower()) if units else None
        if scale is None:
            continue
        step = float(channel.ChannelSensitivity) * float(channel.get("ChannelSensitivityCorrectionFactor", 1) or 1)
        chosen.append(number)
        lsb_mv.append(step * scale)
        # PS3.3 C.10.9.1.4.4: the baseline is what a count of 0 stands for, in the sensitivity's unit
        baseline.append(round(-float(channel.get("ChannelBaseline", 0) or 0) / step))
        names.append(_lead_name(channel))
    if not chosen:
        raise unreadable(path, "no channel of its waveform has a unit of voltage", "Give the ECG object.")
    counts = np.ascontiguousarray(raw[:, chosen].T, dtype=np.int32)
    padding = _padding(group)
    return Wave(
        counts=counts,
        invalid=counts == padding if padding is not None and (counts == padding).any() else None,
        fs_hz=float(group.SamplingFrequency),
        names=unique_names(names),
        lsb_mv=tuple(lsb_mv),
        baseline=tuple(baseline),
        device=_equipment(data, "electrocardiograph"),
    )


def _padding(group: Any) -> int | None:
    """The count that means "no sample" (Waveform Padding Value, PS3.3 C.10.9.1), where the file has one."""
    value = group.get("WaveformPaddingValue")
    if not isinstance(value, bytes) or not value:
        return None if value is None or isinstance(value, bytes) else int(value)
    return int.from_bytes(value[: int(group.WaveformBitsAllocated) // 8], "little", signed=True)


def _raw_samples(data: Any, index: int) -> Any:
    from pydicom.waveforms.numpy_handler import multiplex_array

    return multiplex_array(data, index, as_raw=True)


def _lead_name(channel: Any) -> str:
    source = channel.ChannelSourceSequence[0]
    code = re.fullmatch(r"(?:MDC_ECG_LEAD_|2:)(\w+)", str(source.get("CodeValue", "")))
    if code is not None and code[1].isdigit() and int(code[1]) in _MDC_LEADS:
        return _MDC_LEADS[int(code[1])]
    meaning = str(source.get("CodeMeaning", "")) or str(channel.get("ChannelLabel", ""))
    return re.sub(r"(?i)^lead\s+|\s*\(.*\)$", "", meaning)


def _equipment(data: Any, name: str) -> Device:
    maker, model = str(data.get("Manufacturer", "") or ""), str(data.get("ManufacturerModelName", "") or "")
    return Device(
        name=model or maker or name,
        manufacturer=maker,
        model=model,
        serial=str(data.get("DeviceSerialNumber", "") or ""),
    )


def read_dicom_photo(path: Path) -> tuple[bytes, str, Eye | None, Device]:
    """The photograph's bytes, media type, eye (None where the tags do not say) and camera.

    Raises
    ------
    UnreadableInputError
        It is damaged, has no picture, or several frames.
    UnsupportedFormatError
        pydicom is not installed, or the pixels are neither baseline JPEG nor plain.
    """
    data = _read(path, "photograph", pixels=True)
    try:
        rows, columns = int(data.Rows), int(data.Columns)
        if rows * columns > MAX_PIXELS or "PixelData" not in data:
            raise _bad_photo(path, f"it holds no picture of a possible size ({columns} x {rows})")
        if int(data.get("NumberOfFrames", 1) or 1) != 1:
            raise _bad_photo(path, f"it holds {data.NumberOfFrames} frames", "Give the frames as single photographs.")
        encoded, kind = _encoded(path, data)
        return encoded, kind, _eye(data), _equipment(data, "camera")
    except AidpostError:
        raise
    except _DAMAGED as error:
        raise _bad_photo(path, f"its DICOM data is damaged ({error})") from error


def photo_taken_at(path: Path) -> datetime | None:
    """When a photograph says that it was taken: Acquisition DateTime (0008,002A), else Content or Acquisition Date and
    Time. Without a time zone where the object has none; None where it does not say.

    Raises
    ------
    UnreadableInputError
        It is damaged.
    """
    data = _read(path, "photograph", pixels=False)
    for text in (
        str(data.get("AcquisitionDateTime", "") or ""),
        f"{data.get('ContentDate', '') or ''}{data.get('ContentTime', '') or ''}",
        f"{data.get('AcquisitionDate', '') or ''}{data.get('AcquisitionTime', '') or ''}",
    ):
        found = re.fullmatch(r"(\d{14})(?:\.\d{1,6})?([+-]\d{4})?", text.strip())
        offset = (found[2] if found else None) or str(data.get("TimezoneOffsetFromUTC", "") or "").strip()
        if found is not None:
            zoned = re.fullmatch(r"[+-]\d{4}", offset) is not None
            try:
                return datetime.strptime(found[1] + (offset if zoned else ""), "%Y%m%d%H%M%S" + ("%z" if zoned else ""))
            except ValueError:
                continue
    return None


def _bad_photo(path: Path, cause: str, remedy: str = "Export the photograph again.") -> UnreadableInputError:
    return UnreadableInputError(operation="reading the photograph", target=str(path), cause=cause, remedy=remedy)


def _encoded(path: Path, data: Any) -> tuple[bytes, str]:
    syntax = str(data.file_meta.TransferSyntaxUID)
    if syntax in {JPEG_BASELINE, JPEG_EXTENDED} and int(data.BitsStored) == 8:
        from pydicom.encaps import get_frame

        frame = get_frame(data.PixelData, 0, number_of_frames=1)
        return frame[: frame.rfind(b"\xff\xd9") + 2], "image/jpeg"  # without the pad byte that makes the length even
    photometric = str(data.PhotometricInterpretation)
    if (
        syntax in _PLAIN
        and int(data.BitsAllocated) == 8
        and photometric in {"RGB", "MONOCHROME2", "YBR_FULL_422", "YBR_FULL"}
    ):
        import cv2
        from pydicom.pixels.utils import pixel_array

        pixels = pixel_array(data)  # YBR becomes RGB
        image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
        return cv2.imencode(".png", image)[1].tobytes(), "image/png"
    raise UnsupportedFormatError(
        operation="reading the photograph",
        target=str(path),
        cause=f"its pixels are {photometric} in transfer syntax {data.file_meta.TransferSyntaxUID.name}",
        remedy="Export it as JPEG, or as DICOM with JPEG baseline.",
    )


def _eye(data: Any) -> Eye | None:
    """Image Laterality (0020,0062), then Laterality (0020,0060), then plain words, unless they contradict."""
    for tag in ("ImageLaterality", "Laterality"):
        side = str(data.get(tag, "") or "")
        if side in {"L", "R"}:
            return Eye.LEFT if side == "L" else Eye.RIGHT
        if side == "B":
            return None
    words = f"{data.get('SeriesDescription', '')} {data.get('ImageComments', '')}".lower()
    left = re.search(r"\b(os|left eye)\b", words) is not None
    right = re.search(r"\b(od|right eye)\b", words) is not None
    return None if left == right else Eye.LEFT if left else Eye.RIGHT
