"""The closed vocabularies of the records: each a set of words with one meaning, and the unit of each vital sign."""

from __future__ import annotations

import enum


class Origin(enum.Enum):
    """Where a value came from. What is not live is marked on screen, paper and wire."""

    LIVE = "live"
    FILE = "file"
    REPLAY = "replay"
    SIMULATED = "simulated"


class Eye(enum.Enum):
    """The patient's eye, not the reader's side of the picture."""

    LEFT = "left"
    RIGHT = "right"


class Sex(enum.Enum):
    """Administrative sex, as FHIR R4 has it."""

    FEMALE = "female"
    MALE = "male"
    OTHER = "other"
    UNKNOWN = "unknown"


class TriageLevel(enum.Enum):
    """How soon a person must act; ordered, `ROUTINE < SOON < URGENT < EMERGENCY`."""

    ROUTINE = "routine"
    SOON = "soon"
    URGENT = "urgent"
    EMERGENCY = "emergency"

    @property
    def rank(self) -> int:
        """0 for routine to 3 for emergency."""
        return list(TriageLevel).index(self)

    def __lt__(self, other: TriageLevel) -> bool:
        return self.rank < other.rank

    def __le__(self, other: TriageLevel) -> bool:
        return self.rank <= other.rank

    def __gt__(self, other: TriageLevel) -> bool:
        return self.rank > other.rank

    def __ge__(self, other: TriageLevel) -> bool:
        return self.rank >= other.rank


class VitalKind(enum.Enum):
    """What a vital sign is of. `VITAL_UNITS` gives the one UCUM unit each is stored in."""

    SYSTOLIC_BP = "systolic_bp"
    DIASTOLIC_BP = "diastolic_bp"
    MEAN_BP = "mean_bp"
    PULSE_RATE = "pulse_rate"
    HEART_RATE = "heart_rate"
    RESPIRATORY_RATE = "respiratory_rate"
    SPO2 = "spo2"
    PERFUSION_INDEX = "perfusion_index"
    TEMPERATURE = "temperature"
    GLUCOSE = "glucose"
    HBA1C = "hba1c"
    WEIGHT = "weight"
    HEIGHT = "height"
    BODY_FAT = "body_fat"
    PEAK_FLOW = "peak_flow"
    BATTERY = "battery"


VITAL_UNITS: dict[VitalKind, str] = {
    VitalKind.SYSTOLIC_BP: "mm[Hg]",
    VitalKind.DIASTOLIC_BP: "mm[Hg]",
    VitalKind.MEAN_BP: "mm[Hg]",
    VitalKind.PULSE_RATE: "/min",
    VitalKind.HEART_RATE: "/min",
    VitalKind.RESPIRATORY_RATE: "/min",
    VitalKind.SPO2: "%",
    VitalKind.PERFUSION_INDEX: "%",
    VitalKind.TEMPERATURE: "Cel",
    VitalKind.GLUCOSE: "mmol/L",
    VitalKind.HBA1C: "%",
    VitalKind.WEIGHT: "kg",
    VitalKind.HEIGHT: "cm",
    VitalKind.BODY_FAT: "%",
    VitalKind.PEAK_FLOW: "L/min",
    VitalKind.BATTERY: "%",
}


class AbsentReason(enum.Enum):
    """Why a measurement has no value; FHIR's data-absent-reason codes for the IEEE 11073 special values."""

    NOT_A_NUMBER = "not-a-number"
    POSITIVE_INFINITY = "positive-infinity"
    NEGATIVE_INFINITY = "negative-infinity"
    ERROR = "error"


class ConsentPurpose(enum.Enum):
    """What a patient agrees to; each purpose is asked for by itself."""

    SCREENING = "screening"
    SHARING = "sharing"
    RESEARCH = "research"
    MODEL_TRAINING = "model-training"


class ReviewDecision(enum.Enum):
    """What a clinician made of a preliminary result."""

    CONFIRMED = "confirmed"
    CORRECTED = "corrected"
    RETAKE = "retake"


class ReferralStatus(enum.Enum):
    """How a referral went on. It does not end at the printout."""

    DUE = "due"
    ATTENDED = "attended"
    UNREACHABLE = "unreachable"
    DECLINED = "declined"
    DIED = "died"
