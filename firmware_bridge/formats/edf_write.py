"""Writing EDF+ (continuous), through edfio.

EDF has 16 bits a sample and eight characters for the ends of its scale, so a lead's scale is exact to about 1 in 10^6.
A lead whose counts span more than 16 bits is refused. EDF has no sign for "no sample": the annotations "missing" and
"lead off NAME" mark such spans, and the padding of the last data record; `edf.read_edf` knows them.
"""

from __future__ import annotations

import math
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aidpost.firmware_bridge.formats.edf import LEAD_OFF, MISSING, missing_extra
from aidpost.firmware_bridge.formats.write import cannot_hold, invalid_of, local_time, remarks_of, write_whole
from aidpost.records import EcgRecording, Patient, Sex

if TYPE_CHECKING:
    import edfio

_SPAN = (1 << 16) - 1
_SEX = {Sex.FEMALE: "F", Sex.MALE: "M"}


def write_edf(recording: EcgRecording, path: Path, patient: Patient | None = None) -> None:
    """Write the recording.

    Raises
    ------
    UnsupportedFormatError
        A lead spans more than 16 bits, or edfio is not installed.
    StoreError
        The file cannot be written.
    """
    try:
        import edfio
    except ImportError:
        raise missing_extra(path, "edfio") from None
    per_record, records = _records(recording)
    invalid = invalid_of(recording)
    signals = [_signal(path, recording, lead, invalid[lead], per_record * records) for lead in range(len(invalid))]
    at = local_time(recording.at)
    # a clock that was never set says 1970, which EDF cannot: the day is then unknown (EDF+ 2.1.3.3.6, "X")
    day = at.date() if 1985 <= at.year <= 2084 else None
    made = edfio.Edf(
        signals,
        patient=_patient(patient),
        recording=edfio.Recording(
            startdate=day,
            equipment_code=_word(recording.device.name),
            additional=[_word(remark) for remark in remarks_of(recording.origin, recording.at)],
        ),
        starttime=at.time().replace(tzinfo=None),
        data_record_duration=per_record / recording.fs_hz,
        annotations=_annotations(recording, per_record * records),
    )
    write_whole(path, lambda part: made.write(part))


def _records(recording: EcgRecording) -> tuple[int, int]:
    """Samples in a data record, and how many records: a second each, or more where a second is no whole number."""
    fs_hz = recording.fs_hz
    whole = next((n for n in range(1, 61) if abs(n * fs_hz - round(n * fs_hz)) < 1e-9), 1)
    per_record = max(1, round(whole * fs_hz))
    return per_record, math.ceil(recording.samples.shape[1] / per_record)


def _signal(path: Path, recording: EcgRecording, lead: int, invalid: npt.NDArray[Any], length: int) -> edfio.EdfSignal:
    import edfio

    counts = recording.samples[lead].astype(np.int64)
    valid = counts[~invalid]
    low, high = (int(valid.min()), int(valid.max())) if len(valid) else (0, 0)
    if high - low > _SPAN:
        cause = f"lead {recording.leads[lead]} spans {high - low} counts, more than 16 bits hold"
        raise cannot_hold(path, "EDF+", cause, "Write WFDB or DICOM, which hold 24 and 32 bits.")
    # counts that do not lie within 16 bits are moved as a whole: the scale takes the offset
    offset = 0 if low >= -(1 << 15) and high < 1 << 15 else (low + high + 1) // 2
    digital = np.zeros(length, np.int16)
    digital[: len(counts)] = np.where(invalid, 0, counts - offset)
    bounds = np.array([-(1 << 15), (1 << 15) - 1])
    ends = (bounds + offset - recording.baseline[lead]) * recording.lsb_mv[lead] * 1000
    return edfio.EdfSignal.from_digital(
        digital,
        recording.fs_hz,
        label=f"ECG {_word(recording.leads[lead], '_')}"[:16],
        physical_dimension="uV",
        physical_range=(_eight(ends[0]), _eight(ends[1])),
        digital_range=(int(bounds[0]), int(bounds[1])),
    )


def _eight(value: float) -> float:
    """The number as eight characters can say it."""
    for digits in range(7, -1, -1):
        text = f"{value:.{digits}f}"
        if len(text) <= 8:
            return float(text)
    return float(f"{value:.1e}")


def _annotations(recording: EcgRecording, padded: int) -> list[edfio.EdfAnnotation]:
    import edfio

    length, fs_hz = recording.samples.shape[1], recording.fs_hz
    spans = [*recording.missing, *([(length, padded)] if padded > length else [])]
    out = [edfio.EdfAnnotation(start / fs_hz, (stop - start) / fs_hz, MISSING) for start, stop in spans]
    for lead, start, stop in recording.lead_off:
        text = f"{LEAD_OFF} {_word(recording.leads[lead], '_')}"
        out.append(edfio.EdfAnnotation(start / fs_hz, (stop - start) / fs_hz, text))
    return out


def _patient(patient: Patient | None) -> edfio.Patient:
    import edfio

    if patient is None:
        return edfio.Patient()
    born = patient.birth_date or ""
    return edfio.Patient(
        code=patient.id.hex,
        sex=_SEX.get(patient.sex, "X"),  # type: ignore[arg-type]
        birthdate=date.fromisoformat(born) if len(born) == 10 else None,
        name=_word(patient.name) or "X",
    )


def _word(text: str, space: str = "_") -> str:
    """Text for a subfield of EDF+: printable ASCII, without spaces (EDF+ 2.1.3.3)."""
    return re.sub(r"[^\x21-\x7e]+", space, text.encode("ascii", "replace").decode()).strip(space) or "X"
