"""`aidpost hub sent` and what a hub sends down to devices: part of `aidpost hub`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Literal, TextIO

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


@click.group("rules")
def rules_() -> None:
    """Clinical limits of a clinic: proposed, signed by two people of two roles, sent to its devices."""


@rules_.command("list")
@json_option
@settings_of
def rules_list(settings: Settings, as_json: bool) -> None:
    """Every change, newest first.

    Example: aidpost hub rules list
    """
    from aidpost.sync.hub import operations

    found = operations.limit_changes(_config(settings))
    if as_json:
        print_json({"schema": "aidpost.hub-rules/1", "changes": [one._asdict() | {"id": str(one.id)} for one in found]})
        return
    for one in found:
        limits = ", ".join(
            f"{file}.{name} = {value:g}" for file, all_ in one.limits.items() for name, value in all_.items()
        )
        signed = ", ".join(f"{signature.name} ({signature.role})" for signature in one.signatures) or "nobody"
        click.echo(f"{one.id}  {one.clinic}  {one.state}, signed by {signed}")
        click.echo(f"  {limits or 'as published'}: {one.why}")


@rules_.command("propose")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--clinic", required=True, help="Whose devices.")
@click.option("--why", required=True, help="For those who sign, and for the audit log.")
@settings_of
def rules_propose(settings: Settings, file: Path, clinic: str, why: str) -> None:
    """Propose all limits that a clinic sets, from the [limits.…] tables of a TOML file. They are held to the golden
    cases here, and once more on each device.

    Example: aidpost hub rules propose north.toml --clinic north --why "altitude 2,400 m, Dr Okoro"
    """
    from aidpost.board import remote_rules
    from aidpost.board.configuration import load
    from aidpost.sync.hub import operations

    limits = load(file).limits
    remote_rules.overlay(Configuration(), limits)
    number = operations.propose_limits(_config(settings), clinic, limits, why)
    click.echo(f"{number} waits for a clinician's and an administrator's signature: aidpost hub rules sign {number}")


@rules_.command("sign")
@click.argument("number", type=click.UUID)
@click.option("--user", required=True, help="Who signs; their role counts.")
@click.option("--password-file", type=click.File(), help="Instead of asking.")
@settings_of
def rules_sign(settings: Settings, number: uuid.UUID, user: str, password_file: TextIO | None) -> None:
    """Sign a change with your password; the second signature sends it.

    Example: aidpost hub rules sign 5f0c7a52-6f6b-4d0c-9b52-6c7f1f0f3a10 --user okoro
    """
    from aidpost.sync.hub import operations

    asked = password_file.read().strip() if password_file else click.prompt(f"Password of {user}", hide_input=True)
    done = operations.sign_limits(_config(settings), number, user, str(asked))
    click.echo("sent to the clinic's devices" if done.state == "sent" else "signed; one signature is missing")


@rules_.command("withdraw")
@click.argument("number", type=click.UUID)
@settings_of
def rules_withdraw(settings: Settings, number: uuid.UUID) -> None:
    """Take back a change that is not signed yet.

    Example: aidpost hub rules withdraw 5f0c7a52-6f6b-4d0c-9b52-6c7f1f0f3a10
    """
    from aidpost.sync.hub import operations

    operations.withdraw_limits(_config(settings), number)
    click.echo("withdrawn")


@click.command("send-update")
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--clinic", help="All devices of this clinic.")
@click.option("--device", help="This device.")
@settings_of
def send_update(settings: Settings, bundle: Path, clinic: str | None, device: str | None) -> None:
    """Send a signed bundle (`aidpost board update publish bundle`) down to devices, by MQTT and on their sticks, in
    pieces that go on after any interruption.

    Example: aidpost hub send-update aidpost.bundle --clinic north
    """
    from aidpost.sync.hub import operations
    from aidpost.sync.hub.blobs import file_sha256

    if (clinic is None) == (device is None):
        raise UsageError(
            operation="sending an update", target=str(bundle), cause="say of which --clinic or --device", remedy=""
        )
    version = f"{bundle.stem[:40]} {file_sha256(bundle)[:8]}"
    scope: Literal["clinic", "device"] = "clinic" if clinic else "device"
    sent_to = operations.send_update(_config(settings), scope, clinic or device or "", bundle, version)
    click.echo(f"sent to {', '.join(sent_to)}; aidpost hub sent tells how much is there")
