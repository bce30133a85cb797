"""`aidpost hub sent` and what a hub sends down to devices: part of `aidpost hub`."""

from __future__ import annotations

import click

from aidpost.board import remote
from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.configuration import Configuration, hub_config
from aidpost.errors import UsageError
from aidpost.sync import settings as settings_module
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


@click.command("set")
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--clinic", help="All devices of this clinic.")
@click.option("--device", help="This device; goes over what its clinic has.")
@click.option("--unset", is_flag=True, help="Leave the key to each device's own file again.")
@json_option
@settings_of
def set_(
    settings: Settings,
    key: str | None,
    value: str | None,
    clinic: str | None,
    device: str | None,
    unset: bool,
    as_json: bool,
) -> None:
    """Change a setting on a clinic's devices, or on one; without KEY, list what is set.

    Example: aidpost hub set clinic.emergency_telephone "+254 700 000000" --clinic north
    """
    from aidpost.sync.hub import operations

    config = _config(settings)
    if key is not None:
        if (clinic is None) == (device is None) or (value is None) != unset:
            cause = "say of which --clinic or --device, and give a VALUE or --unset"
            raise UsageError(operation="setting devices", target=key, cause=cause, remedy="See the example.")
        wanted = None if value is None else _checked(key, value)
        sent_to = operations.set_devices(config, "clinic" if clinic else "device", clinic or device or "", key, wanted)
        if not as_json:
            click.echo(f"sent to {', '.join(sent_to)}" if sent_to else "sent to none: each has that value already")
    found = operations.settings_of(config)
    if as_json:
        print_json({"schema": "aidpost.hub-settings/1", "settings": found})
    elif key is None:
        for one in found:
            click.echo(f"{one['scope']:7} {one['name']:20} {one['key']:28} {one['value']}")


def _checked(key: str, text: str) -> settings_module.Value:
    """The value, held against the same validation as on the device."""
    value = settings_module.value_of(key, text)
    remote.overlay(Configuration(), {key: value})
    return value
