"""`aidpost hub`: the other end of the wire. Its settings are the `[hub]` table of the configuration."""

from __future__ import annotations

from pathlib import Path

import click

from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.configuration import hub_config
from aidpost.errors import UsageError
from aidpost.sync.hub.config import HubConfig


def _config(settings: Settings) -> HubConfig:
    return hub_config(load_configuration(settings), settings.state_dir)


@click.group()
def hub() -> None:
    """The other end: serve, users, enrolment."""


@hub.command()
@settings_of
def serve(settings: Settings) -> None:
    """Receive exams over MQTT, keep each once, and show them; ends with SIGTERM or Ctrl-C.

    Example: aidpost --config hub.toml hub serve
    """
    from aidpost.sync.hub.server import serve as serve_hub

    serve_hub(_config(settings), ready=lambda url: click.echo(f"the hub's pages are at {url}"))


@hub.command()
@click.argument("name")
@click.option("--role", default="clinician", show_default=True, help="administrator, clinician or viewer.")
@click.option("--full-name", default="", help="As it stands under reviews.")
@click.option("--reads", multiple=True, type=click.Choice(("eyes", "heart")), help="What they sign; else everything.")
@click.option("--clinic", "clinics", multiple=True, metavar="NAME", help="Whose patients they see; else all.")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Else it is asked.")
@settings_of
def user(
    settings: Settings,
    name: str,
    role: str,
    full_name: str,
    reads: tuple[str, ...],
    clinics: tuple[str, ...],
    password_file: Path | None,
) -> None:
    """Add a user, or give one a new password.

    Example: aidpost hub user akinyi --role clinician --reads eyes --clinic "Kisumu North"
    """
    from aidpost.sync.hub.operations import add_user

    if password_file is not None:
        password = password_file.read_text(encoding="utf-8").rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    add_user(_config(settings), name, password, role, full_name, parts=reads, clinics=clinics)
    click.echo(f"{name} may now log in as {role}.")


@hub.command("reset-second-factor")
@click.argument("name")
@settings_of
def reset_second_factor(settings: Settings, name: str) -> None:
    """Forget the second factor of a user who has lost their telephone.

    Example: aidpost hub reset-second-factor akinyi
    """
    from aidpost.sync.hub import operations

    operations.reset_second_factor(_config(settings), name)
    click.echo(f"{name} logs in with the password alone until a new second factor is set up.")


@hub.command("verify-audit")
@json_option
@settings_of
def verify_audit(settings: Settings, as_json: bool) -> None:
    """Recompute the audit log's chain; exit code 1 where a row was altered or removed.

    Keep the printed head elsewhere: only by comparing it is a cut-off end seen.

    Example: aidpost hub verify-audit
    """
    from aidpost.sync.hub import operations

    state = operations.verify_audit(_config(settings))
    if as_json:
        print_json({"rows": state.rows, "head": state.head.hex(), "broken_at": state.broken_at})
    elif state.broken_at is None:
        click.echo(f"{state.rows} rows, all in place; head {state.head.hex()}")
    else:
        click.echo(f"the chain is broken at row {state.broken_at}", err=True)
    if state.broken_at is not None:
        raise SystemExit(1)


@hub.command()
@click.argument("device")
@click.argument("public_key")
@json_option
@settings_of
def enroll(settings: Settings, device: str, public_key: str, as_json: bool) -> None:
    """Let a device send; prints what the device's configuration needs.

    Example: aidpost hub enroll kisumu-3 5f0c…
    """
    from aidpost.sync.hub import operations

    try:
        key = bytes.fromhex(public_key)
    except ValueError:
        raise UsageError(
            operation="enrolling a device",
            target=device,
            cause="the public key is not hexadecimal",
            remedy="Copy it from `aidpost board identity` on the device.",
        ) from None
    config = _config(settings)
    operations.enroll(config, device, key)
    hub_key = operations.public_key(config).hex()
    if as_json:
        print_json({"hub_name": config.name, "hub_public_key": hub_key})
        return
    click.echo(f"{device} is enrolled. In its configuration, [sync]: hub_name = {config.name!r}, and hub_key_file")
    click.echo(f"names a file that holds: {hub_key}")


@hub.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@settings_of
def import_(settings: Settings, file: Path, as_json: bool) -> None:
    """Take in a device's file from a USB stick, and write its receipts beside it.

    Example: aidpost hub import /media/usb/kisumu-3.aidpost
    """
    from aidpost.sync.hub.stick import import_stick

    done = import_stick(_config(settings), file)
    if as_json:
        print_json({**done._asdict(), "receipts": str(done.receipts)})
        return
    click.echo(f"{done.device}: {done.held} records of the stick are at the hub, {done.refused} were refused.")
    click.echo(f"Receipts and {done.down} records for the device are in {done.receipts}: take it back there.")
