"""What was recorded, as it came: ECGs, photographs, vital signs, answers."""

from __future__ import annotations

import math
import uuid

import msgspec
import numpy as np
import numpy.typing as npt

from aidpost._people import Device, Timestamp
from aidpost._record import Record, Span, require, require_spans
from aidpost._terms import (
    VITAL_UNITS,
    AbsentReason,
    Eye,
    Origin,
    VitalKind,
)

Samples = npt.NDArray[np.int32]


class EcgRecording(Record, frozen=True, kw_only=True, eq=False):
    """An ECG as the converter gave it: integer counts, exact, with their scale.

    `samples` is int32 (leads, n), made read-only; millivolt of lead i are `(samples[i] - baseline[i]) * lsb_mv[i]`.
    `missing` are spans, the same for all leads, whose samples were never received (their counts mean nothing);
    `lead_off` are (lead, start, stop) where the electrode had no contact.
    """

    id: uuid.UUID
    samples: np.ndarray  # msgspec checks the class only; shape and dtype are checked below
    fs_hz: float
    leads: tuple[str, ...]
    lsb_mv: tuple[float, ...]
    baseline: tuple[int, ...]
    at: Timestamp
    origin: Origin
    device: Device
    missing: tuple[Span, ...] = ()
    lead_off: tuple[tuple[int, int, int], ...] = ()
    source: str = ""

    def _check(self) -> None:
        require(self.samples.dtype == np.int32 and self.samples.ndim == 2, self, "samples are not int32 (leads, n)")
        count, length = self.samples.shape
        require(count > 0 and len(set(self.leads)) == count, self, f"{len(self.leads)} lead names for {count} leads")
        require(len(self.lsb_mv) == count == len(self.baseline), self, "lsb_mv and baseline need one value a lead")
        require(math.isfinite(self.fs_hz) and self.fs_hz > 0, self, f"fs_hz is {self.fs_hz}")
        require(all(math.isfinite(v) and v != 0 for v in self.lsb_mv), self, "lsb_mv must be finite and not zero")
        require_spans(self, self.missing, length)
        for lead, start, stop in self.lead_off:
            require(0 <= lead < count and 0 <= start < stop <= length, self, f"lead_off {lead, start, stop} is outside")
        self.samples.flags.writeable = False

    def millivolts(self, lead: int) -> npt.NDArray[np.float64]:
        """One lead in millivolt, (n,) float64; NaN where samples are missing or the electrode was off."""
        out: npt.NDArray[np.float64] = (self.samples[lead].astype(np.float64) - self.baseline[lead]) * self.lsb_mv[lead]
        for start, stop in self.missing:
            out[start:stop] = np.nan
        for number, start, stop in self.lead_off:
            if number == lead:
                out[start:stop] = np.nan
        return out

    @property
    def duration_s(self) -> float:
        """Length in seconds, missing samples included."""
        return float(self.samples.shape[1] / self.fs_hz)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EcgRecording):
            return NotImplemented
        mine, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return np.array_equal(mine.pop("samples"), theirs.pop("samples")) and mine == theirs

    def __hash__(self) -> int:
        return hash(self.id)


class FundusPhoto(Record, frozen=True, kw_only=True):
    """A photograph of the retina: the bytes as the camera wrote them, never re-encoded. An unknown eye is None."""

    id: uuid.UUID
    encoded: bytes
    media_type: str
    eye: Eye | None
    at: Timestamp
    origin: Origin
    camera: Device
    source: str = ""

    def _check(self) -> None:
        require(len(self.encoded) > 0, self, "the photograph has no bytes")


class VitalSign(Record, frozen=True, kw_only=True):
    """One number from one measurement. `value` is in `VITAL_UNITS[kind]`; where the sensor gave none, it is None and
    `absent` says why. Values of one measurement (a cuff's systolic, diastolic and pulse) share a `group`.
    `status` keeps the device's own flags; `measured` the number and unit as the device sent them. `rr_ms` are the
    intervals between beats, in milliseconds and in their order, that a heart-rate sensor sent while it was measured;
    where a notification was lost, those of its beats are not among them."""

    id: uuid.UUID
    kind: VitalKind
    value: float | None
    unit: str
    at: Timestamp
    origin: Origin
    device: Device
    method: str = ""
    absent: AbsentReason | None = None
    status: tuple[str, ...] = ()
    group: uuid.UUID | None = None
    context: str = ""
    measured: str = ""
    device_time: str = ""
    source: str = ""
    rr_ms: tuple[float, ...] = ()

    def _check(self) -> None:
        require(self.unit == VITAL_UNITS[self.kind], self, f"{self.kind.value} is kept in {VITAL_UNITS[self.kind]}")
        require((self.value is None) == (self.absent is not None), self, "give a value, or say why there is none")
        require(self.value is None or math.isfinite(self.value), self, f"value is {self.value}: give `absent` instead")
        require(all(math.isfinite(one) and one >= 0 for one in self.rr_ms), self, "rr_ms are no durations")


class Answer(Record, frozen=True, kw_only=True):
    """What the patient or the worker answered. `question` is a stable code, `answer` a code or free text."""

    question: str
    answer: str
    at: Timestamp
