"""`aidpost hub sent` and what a hub sends down to devices: part of `aidpost hub`."""

from __future__ import annotations

import click

from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.configuration import hub_config
from aidpost.sync.hub.config import HubConfig


def _config(settings: Settings) -> HubConfig:
    return hub_config(load_configuration(settings), settings.state_dir)


@click.command("sent")
@click.argument("device", required=False)
@json_option
@settings_of
def sent(settings: Settings, device: str | None, as_json: bool) -> None:
    """What was last sent down to each device, or to one, and what came of it there.

    Example: aidpost hub sent kisumu-3
    """
    from aidpost.sync.hub import operations

    found = [one for one in operations.fleet(_config(settings)) if device in (None, one.device)]
    if as_json:
        print_json({"schema": "aidpost.hub-sent/1", "sent": [one._asdict() | {"id": str(one.id)} for one in found]})
        return
    click.echo(f"{'device':20} {'what':12} {'version':20} {'there':>6}  state")
    for one in found:
        there = f"{100 * one.held_bytes // one.size} %" if one.size and one.state == "waiting" else ""
        said = f"{one.state}{': ' if one.why else ''}{one.why}"
        click.echo(f"{one.device:20} {one.subject:12} {one.version:20} {there:>6}  {said}")
