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
