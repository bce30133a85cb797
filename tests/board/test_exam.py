"""The exam: a step that fails is said and stops nothing; what is recorded is kept."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from device_records import KEY

from aidpost.board import device
from aidpost.board.configuration import Configuration
from aidpost.board.exam import ExamOutcome, ExamRunner, Plan, worst_origin
from aidpost.errors import InferenceTimeoutError, KeyUnavailableError
from aidpost.firmware_bridge.clock import SystemClock as BootClock
from aidpost.inference.fundus import FundusAnalysis
from aidpost.inference.worker import InferenceWorker
from aidpost.kernels import codec
from aidpost.records import (
    Device,
    EcgRecording,
    EcgResult,
    Eye,
    FundusPhoto,
    Origin,
    Patient,
    TriageLevel,
    VitalKind,
    VitalSign,
)
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

CONFIGURATION = Configuration()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as opened:
        yield opened


@pytest.fixture(scope="module")
def worker() -> Iterator[InferenceWorker]:
    with InferenceWorker(device.worker_settings(CONFIGURATION), deadline_s=60) as started:
        yield started


def plan(**steps: object) -> Plan:
    return Plan(patient=Patient(id=uuid.uuid4(), name="Amina"), **steps)  # type: ignore[arg-type]


class Dead:
    """An analyst whose models never answer."""

    def ecg(self, recording: EcgRecording, lead: str | None = None) -> EcgResult:
        raise InferenceTimeoutError(operation="analysing", target="ECG", cause="no answer within 1 s")

    def fundus(self, photo: FundusPhoto, *, force: bool = False, attempt: int = 1) -> FundusAnalysis:
        raise InferenceTimeoutError(operation="analysing", target="photograph", cause="no answer within 1 s")


def kept(store: Store, outcome: ExamOutcome) -> bool:
    device.accept(store, outcome)
    return store.report(outcome.report.exam.id) == outcome.report


def test_whole_exam_is_kept_with_its_photographs_and_waveform(store: Store, worker: InferenceWorker) -> None:
    outcome = ExamRunner(CONFIGURATION, store, worker).run(
        plan(
            ecg="sim:ecg?rhythm=af&seconds=30&seed=2",
            fundus=((Eye.LEFT, "sim:fundus?seed=1&format=jpeg"), (Eye.RIGHT, "sim:fundus?seed=2&format=jpeg")),
            vitals=("sim:vitals?seed=2",),
        )
    )
    report = outcome.report
    assert outcome.problems == ()
    assert [photo.eye for photo in report.fundus] == [Eye.LEFT, Eye.RIGHT]
    assert report.origin is Origin.SIMULATED
    assert kept(store, outcome)
    for photo in report.fundus:
        assert photo.body is not None
        assert store.read_blob(photo.body.sha256).startswith(b"\xff\xd8")
    assert report.ecg[0].body is not None
    samples = codec.decode(store.read_blob(report.ecg[0].body.sha256))
    assert samples.shape[1] == round(report.ecg[0].duration_s * report.ecg[0].fs_hz)


def test_sensor_that_fails_is_listed_and_the_exam_goes_on(
    store: Store, worker: InferenceWorker, tmp_path: Path
) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    outcome = ExamRunner(CONFIGURATION, store, worker).run(
        plan(ecg=str(tmp_path / "none.hea"), fundus=((Eye.LEFT, str(tmp_path / "cut.jpg")),), vitals=("sim:vitals",))
    )
    assert [problem.step for problem in outcome.problems] == ["ECG", "left eye"]
    assert outcome.report.vitals
    missing = " ".join(outcome.report.not_assessed)
    assert "ECG" in missing
    assert "left eye" in missing
    assert kept(store, outcome)


def test_recording_that_no_model_could_read_is_kept_for_a_clinician_and_is_not_routine(store: Store) -> None:
    outcome = ExamRunner(CONFIGURATION, store, Dead()).run(
        plan(ecg="sim:ecg?seconds=10", fundus=((Eye.RIGHT, "sim:fundus?format=jpeg"),))
    )
    report = outcome.report
    assert len(outcome.problems) == 2
    assert not report.ecg[0].quality.usable
    assert report.fundus[0].dr is None
    assert report.triage.level > TriageLevel.ROUTINE
    assert kept(store, outcome)
    assert report.ecg[0].body is not None
    assert codec.decode(store.read_blob(report.ecg[0].body.sha256)).size


def test_same_file_for_both_eyes_is_one_blob(store: Store) -> None:
    source = "sim:fundus?seed=4&format=jpeg"
    outcome = ExamRunner(CONFIGURATION, store, Dead()).run(plan(fundus=((Eye.LEFT, source), (Eye.RIGHT, source))))
    assert kept(store, outcome)


def test_attempts_are_counted_for_each_eye(store: Store) -> None:
    steps = ((Eye.LEFT, "sim:fundus?seed=1"), (Eye.RIGHT, "sim:fundus?seed=2"), (Eye.LEFT, "sim:fundus?seed=3"))
    report = ExamRunner(CONFIGURATION, store, Dead()).run(plan(fundus=steps)).report
    assert [(photo.eye, photo.attempt) for photo in report.fundus] == [(Eye.LEFT, 1), (Eye.RIGHT, 1), (Eye.LEFT, 2)]


@pytest.mark.parametrize(
    ("origins", "whole"),
    [
        ([Origin.LIVE, Origin.SIMULATED, Origin.FILE], Origin.SIMULATED),
        ([Origin.LIVE, Origin.REPLAY], Origin.REPLAY),
        ([Origin.LIVE, Origin.FILE], Origin.FILE),
        ([Origin.LIVE], Origin.LIVE),
    ],
)
def test_exam_is_live_only_if_all_of_it_is(origins: list[Origin], whole: Origin) -> None:
    assert worst_origin(origins) is whole


def test_device_key_comes_from_where_the_configuration_says(tmp_path: Path) -> None:
    from aidpost.board.configuration import parse

    weak = device.device_key(parse(""), tmp_path, passphrase=str)
    assert weak.weak
    assert device.device_key(parse(""), tmp_path, passphrase=str) == weak
    typed = device.device_key(parse("[store]\nkey = 'passphrase'"), tmp_path, passphrase=lambda: "open sesame")
    assert not typed.weak
    again = device.device_key(parse("[store]\nkey = 'passphrase'"), tmp_path, passphrase=lambda: "open sesame")
    assert again.secret == typed.secret
    with pytest.raises(KeyUnavailableError):
        device.device_key(parse("[store]\nkey = 'systemd-credential'"), tmp_path, passphrase=str)


def test_a_returning_patient_is_read_against_their_own_earlier_readings() -> None:
    def pressure(systolic: float, days_ago: float) -> VitalSign:
        now = clock.now()
        return VitalSign(
            id=uuid.uuid4(),
            kind=VitalKind.SYSTOLIC_BP,
            value=systolic,
            unit="mm[Hg]",
            at=msgspec.structs.replace(now, wall_ms=now.wall_ms - round(days_ago * 86_400_000), boot=1),
            origin=Origin.LIVE,
            device=Device(name="cuff"),
        )

    clock = BootClock(boot=2, synced=True)
    runner = ExamRunner(CONFIGURATION, clock, Dead())
    steps = {"vitals": ("sim:vitals?profile=hypertensive&seed=1",)}
    earlier = tuple(pressure(120.0, 30.0 * month) for month in range(1, 6))
    report = runner.run(plan(**steps, history=earlier)).report
    assert [(one.kind, one.baseline) for one in report.trends] == [(VitalKind.SYSTOLIC_BP, 120.0)]
    assert "trend-systolic-above-own" in {one.code for one in report.findings}
    assert not {one.id for one in report.vitals} & {one.id for one in earlier}
    assert runner.run(plan(**steps)).report.trends == ()
