"""`aidpost models`: what is installed, whether it is sound, how fast it is here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aidpost.board.analysis import models_for
from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.cli._device import opened_store
from aidpost.board.cli.learning import budget, rounds
from aidpost.firmware_bridge.clock import SystemClock

if TYPE_CHECKING:
    from aidpost.inference._card import Task


def _roots(settings: Settings) -> tuple[Path, ...]:
    return models_for(load_configuration(settings).inference).roots


@click.group()
def models() -> None:
    """List, verify, time and teach the models."""


models.add_command(rounds)
models.add_command(budget)


@models.command("list")
@json_option
@settings_of
def list_(settings: Settings, as_json: bool) -> None:
    """Name, version, task and terms of each model, and the head that was learned here, if any.

    Example: aidpost models list
    """
    from aidpost.inference.head import HEADS
    from aidpost.inference.model import head_here, list_models

    rows = [
        {
            "name": card.name,
            "version": card.version,
            "task": card.task,
            "sha256": card.sha256,
            "head": head_here(settings.state_dir / HEADS, card),
            "clinical": card.permitted_use.clinical,
            "terms": card.permitted_use.terms,
        }
        for _, card in list_models(_roots(settings))
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        terms = "" if row["clinical"] else "  (restricted: not for the clinical profile unless accepted)"
        learned = f"  (learned here: {row['head']})" if row["head"] else ""
        click.echo(f"{row['name']:20} {row['version']:8} {row['task']:16}{terms}{learned}")


@models.command()
@json_option
@settings_of
def verify(settings: Settings, as_json: bool) -> None:
    """Hash, card and golden recordings of each model on every runtime installed.

    Example: aidpost models verify
    """
    from aidpost.inference.model import verify as verify_models

    checks = list(verify_models(_roots(settings)))
    if as_json:
        print_json(
            [
                {
                    "name": check.name,
                    "version": check.version,
                    "runtime": check.runtime,
                    "difference": check.difference,
                    "tolerance": check.tolerance,
                    "error": check.error.to_dict() if check.error else None,
                }
                for check in checks
            ]
        )
    else:
        for check in checks:
            verdict = str(check.error) if check.error else f"ok, largest difference {check.difference:.4f}"
            click.echo(f"{check.name:20} {check.version:8} {check.runtime:16} {verdict}")
    if not checks or any(check.error for check in checks):
        sys.exit(1)


@models.command()
@click.option("--runs", type=click.IntRange(min=1), default=50, show_default=True, help="How often each is timed.")
@json_option
@settings_of
def bench(settings: Settings, runs: int, as_json: bool) -> None:
    """Latency and memory of each model on this board, one thread.

    Example: aidpost models bench --runs 20
    """
    from dataclasses import asdict

    from aidpost.inference.bench import bench as bench_models

    rows = bench_models(_roots(settings), repeats=runs)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    click.echo(f"{'model':20} {'version':8} {'runtime':22} {'load ms':>8} {'median':>8} {'95 %':>8} {'MB':>6}")
    for row in rows:
        memory = "–" if row.memory_mb is None else f"{row.memory_mb:.1f}"
        times = f"{row.load_ms:8.1f} {row.median_ms:8.2f} {row.p95_ms:8.2f}"
        click.echo(f"{row.name:20} {row.version:8} {row.runtime:22} {times} {memory:>6}")


@models.command()
@click.argument("task", type=click.Choice(["ecg-rhythm", "fundus-dr"]))
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV table with the columns file, label and patient, instead of what the hub's clinicians confirmed here.",
)
@click.option("--dry-run", is_flag=True, help="Measure, and change nothing.")
@click.option("--undo", is_flag=True, help="Remove what was learned here: the model answers by itself again.")
@json_option
@settings_of
def adapt(settings: Settings, task: Task, labels: Path | None, dry_run: bool, undo: bool, as_json: bool) -> None:
    """Teach a model this clinic's camera or recorder, if that helps on cases held back.

    Example: aidpost models adapt fundus-dr --labels graded.csv --dry-run
    """
    from aidpost.board import teach
    from aidpost.inference.head import HEADS

    configuration = load_configuration(settings)
    model = models_for(configuration.inference, settings.state_dir).get(task)
    if undo:
        removed = teach.remove_head(settings.state_dir / HEADS, model)
        click.echo(
            f"{model.card.name}: {'what was learned here is removed' if removed else 'nothing was learned here'}"
        )
        return
    if labels is not None:
        found = teach.from_table(model, labels, SystemClock(boot=0).now())
    else:
        with opened_store(settings, configuration) as store:
            found = teach.from_store(model, store)
    learned = teach.learn(model, found.cases)
    accepted = learned.weights is not None
    version = None
    if accepted and not dry_run:
        version = teach.write_head(settings.state_dir / HEADS, model, learned).version
    if as_json:
        print_json(
            {
                "schema": "aidpost.adapt/1",
                "model": model.card.name,
                "cases": learned.cases,
                "patients": learned.patients,
                "left_out": found.left_out,
                "loss_before": learned.before,
                "loss_after": learned.after,
                "gain": learned.gain,
                "gain_error": learned.gain_error,
                "accepted": accepted,
                "reason": learned.reason,
                "head": version,
            }
        )
    else:
        for reason, count in found.left_out.items():
            click.echo(f"left out {count}: {reason}")
        click.echo(f"{model.card.name}: {learned.cases} cases of {learned.patients} patients")
        if accepted:
            click.echo(f"  loss on held-back cases {learned.before:.3f} -> {learned.after:.3f}")
            click.echo(f"  gain {learned.gain:.3f} ± {learned.gain_error:.3f} by patient")
        click.echo(f"  {_outcome(learned.reason, version)}")
    if not accepted:
        sys.exit(1)


def _outcome(reason: str, version: str | None) -> str:
    if reason:
        return f"refused: {reason}"
    if version is None:
        return "it would help (--dry-run: nothing was changed)"
    return f"head {version} serves from the device's next start; `--undo` takes it back"
