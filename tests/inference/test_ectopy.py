"""Counts and runs of ectopic beats from their classes."""

from __future__ import annotations

import numpy as np
import pytest

from aidpost.inference._ectopy import measure_ectopy
from aidpost.inference._rules import rule_book
from aidpost.records import TriageLevel


def peaks_of(rr_s: list[float], fs_hz: float = 250.0) -> np.ndarray:
    return np.rint(np.concatenate(([0.4], 0.4 + np.cumsum(rr_s))) * fs_hz).astype(np.int64)


def test_without_classes_nothing_is_counted() -> None:
    assert measure_ectopy(peaks_of([0.8] * 9), "Q" * 10, 250.0, 8.0) is None
    assert measure_ectopy(np.zeros(0, np.int64), "", 250.0, 8.0) is None


def test_counts_are_per_hour_of_usable_signal_and_leave_out_unclassified_beats() -> None:
    found = measure_ectopy(peaks_of([0.8] * 9), "NVNNSNNQQV", 250.0, 72.0)
    assert found is not None
    assert found.ventricular_per_hour == pytest.approx(100.0)
    assert found.ventricular_fraction == pytest.approx(2 / 8)
    assert found.supraventricular_fraction == pytest.approx(1 / 8)
    assert found.longest_run == 1


def test_the_longest_run_is_fast_and_unbroken() -> None:
    rr = [0.8, 0.4, 0.4, 0.4, 0.8, 0.4, 0.9, 0.4]
    found = measure_ectopy(peaks_of(rr), "NVVVNVVVV", 250.0, 10.0)
    assert found is not None
    assert found.longest_run == 3
    assert found.longest_run_s == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("facts", "code", "severity"),
    [
        ({"vt_longest_beats": 3.0, "vt_longest_s": 0.8}, "ventricular-tachycardia-run", TriageLevel.URGENT),
        ({"vt_longest_beats": 80.0, "vt_longest_s": 31.0}, "ventricular-tachycardia-sustained", TriageLevel.EMERGENCY),
        ({"pvc_fraction": 0.1, "pvc_per_hour": 400.0}, "ventricular-ectopy-frequent", TriageLevel.SOON),
        ({"heart_rate_bpm": 150.0, "qrs_ms": 140.0}, "wide-complex-tachycardia", TriageLevel.EMERGENCY),
    ],
)
def test_runs_and_burden_become_findings(facts: dict[str, float], code: str, severity: TriageLevel) -> None:
    found = {one.rule.name: one.rule.severity for one in rule_book("ecg").conclusions(facts)}
    assert found[code] is severity


@pytest.mark.parametrize(
    "facts", [{"vt_longest_beats": 2.0, "vt_longest_s": 0.4}, {"pvc_fraction": 0.09}, {"heart_rate_bpm": 150.0}]
)
def test_below_the_limits_there_is_no_ventricular_finding(facts: dict[str, float]) -> None:
    names = {one.rule.name for one in rule_book("ecg").conclusions(facts)}
    assert not names & {"ventricular-tachycardia-run", "ventricular-ectopy-frequent", "wide-complex-tachycardia"}
