"""What the commands share: JSON output and the loaded configuration."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from aidpost.board import configuration, remote
from aidpost.board.cli import Settings

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
settings_of = click.make_pass_decorator(Settings)


def load_configuration(settings: Settings) -> configuration.Configuration:
    """The configuration that the global options name, with what the hub has set over it."""
    return remote.applied(configuration.load(settings.config_path), settings.state_dir)


def print_json(value: Any) -> None:
    """One JSON value on one line."""
    click.echo(msgspec.json.encode(value).decode())
