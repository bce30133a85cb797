"""`aidpost models rounds` and `budget`: this device in federated rounds, and what they cost its patients."""

from __future__ import annotations

import click

from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.cli._device import opened_store


@click.command()
@click.option("--answer", is_flag=True, help="Do now what is due, whoever uses the device.")
@json_option
@settings_of
def rounds(settings: Settings, answer: bool, as_json: bool) -> None:
    """The federated rounds that the hub asked this device for, how far each is, and what is due.

    Example: aidpost models rounds --answer
    """
    from aidpost.board.learning.service import answer_rounds, participant
    from aidpost.sync.rounds import RoundCall, RoundEnd

    configuration = load_configuration(settings)
    with opened_store(settings, configuration) as store:
        if answer:
            answer_rounds(configuration, store)
        me = participant(configuration, store)
        due = {one.call.round: one.step for one in me.due()}
        kept = {one.round: one for one in me.ledger.all()}
        ended = {one.round: one for one in store.inbox.records(RoundEnd, None)}
        calls = {one.round: one for one in store.inbox.records(RoundCall, None)}
    rows = []
    for call in sorted(calls.values(), key=lambda one: (one.model, one.number)):
        mine, end = kept.get(call.round), ended.get(call.round)
        rows.append(
            {
                "round": str(call.round),
                "model": call.model,
                "number": call.number,
                "secure": call.secure,
                "state": mine.state if mine else "not begun",
                "reason": mine.reason if mine else "",
                "due": due.get(call.round),
                "over": end is not None,
                "outcome": "" if end is None else end.reason or f"a head of {end.answers} answers",
            }
        )
    if as_json:
        print_json({"schema": "aidpost.rounds/1", "enabled": configuration.federated.enabled, "rounds": rows})
        return
    if not configuration.federated.enabled:
        click.echo("this device takes no part by itself (federated.enabled)")
    for row in rows:
        due_now = f", due: {row['due']}" if row["due"] else ""
        said = "; ".join(str(one) for one in (row["reason"], row["outcome"]) if one)
        click.echo(f"{row['model']}/{row['number']}: {row['state']}{due_now}{'  ' + said if said else ''}")
    if not rows:
        click.echo("the hub has asked for none")


@click.command()
@json_option
@settings_of
def budget(settings: Settings, as_json: bool) -> None:
    """What rounds have cost this device's patients, of what they may cost, and whom how much.

    Example: aidpost models budget
    """
    from aidpost.board.learning.service import participant
    from aidpost.inference.private import epsilon

    configuration = load_configuration(settings)
    section = configuration.federated
    with opened_store(settings, configuration) as store:
        ledger = participant(configuration, store).ledger
        spent, groups = epsilon(ledger.spent(), section.delta), ledger.groups(section.delta)
    if as_json:
        print_json(
            {
                "schema": "aidpost.privacy/1",
                "epsilon": spent,
                "of": section.epsilon,
                "delta": section.delta,
                "groups": [one._asdict() for one in groups],
            }
        )
        return
    click.echo(f"this device: epsilon {spent:.2f} of {section.epsilon:g} at delta {section.delta:g}")
    for one in groups:
        click.echo(f"  {one.patients:5} patients in {one.rounds} rounds: epsilon {one.epsilon:.2f}")
