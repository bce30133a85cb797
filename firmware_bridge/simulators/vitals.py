"""Vital signs of patients who do not exist: plausible together, the same for the same seed."""

from __future__ import annotations

import numpy as np

from aidpost.records import VitalKind

PROFILES = ("healthy", "hypertensive", "diabetic", "septic", "desaturating")

# mean and standard deviation in the unit of `VITAL_UNITS`
_HEALTHY = {
    VitalKind.SYSTOLIC_BP: (118.0, 8.0),
    VitalKind.DIASTOLIC_BP: (76.0, 5.0),
    VitalKind.PULSE_RATE: (72.0, 7.0),
    VitalKind.RESPIRATORY_RATE: (15.0, 1.5),
    VitalKind.SPO2: (97.5, 0.8),
    VitalKind.TEMPERATURE: (36.8, 0.2),
    VitalKind.GLUCOSE: (5.4, 0.4),
    VitalKind.WEIGHT: (66.0, 10.0),
    VitalKind.HEIGHT: (166.0, 8.0),
}
_SHIFT: dict[str, dict[VitalKind, float]] = {
    "healthy": {},
    "desaturating": {},
    "hypertensive": {VitalKind.SYSTOLIC_BP: 52, VitalKind.DIASTOLIC_BP: 24, VitalKind.WEIGHT: 14},
    "diabetic": {VitalKind.SYSTOLIC_BP: 18, VitalKind.GLUCOSE: 8.2, VitalKind.WEIGHT: 16},
    "septic": {
        VitalKind.SYSTOLIC_BP: -28,
        VitalKind.DIASTOLIC_BP: -20,
        VitalKind.PULSE_RATE: 44,
        VitalKind.RESPIRATORY_RATE: 11,
        VitalKind.SPO2: -6,
        VitalKind.TEMPERATURE: 2.3,
    },
}
_DECIMALS = {VitalKind.TEMPERATURE: 1, VitalKind.GLUCOSE: 1, VitalKind.WEIGHT: 1}


_FALL = 14
"""Readings after which a patient of the profile "desaturating" is at the worst; as many later they are well again."""


def simulate_vitals(profile: str = "healthy", *, seed: int = 1, reading: int = 0) -> dict[VitalKind, float]:
    """One value a kind, rounded as a device shows it.

    Of the profile "desaturating" oxygen falls by 1 % and the pulse rises by 3/min from one `reading` to the next, and
    comes back after that; the others stay as they are.

    Raises
    ------
    ValueError
        `profile` is not one of `PROFILES`.
    """
    if profile not in PROFILES:
        raise ValueError(f"no profile {profile!r}")
    rng = np.random.default_rng(seed)
    worse = max(0, _FALL - abs(reading % (3 * _FALL) - _FALL)) if profile == "desaturating" else 0
    shift = _SHIFT[profile] if not worse else {VitalKind.SPO2: -worse, VitalKind.PULSE_RATE: 3 * worse}
    out = {}
    for kind, (mean, spread) in _HEALTHY.items():
        value = mean + shift.get(kind, 0.0) + spread * float(np.clip(rng.standard_normal(), -2, 2))
        out[kind] = round(min(value, 100.0) if kind is VitalKind.SPO2 else value, _DECIMALS.get(kind, 0))
    return out
