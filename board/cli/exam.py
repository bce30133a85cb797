"""`aidpost exam`: one exam, from the sensors to the store, and on to the hub if asked."""

from __future__ import annotations

import sys
import uuid

import click

from aidpost.board import device
from aidpost.board.cli import Settings, print_error
from aidpost.board.cli._common import json_option, load_configuration, settings_of
from aidpost.board.cli._device import opened_store
from aidpost.board.exam import ExamRunner, Plan
from aidpost.errors import BrokerError, UsageError
from aidpost.firmware_bridge.marks import NAME as MARKS
from aidpost.firmware_bridge.marks import FileMarks
from aidpost.inference.worker import InferenceWorker
from aidpost.records import Answer, ExamReport, Eye, Patient, Sex, Timestamp, to_json
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

SOME_UNREADABLE = 3


@click.command()
@click.option("--patient", "patient_id", type=click.UUID, help="A known patient; without it a new one is made.")
@click.option("--name", default="", help="The new patient's name.")
@click.option("--birth-date", help="YYYY, YYYY-MM or YYYY-MM-DD.")
@click.option("--sex", type=click.Choice([sex.value for sex in Sex]), default="unknown")
@click.option("--ecg", metavar="SOURCE", help="Where the ECG comes from.")
@click.option("--fundus-left", metavar="SOURCE", multiple=True, help="A photograph of the left eye; may be repeated.")
@click.option("--fundus-right", metavar="SOURCE", multiple=True, help="A photograph of the right eye; may be repeated.")
@click.option("--vitals", metavar="SOURCE", multiple=True, help="Vital signs; may be repeated.")
@click.option("--answer", "answers", metavar="QUESTION=ANSWER", multiple=True, help="An answer: chest-pain=yes.")
@click.option("--send", is_flag=True, help="Wait until the hub's receipt is in.")
@click.option("--timeout", type=click.FloatRange(min=1), default=120.0, show_default=True, help="Seconds for --send.")
@json_option
@settings_of
def exam(
    settings: Settings,
    patient_id: uuid.UUID | None,
    name: str,
    birth_date: str | None,
    sex: str,
    ecg: str | None,
    fundus_left: tuple[str, ...],
    fundus_right: tuple[str, ...],
    vitals: tuple[str, ...],
    answers: tuple[str, ...],
    send: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Record, interpret, report and queue one exam. It is safe on disk when this ends.

    Example: aidpost exam --ecg sim:ecg --fundus-left left.jpg --vitals sim:vitals
    """
    configuration = load_configuration(settings)
    with opened_store(settings, configuration) as store:
        link = device.link(configuration, store) if send else None
        new = Patient(id=uuid.uuid4(), name=name, birth_date=birth_date, sex=Sex(sex))
        plan = Plan(
            patient=_known(store, patient_id) if patient_id else new,
            ecg=ecg,
            fundus=(*((Eye.LEFT, s) for s in fundus_left), *((Eye.RIGHT, s) for s in fundus_right)),
            vitals=vitals,
            answers=tuple(_answer(text, store.now()) for text in answers),
            history=tuple(store.history(patient_id)) if patient_id else (),
            known=tuple(store.measured()) if vitals else (),
        )
        _require_something(plan)
        marks = FileMarks(store.folder / MARKS)
        settings_of_worker = device.worker_settings(configuration, settings.state_dir)
        with InferenceWorker(settings_of_worker, deadline_s=configuration.inference.deadline_s) as worker:
            outcome = ExamRunner(configuration, store, worker, _say, marks).run(plan)
        device.accept(store, outcome)
        marks.keep(outcome.read_up_to)  # only now: a sensor gives again what no store has
        shown = device.shown(configuration, store, outcome.report)
        click.echo(to_json(shown).decode() if as_json else summary(shown))
        if link is not None:
            _send(store, link, timeout)
    if outcome.unassigned:
        count = len(outcome.unassigned)
        click.echo(f"aidpost: {count} readings were made at another time: kept unassigned, not in this exam", err=True)
    for problem in outcome.problems:
        print_error(problem.error)
    if outcome.problems:
        sys.exit(SOME_UNREADABLE)


def _say(step: str) -> None:
    click.echo(f"aidpost: {step}", err=True)


def _known(store: Store, patient: uuid.UUID) -> Patient:
    found = store.patient(patient)
    if found is None:
        raise UsageError(
            operation="starting an exam",
            target=str(patient),
            cause="this device knows no such patient",
            remedy="Leave --patient out to register a new one.",
        )
    return found


def _answer(text: str, at: Timestamp) -> Answer:
    question, equals, answer = text.partition("=")
    if not (question and equals and answer):
        raise UsageError(
            operation="starting an exam",
            target=text,
            cause="an answer is QUESTION=ANSWER",
            remedy="For instance: --answer chest-pain=no",
        )
    return Answer(question=question, answer=answer, at=at)


def _require_something(plan: Plan) -> None:
    if not (plan.ecg or plan.fundus or plan.vitals or plan.answers):
        raise UsageError(
            operation="starting an exam",
            target="exam",
            cause="there is nothing to record",
            remedy="Give --ecg, --fundus-left, --fundus-right, --vitals or --answer.",
        )


def _send(store: Store, link: Link, timeout: float) -> None:
    with Publisher(store, link) as publisher:
        if not publisher.wait_until_empty(timeout):
            raise BrokerError(
                operation="sending the exam",
                target=f"{link.host}:{link.port}",
                cause=publisher.last_error or f"the hub has not receipted everything within {timeout:g} s",
                remedy="The exam is safe in the outbox and goes with the next connection.",
            )
    click.echo("synced: the hub has the exam, photographs included", err=True)


def summary(report: ExamReport) -> str:
    """The report in a few lines, for a terminal."""
    lines = [f"exam {report.exam.id}", f"triage: {report.triage.level.value} (preliminary, not a diagnosis)"]
    lines += [f"  {finding.severity.value}: {finding.text}" for finding in report.findings]
    lines += [f"  advice: {advice}" for advice in report.advice]
    lines += [f"  not assessed: {what}" for what in report.not_assessed]
    if report.origin.value != "live":
        lines.append(f"  origin: {report.origin.value.upper()}, not a live recording")
    return "\n".join(lines)
