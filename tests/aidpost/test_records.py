"""The values: frozen, validated when made, equal when equal, the same after the wire."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost import records
from aidpost.errors import InvalidRecordError

NOW = records.Timestamp(wall_ms=1_700_000_000_000, monotonic_ms=5_000, boot=3, synced=True)
SIM = records.Device(name="simulator")


def ecg(**changes: Any) -> records.EcgRecording:
    fields: dict[str, Any] = {
        "id": uuid.UUID(int=1),
        "samples": np.arange(20, dtype=np.int32).reshape(2, 10),
        "fs_hz": 250.0,
        "leads": ("I", "II"),
        "lsb_mv": (0.005, 0.005),
        "baseline": (0, 4),
        "at": NOW,
        "origin": records.Origin.SIMULATED,
        "device": SIM,
    }
    return records.EcgRecording(**{**fields, **changes})


def vital(**changes: Any) -> records.VitalSign:
    fields: dict[str, Any] = {
        "id": uuid.UUID(int=2),
        "kind": records.VitalKind.SPO2,
        "value": 97.0,
        "unit": "%",
        "at": NOW,
        "origin": records.Origin.LIVE,
        "device": SIM,
    }
    return records.VitalSign(**{**fields, **changes})


def report() -> records.ExamReport:
    exam = records.Exam(
        id=uuid.UUID(int=3),
        patient=uuid.UUID(int=4),
        device=SIM,
        clinic=records.Clinic(id="c"),
        operator=records.Operator(id="o"),
        started=NOW,
    )
    return records.ExamReport(
        id=uuid.UUID(int=5),
        exam=exam,
        patient=records.Patient(id=uuid.UUID(int=4), name="Ana", birth_date="1961-05"),
        triage=records.Triage(level=records.TriageLevel.SOON, reasons=("grade 2",)),
        vitals=(vital(), vital(value=None, absent=records.AbsentReason.NOT_A_NUMBER)),
        origin=records.Origin.SIMULATED,
    )


def test_counts_become_millivolts_and_gaps_become_nan() -> None:
    recording = ecg(missing=((2, 4),), lead_off=((1, 8, 10),))
    assert recording.millivolts(0)[1] == pytest.approx(0.005)
    assert recording.millivolts(1)[0] == pytest.approx((10 - 4) * 0.005)
    assert np.isnan(recording.millivolts(0)).nonzero()[0].tolist() == [2, 3]
    assert np.isnan(recording.millivolts(1)).nonzero()[0].tolist() == [2, 3, 8, 9]


def test_samples_are_read_only_and_equality_is_defined() -> None:
    recording = ecg()
    with pytest.raises(ValueError, match="read-only"):
        recording.samples[0, 0] = 1
    assert recording == ecg()
    assert recording != ecg(samples=np.zeros((2, 10), np.int32))
    assert recording != ecg(fs_hz=500.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": np.zeros((2, 10))},
        {"samples": np.zeros(10, np.int32)},
        {"leads": ("I", "I")},
        {"leads": ("I",)},
        {"fs_hz": 0.0},
        {"fs_hz": float("nan")},
        {"lsb_mv": (0.005, 0.0)},
        {"missing": ((4, 2),)},
        {"missing": ((0, 5), (3, 7))},
        {"missing": ((0, 11),)},
        {"lead_off": ((2, 0, 1),)},
        {"origin": "live"},
    ],
)
def test_wrong_recording_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError):
        ecg(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": "mmHg"},
        {"value": None},
        {"value": float("nan")},
        {"value": 97.0, "absent": records.AbsentReason.ERROR},
        {"kind": "spo2"},
        {"id": "not a uuid"},
    ],
)
def test_vital_sign_has_a_value_or_a_reason_in_its_own_unit(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError):
        vital(**changes)


def test_triage_is_ordered_and_lowered_only_with_a_reason() -> None:
    levels = list(records.TriageLevel)
    assert sorted([levels[2], levels[0], levels[3], levels[1]]) == levels
    assert max(levels) is records.TriageLevel.EMERGENCY
    with pytest.raises(InvalidRecordError, match="reason"):
        records.Triage(level=records.TriageLevel.ROUTINE, computed=records.TriageLevel.URGENT, changed_by="w")
    lowered = records.Triage(
        level=records.TriageLevel.ROUTINE,
        computed=records.TriageLevel.URGENT,
        changed_by="w",
        changed_because="known AF",
    )
    assert lowered.computed is records.TriageLevel.URGENT


@pytest.mark.parametrize("date", ["1961", "1961-05", "1961-05-03", None])
def test_birth_date_is_as_exact_as_is_known(date: str | None) -> None:
    assert records.Patient(id=uuid.UUID(int=1), birth_date=date).birth_date == date


@pytest.mark.parametrize("date", ["61", "1961-13", "1961-05-32", "03/05/1961", ""])
def test_other_birth_dates_are_refused(date: str) -> None:
    with pytest.raises(InvalidRecordError):
        records.Patient(id=uuid.UUID(int=1), birth_date=date)


def test_report_is_the_same_after_the_wire() -> None:
    assert records.decode(records.ExamReport, records.encode(report())) == report()


def test_newer_fields_are_ignored_by_an_older_reader() -> None:
    body = msgspec.msgpack.decode(records.encode(report()))
    body["field_of_tomorrow"] = 1
    assert records.decode(records.ExamReport, msgspec.msgpack.encode(body)) == report()


def test_rr_intervals_are_read_by_nobody_before_and_are_none_in_what_came_before() -> None:
    vital = report().vitals[0]
    with_intervals = msgspec.structs.replace(vital, rr_ms=(812.5, 799.8046875))
    assert records.decode(records.VitalSign, records.encode(with_intervals)) == with_intervals
    body = msgspec.msgpack.decode(records.encode(with_intervals))
    del body["rr_ms"]
    assert records.decode(records.VitalSign, msgspec.msgpack.encode(body)) == vital
    for wrong in (math.nan, math.inf, -1.0):
        with pytest.raises(InvalidRecordError, match="durations"):
            msgspec.structs.replace(vital, rr_ms=(wrong,))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_never_crash(body: bytes) -> None:
    with pytest.raises(InvalidRecordError):
        records.decode(records.ExamReport, body)


def test_what_is_emitted_matches_the_json_schema() -> None:
    schema = {**records.json_schema(), "$ref": "#/$defs/ExamReport"}
    validator = jsonschema.Draft202012Validator(schema)
    emitted = json.loads(records.to_json(report()))
    validator.validate(emitted)
    del emitted["triage"]
    assert not validator.is_valid(emitted)


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError):
        NOW.boot = 4  # type: ignore[misc]
