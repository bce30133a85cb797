"""`aidpost hub rounds`: clinics teach a model together. What a round makes is a candidate, and serves nobody yet."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.configuration import Configuration, hub_config
from aidpost.errors import UsageError

if TYPE_CHECKING:
    from aidpost.inference.model import Model
    from aidpost.sync.hub.rounds import Progress


_RIDGES = {"fundus-dr": 0.0003, "ecg-rhythm": 0.03}


def _rate(task: str, secure: bool) -> float:
    """The step that did best under momentum, as did the ridges (benchmarks/federated.py): large ones amplify noise."""
    return 12.0 if secure and task == "fundus-dr" else 2.0


@click.group()
def rounds() -> None:
    """Federated rounds: open, watch and close them, and judge what they made."""


@rounds.command("open")
@click.argument("task", type=click.Choice(["ecg-rhythm", "fundus-dr"]))
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=14.0, show_default=True, help="A phase.")
@click.option("--minimum", type=click.IntRange(2, 1000), default=3, show_default=True, help="Answers that it needs.")
@click.option(
    "--strategy",
    type=click.Choice(["fedavg", "fedavgm", "scaffold", "fedadam", "geometric-median", "trimmed-mean", "krum"]),
    default="fedavgm",
    show_default=True,
)
@click.option("--secure", is_flag=True, help="The hub sees only the sum of the answers: fedavg, fedavgm or fedadam.")
@click.option("--epsilon", type=click.FloatRange(0, 20, min_open=True), default=8.0, show_default=True, help="In all.")
@click.option("--delta", type=click.FloatRange(0, 0.001, min_open=True), default=1e-5, show_default=True)
@click.option("--rounds", "planned", type=click.IntRange(1, 1000), default=15, show_default=True, help="In all.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Step; 12 for fundus-dr with --secure, otherwise 2."
)
@click.option("--clip", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="Bound.")
@click.option("--steps", type=click.IntRange(1, 1000), default=1, show_default=True, help="Each with noise.")
@click.option("--pull", type=click.FloatRange(0, 10), default=0.0, show_default=True, help="FedProx's mu.")
@click.option(
    "--ridge", type=click.FloatRange(0, 1), help="Hold to the model itself; 0.0003 for fundus-dr, 0.03 for ecg-rhythm."
)
@click.option("--afresh", is_flag=True, help="Begin at the model itself, not where the last round ended.")
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Ask these only; may be repeated.")
@json_option
@settings_of
def open_(
    settings: Settings,
    task: str,
    days: float,
    minimum: int,
    strategy: str,
    secure: bool,
    epsilon: float,
    delta: float,
    planned: int,
    rate: float | None,
    clip: float,
    steps: int,
    pull: float,
    ridge: float | None,
    afresh: bool,
    devices: tuple[str, ...],
    as_json: bool,
) -> None:
    """Ask devices to learn once from their confirmed cases, starting from the head of the round before. The noise is
    such that as many rounds as are planned stay within the budget.

    Example: aidpost hub rounds open fundus-dr --secure --minimum 5
    """
    from aidpost.board.analysis import models_for
    from aidpost.inference.private import noise_for
    from aidpost.sync.hub import operations
    from aidpost.sync.hub.rounds import Plan

    configuration = load_configuration(settings)
    model = models_for(configuration.inference).get(task)  # type: ignore[arg-type]
    plan = Plan(
        model=model.card.name,
        base=model.card.network,
        kind=model.card.output.kind,
        shape=model.head_shape,
        days=days,
        minimum=minimum,
        strategy=strategy,  # type: ignore[arg-type]
        secure=secure,
        rate=rate if rate is not None else _rate(task, secure),
        clip=clip,
        steps=steps,
        pull=pull,
        ridge=ridge if ridge is not None else _RIDGES[task],
        noise=noise_for(epsilon, delta, planned * steps),
        devices=devices,
        afresh=afresh,
    )
    opened = operations.open_round(hub_config(configuration, settings.state_dir), plan)
    if as_json:
        print_json({"schema": "aidpost.hub-rounds/1", "rounds": [_object(opened)]})
        return
    click.echo(f"round {opened.model}/{opened.number} is open: {opened.asked} devices are asked, noise {plan.noise:g}")


@rounds.command()
@click.argument("which", required=False, default="")
@json_option
@settings_of
def status(settings: Settings, which: str, as_json: bool) -> None:
    """All rounds, or WHICH (`fundus-dr/3`): how far, who was refused and why, and what became of the head.

    Example: aidpost hub rounds status
    """
    from aidpost.sync.hub import operations

    config = hub_config(load_configuration(settings), settings.state_dir)
    _show(operations.round_progress(config, which), as_json)


@rounds.command()
@click.argument("which")
@json_option
@settings_of
def close(settings: Settings, which: str, as_json: bool) -> None:
    """End the phase of WHICH now, whoever is missing: with enough answers it goes on, or makes its head.

    Example: aidpost hub rounds close fundus-dr/3
    """
    from aidpost.sync.hub import operations

    config = hub_config(load_configuration(settings), settings.state_dir)
    _show([operations.close_round(config, which)], as_json)


@rounds.command()
@click.argument("which")
@click.option("--shadow", is_flag=True, help="On exams made after the round only.")
@click.option("--least", type=click.IntRange(min=1), default=100, show_default=True, help="Cases that decide.")
@click.option("--margin", type=click.FloatRange(0, 0.2), default=0.02, show_default=True, help="What a group may lose.")
@json_option
@settings_of
def judge(settings: Settings, which: str, shadow: bool, least: int, margin: float, as_json: bool) -> None:
    """Hold the head that WHICH made against the model that serves, on the golden recordings and the hub's reviewed
    cases: no worse on all of them, and in no clinic, camera, sex or age by more than the margin. Exit code 1 where it
    fails.

    Example: aidpost hub rounds judge fundus-dr/15 --shadow
    """
    from aidpost.board.learning import candidate

    configuration = load_configuration(settings)
    model, folder = _serving(configuration, which)
    verdict = candidate.judge_round(
        hub_config(configuration, settings.state_dir), model, folder, which, shadow=shadow, least=least, margin=margin
    )
    if as_json:
        print_json({"schema": "aidpost.candidate/1", "passed": verdict.passed, **msgspec.structs.asdict(verdict)})
    else:
        for row in verdict.rows:
            measures = f"loss {row.loss_before:.4f} -> {row.loss_after:.4f}"
            measures += f"  accuracy {row.accuracy_before:.4f} -> {row.accuracy_after:.4f}"
            click.echo(f"{f'{row.group} {row.name}':32} {row.cases:6}  {measures}  {row.fault}".rstrip())
        click.echo("passed" if verdict.passed else "refused: " + "; ".join(verdict.reasons))
    if not verdict.passed:
        sys.exit(1)


@rounds.command()
@click.argument("which")
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
@click.option("--release", required=True, help="The new version of the model, as 1.1.0.")
@settings_of
def export(settings: Settings, which: str, folder: Path, release: str) -> None:
    """Write the model with the head that WHICH made to FOLDER, to be signed and rolled out in stages; only what has
    passed `judge`, without and with --shadow.

    Example: aidpost hub rounds export fundus-dr/15 /media/safe --release 1.1.0
    """
    from aidpost.board.learning import candidate

    configuration = load_configuration(settings)
    model, serves = _serving(configuration, which)
    config = hub_config(configuration, settings.state_dir)
    made = candidate.export(config, serves, which, release, folder)
    said = f"aidpost board update publish add {made} --kind model --name {model.card.name} --release {release}"
    click.echo(f"{made}: sign it and begin with a few devices, {said} --rollout 0.05")


def _serving(configuration: Configuration, which: str) -> tuple[Model, Path]:
    """The model here that has the round's name, and its folder."""
    from aidpost.board.analysis import models_for

    models = models_for(configuration.inference)
    for task in ("ecg-rhythm", "fundus-dr"):
        folder = models.folder(task)
        if folder is not None and folder.name == which.rpartition("/")[0]:
            return models.get(task), folder
    raise UsageError(
        operation="judging a candidate",
        target=which,
        cause="no model here has that name",
        remedy="Name the round as MODEL/NUMBER; `aidpost models list` shows the models.",
    )


def _show(found: list[Progress], as_json: bool) -> None:
    if as_json:
        print_json({"schema": "aidpost.hub-rounds/1", "rounds": [_object(one) for one in found]})
        return
    for one in found:
        until = datetime.fromtimestamp(one.until_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        how = f"{one.strategy}{', secure sum' if one.secure else ''}"
        if one.state == "open":
            far = f"{one.phase}: {one.answered} of {one.asked} devices, at least {one.minimum}, until {until}"
        else:
            far = one.reason or f"a head of {one.counted} answers; candidate: {one.candidate}"
        click.echo(f"{one.model}/{one.number}  {one.state}  {how}  {far}")
        for device, why in one.refused.items():
            click.echo(f"  {device} was refused: {why}")
    if not found:
        click.echo("no round was opened")


def _object(one: Progress) -> dict[str, object]:
    return {**one._asdict(), "round": str(one.round)}
