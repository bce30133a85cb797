"""`aidpost models`: what is installed, whether it is sound, how fast it is here."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from aidpost.board.analysis import models_for
from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of


def _roots(settings: Settings) -> tuple[Path, ...]:
    return models_for(load_configuration(settings).inference).roots


@click.group()
def models() -> None:
    """List, verify and time the models."""


@models.command("list")
@json_option
@settings_of
def list_(settings: Settings, as_json: bool) -> None:
    """Name, version, task and terms of each model.

    Example: aidpost models list
    """
    from aidpost.inference.model import list_models

    rows = [
        {
            "name": card.name,
            "version": card.version,
            "task": card.task,
            "sha256": card.sha256,
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
        click.echo(f"{row['name']:20} {row['version']:8} {row['task']:16}{terms}")


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
