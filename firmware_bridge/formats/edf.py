"""EDF and EDF+ recordings, through edfio. Of annotations only those count with which `edf_write` marks what is missing
and which electrode was off; a discontinuous EDF+ is refused, because edfio would join what was not recorded in one
go."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aidpost.errors import AidpostError, UnsupportedFormatError
from aidpost.firmware_bridge.formats.wave import MILLIVOLT, Mask, Wave, is_ecg_label, unique_names, unreadable
from aidpost.records import Device

if TYPE_CHECKING:
    import edfio

MISSING, LEAD_OFF = "missing", "lead off"
"""What annotations say of spans without samples: of all leads, and (with its name) of one."""


def missing_extra(path: Path, package: str) -> UnsupportedFormatError:
    """The error for a format whose reader is not installed, for the caller to raise."""
    return UnsupportedFormatError(
        operation="reading the recording",
        target=str(path),
        cause=f"this format needs the package {package}, which is not installed",
        remedy="Install the extra: pip install 'aidpost[formats]'.",
    )


def read_edf(path: Path) -> Wave:
    """The ECG signals of an EDF or EDF+ file; where they have different rates, those of the highest rate.

    The offset of EDF's scale (physical minimum to maximum) is rounded to whole counts: at most half a step.

    Raises
    ------
    UnreadableInputError
        It is damaged, or no signal is an ECG in a unit of voltage.
    UnsupportedFormatError
        A discontinuous EDF+ (EDF+D), or edfio is not installed.
    """
    try:
        import edfio
    except ImportError:
        raise missing_extra(path, "edfio") from None
    with path.open("rb") as file:
        head = file.read(256)
    if head[192:197] == b"EDF+D":
        raise UnsupportedFormatError(
            operation="reading the recording",
            target=str(path),
            cause="it is a discontinuous EDF+ (EDF+D)",
            remedy="Save its parts as continuous files.",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # a file that is cut off is refused like any other, not read in part with a warning
            warnings.filterwarnings("error", message=r"Incomplete data record|EDF header indicates")
            edf: Any = edfio.read_edf(path)
        signals = list(edf.signals)
        chosen = _choose(path, signals)
        return _to_wave(path, edf, chosen)
    except AidpostError:
        raise
    except Exception as error:
        raise unreadable(path, f"its EDF data is damaged ({error})") from error


def _choose(path: Path, signals: list[edfio.EdfSignal]) -> list[edfio.EdfSignal]:
    usable = [s for s in signals if s.physical_dimension.lower() in MILLIVOLT and is_ecg_label(s.label)]
    named = [s for s in usable if "ecg" in s.label.lower() or "ekg" in s.label.lower()]
    chosen = named or usable
    if not chosen:
        labels = ", ".join(f"{s.label} in {s.physical_dimension or 'no unit'}" for s in signals) or "no signal"
        raise unreadable(path, f"no signal is an ECG ({labels})", "Give a recording that holds an ECG.")
    fastest = max(s.sampling_frequency for s in chosen)
    return [s for s in chosen if s.sampling_frequency == fastest]


def _to_wave(path: Path, edf: Any, signals: list[edfio.EdfSignal]) -> Wave:
    lsb_mv, baseline = [], []
    for signal in signals:
        steps = signal.digital_max - signal.digital_min
        lsb = (signal.physical_max - signal.physical_min) / steps
        if lsb == 0:
            raise unreadable(path, f"signal {signal.label} has no scale")
        lsb_mv.append(lsb * MILLIVOLT[signal.physical_dimension.lower()])
        baseline.append(round(signal.digital_min - signal.physical_min / lsb))
    counts = np.stack([np.asarray(s.digital, dtype=np.int32) for s in signals])
    fs_hz = float(signals[0].sampling_frequency)
    names = unique_names([_lead_name(s.label) for s in signals])
    invalid = _marked(edf, names, fs_hz, counts.shape[1])
    if invalid is not None:
        # what is missing up to the end of the file is the padding of its last data record, or was never recorded
        kept = int(np.flatnonzero(~invalid.all(axis=0))[-1]) + 1 if not invalid.all() else counts.shape[1]
        counts, invalid = counts[:, :kept], invalid[:, :kept]
    return Wave(
        counts=counts,
        fs_hz=fs_hz,
        names=names,
        lsb_mv=tuple(lsb_mv),
        baseline=tuple(baseline),
        invalid=invalid,
        device=_equipment(edf),
    )


def _marked(edf: Any, names: tuple[str, ...], fs_hz: float, length: int) -> Mask | None:
    """The samples that annotations call missing or off, (signals, n); None where there are none."""
    invalid = np.zeros((len(names), length), bool)
    for note in edf.annotations:
        start, stop = round(note.onset * fs_hz), round((note.onset + (note.duration or 0)) * fs_hz)
        if note.text == MISSING:
            invalid[:, max(0, start) : stop] = True
        elif note.text.startswith(f"{LEAD_OFF} ") and note.text[len(LEAD_OFF) + 1 :] in names:
            invalid[names.index(note.text[len(LEAD_OFF) + 1 :]), max(0, start) : stop] = True
    return invalid if invalid.any() else None


def _lead_name(label: str) -> str:
    # EDF+ 2.1.3: labels are "type sensor", such as "ECG V2"
    kind, _, sensor = label.partition(" ")
    return sensor if kind.upper() in {"ECG", "EKG"} and sensor else label


def _equipment(edf: Any) -> Device:
    try:
        name = str(edf.recording.equipment_code)
    except (ValueError, IndexError):  # plain EDF: free text, not the subfields of EDF+
        name = ""
    return Device(name=name if name not in {"", "X"} else "file")
