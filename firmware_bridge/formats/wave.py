"""What every reader of waveform files gives, and how it becomes an `EcgRecording`."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aidpost.errors import AidpostError, UnreadableInputError
from aidpost.records import Device, EcgRecording, Origin, Span, Timestamp

Counts = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

MILLIVOLT = {"mv": 1.0, "millivolt": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "microvolt": 1e-3, "v": 1e3, "nv": 1e-6}
"""Units of voltage, in lower case, and how many millivolt each is."""

_OTHER_SIGNAL = re.compile(
    r"\b(eeg|eog|emg|resp|abd|chest|airflow|flow|pleth|ppg|spo2|sao2|abp|art|cvp|pap|bp|temp|bcg|gsr|eda|scg)", re.I
)


@dataclass(frozen=True)
class Wave:
    """Signals as a file holds them: counts int32 (signals, n), all at one rate, millivolt being
    `(counts - baseline) * lsb_mv`; `invalid` is bool (signals, n) where the file says "no sample", or None."""

    counts: Counts
    fs_hz: float
    names: tuple[str, ...]
    lsb_mv: tuple[float, ...]
    baseline: tuple[int, ...]
    invalid: Mask | None = None
    device: Device = field(default_factory=lambda: Device(name="file"))


def unreadable(target: object, cause: str, remedy: str = "") -> UnreadableInputError:
    """The error for a recording that cannot be read, for the caller to raise."""
    remedy = remedy or "Copy the file again from where it came, or leave it out."
    return UnreadableInputError(operation="reading the recording", target=str(target), cause=cause, remedy=remedy)


def is_ecg_label(label: str) -> bool:
    """Whether a voltage signal of that label may be an ECG: another kind of signal is named as such."""
    return re.search(r"ecg|ekg", label, re.I) is not None or _OTHER_SIGNAL.search(label) is None


def unique_names(names: list[str]) -> tuple[str, ...]:
    """The names, numbered where the file repeats or leaves out one."""
    out: list[str] = []
    for number, name in enumerate(names, 1):
        base = name.strip() or f"lead {number}"
        out.append(base if base not in out else f"{base} ({number})")
    return tuple(out)


def spans(mask: Mask) -> tuple[Span, ...]:
    """The half-open runs where a bool array (n,) is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return tuple((int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True))


def _gaps(path: Path, invalid: Mask) -> tuple[tuple[Span, ...], tuple[tuple[int, int, int], ...]]:
    """What is missing in all leads, and what in single ones (lead, start, stop)."""
    if invalid.all():
        raise unreadable(path, "it holds no valid sample")
    everywhere: Mask = np.logical_and.reduce(invalid, axis=0)
    single = ((lead, *span) for lead, mask in enumerate(invalid) for span in spans(mask & ~everywhere))
    return spans(everywhere), tuple(single)


def to_recording(wave: Wave, *, path: Path, source: str, at: Timestamp, seconds: float | None = None) -> EcgRecording:
    """The recording, or its first `seconds`. What no lead has is `missing`; what one lead lacks is its `lead_off`.

    Raises
    ------
    UnreadableInputError
        It has no sample, or none that the file calls valid.
    """
    length = wave.counts.shape[1]
    if seconds is not None:
        length = min(length, max(1, round(seconds * wave.fs_hz)))
    if length == 0:
        raise unreadable(path, "it holds no sample")
    counts = wave.counts[:, :length]
    missing, lead_off = _gaps(path, wave.invalid[:, :length]) if wave.invalid is not None else ((), ())
    try:
        return EcgRecording(
            id=uuid.uuid4(),
            samples=np.ascontiguousarray(counts),
            fs_hz=wave.fs_hz,
            leads=wave.names,
            lsb_mv=wave.lsb_mv,
            baseline=wave.baseline,
            at=at,
            origin=Origin.FILE,
            device=wave.device,
            missing=missing,
            lead_off=lead_off,
            source=source,
        )
    except AidpostError as error:  # a header whose numbers make no recording: name the file, not the record's field
        raise unreadable(path, error.cause) from error
