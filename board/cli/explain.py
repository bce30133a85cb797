"""`aidpost explain`: why an exam came to its conclusions."""

from __future__ import annotations

import uuid
from dataclasses import asdict

import click

from aidpost.board import device
from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.cli._device import opened_store
from aidpost.errors import UsageError
from aidpost.inference.triage import explain as explain_report


@click.command()
@click.argument("exam", type=click.UUID)
@json_option
@settings_of
def explain(settings: Settings, exam: uuid.UUID, as_json: bool) -> None:
    """For each conclusion of an exam: the inputs, the rule or model, its version and limits.

    Example: aidpost explain 0266c5cf-4858-414e-a6cd-c19245f0d374
    """
    configuration = load_configuration(settings)
    with opened_store(settings, configuration) as store:
        report = store.report(exam)
        if report is None:
            raise UsageError(
                operation="explaining an exam",
                target=str(exam),
                cause="this device has no such exam",
                remedy="`aidpost exam` prints an exam's number when it ends.",
            )
        report = device.shown(configuration, store, report)
    explanations = explain_report(report, configuration.limits)
    if as_json:
        print_json([asdict(one) for one in explanations])
        return
    for one in explanations:
        click.echo(one.conclusion)
        click.echo(f"  rule    {one.rule} {one.version}")
        for name, value in one.inputs.items():
            click.echo(f"  input   {name} = {value}")
        for name, limit in one.limits.items():
            click.echo(f"  limit   {name}: {limit}")
