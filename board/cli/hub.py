"""`aidpost hub`: the other end of the wire. Its settings are the `[hub]` table of the configuration."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import IO

import click

from aidpost.board.cli import Settings, hub_down
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.cli.rounds import rounds
from aidpost.board.configuration import hub_config
from aidpost.errors import UsageError
from aidpost.sync.hub.config import HubConfig


def _config(settings: Settings) -> HubConfig:
    return hub_config(load_configuration(settings), settings.state_dir)


@click.group()
def hub() -> None:
    """The other end: serve, users, enrolment."""


hub.add_command(rounds)
hub.add_command(hub_down.sent)
hub.add_command(hub_down.set_)
hub.add_command(hub_down.rules_)
hub.add_command(hub_down.send_update)


@hub.command()
@settings_of
def serve(settings: Settings) -> None:
    """Receive exams over MQTT, keep each once, and show them; ends with SIGTERM or Ctrl-C.

    Example: aidpost --config hub.toml hub serve
    """
    from aidpost.board.remote_rules import judge
    from aidpost.firmware_bridge.formats.dicom_write import write_dicom
    from aidpost.sync.hub.server import serve as serve_hub

    serve_hub(_config(settings), lambda url: click.echo(f"the hub's pages are at {url}"), write_dicom, judge)


@hub.command("run")
@settings_of
def run_(settings: Settings) -> None:
    """All that a district needs in one: the hub on SQLite, and Mosquitto with the configuration that the hub writes for
    it. The first start makes an administrator and prints their password.

    Example: aidpost --config hub.toml hub run
    """
    from aidpost.board.remote_rules import judge
    from aidpost.firmware_bridge.formats.dicom_write import write_dicom
    from aidpost.sync.hub import accounts
    from aidpost.sync.hub.server import run as run_hub

    config = _config(settings)
    if made := accounts.first_user(config):
        click.echo(f"administrator {made[0]}, password {made[1]}: change it with `aidpost hub user {made[0]}`")
    run_hub(config, lambda url: click.echo(f"the hub's pages are at {url}"), write_dicom, judge)


@hub.command()
@click.argument("file", type=click.File("wb", lazy=False))
@click.option("--no-blobs", is_flag=True, help="Without photographs and traces: their folder is copied otherwise.")
@settings_of
def backup(settings: Settings, file: IO[bytes], no_blobs: bool) -> None:
    """Write a backup, whole and of one moment, while the hub runs; `-` writes it to a pipe, for a program that
    encrypts it. It holds the hub's keys.

    Example: aidpost --config hub.toml hub backup - | age -r age1… > hub.tar.age
    """
    from aidpost.sync.hub.backup import back_up

    if file.seekable():
        os.fchmod(file.fileno(), 0o600)
    saved = back_up(_config(settings), file, blobs=not no_blobs)
    file.flush()
    click.echo(f"{saved.blobs} photographs and traces, {saved.bytes / 1e6:.1f} MB in all", err=True)


@hub.command()
@click.argument("file", type=click.File("rb"))
@settings_of
def restore(settings: Settings, file: IO[bytes]) -> None:
    """Put a backup in the place of what is here, which is kept beside it. The hub must be stopped. Devices then send
    again what the backup lacks, and patients erased since are erased again.

    Example: age -d hub.tar.age | aidpost --config hub.toml hub restore -
    """
    from aidpost.sync.hub.backup import restore as restore_hub

    done = restore_hub(_config(settings), file)
    click.echo(f"restored, with {done.blobs} photographs and traces; devices are asked for {done.missing} more")
    if done.erased:
        click.echo(f"{done.erased} patients who were erased since were erased again")
    if done.replaced:
        click.echo(f"what was here is in {done.replaced}: remove it when all is well")


@hub.command()
@click.argument("name")
@click.option("--role", default="clinician", show_default=True, help="administrator, clinician or viewer.")
@click.option("--full-name", default="", help="As it stands under reviews.")
@click.option("--reads", multiple=True, type=click.Choice(("eyes", "heart")), help="What they sign; else everything.")
@click.option("--clinic", "clinics", multiple=True, metavar="NAME", help="Whose patients they see; else all.")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Else it is asked.")
@click.option("--oidc-subject", metavar="SUB", help="Who they are at the login provider, in place of a password.")
@click.option("--disable", is_flag=True, help="Let them in no longer; what they signed stays.")
@settings_of
def user(
    settings: Settings,
    name: str,
    role: str,
    full_name: str,
    reads: tuple[str, ...],
    clinics: tuple[str, ...],
    password_file: Path | None,
    oidc_subject: str | None,
    disable: bool,
) -> None:
    """Add a user, or give one a new password.

    Example: aidpost hub user akinyi --role clinician --reads eyes --clinic "Kisumu North"
    """
    from aidpost.sync.hub import accounts

    config = _config(settings)
    if disable:
        accounts.disable_user(config, name)
        click.echo(f"{name} may log in no longer.")
        return
    if oidc_subject is not None:
        accounts.add_oidc_user(config, name, oidc_subject, role, full_name, parts=reads, clinics=clinics)
        click.echo(f"{name} may now log in as {role} by {config.oidc_issuer}.")
        return
    if password_file is not None:
        password = password_file.read_text(encoding="utf-8").rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    accounts.add_user(config, name, password, role, full_name, parts=reads, clinics=clinics)
    click.echo(f"{name} may now log in as {role}.")


@hub.command("reset-second-factor")
@click.argument("name")
@settings_of
def reset_second_factor(settings: Settings, name: str) -> None:
    """Forget the second factor of a user who has lost their telephone.

    Example: aidpost hub reset-second-factor akinyi
    """
    from aidpost.sync.hub import accounts

    accounts.reset_second_factor(_config(settings), name)
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
@click.argument("public_key", required=False)
@click.option("--clinic", default="", help="The clinic where the device is.")
@click.option(
    "--hours", type=click.FloatRange(0.01, 24 * 90), default=24.0, show_default=True, help="How long a code is good."
)
@json_option
@settings_of
def enroll(settings: Settings, device: str, public_key: str | None, clinic: str, hours: float, as_json: bool) -> None:
    """Let a device send. Prints a code with which it enrols itself once; or, given its PUBLIC_KEY, enrols it here and
    prints what its configuration needs.

    Example: aidpost hub enroll kisumu-3
    """
    from aidpost.sync.hub import operations

    config = _config(settings)
    if public_key is None:
        code = operations.enrolment_code(config, device, clinic=clinic, hours=hours)
        click.echo(code) if not as_json else print_json({"device": device, "code": code, "hours": hours})
        return
    try:
        key = bytes.fromhex(public_key)
    except ValueError:
        raise UsageError(
            operation="enrolling a device",
            target=device,
            cause="the public key is not hexadecimal",
            remedy="Copy it from `aidpost board identity` on the device.",
        ) from None
    operations.enroll(config, device, key, clinic=clinic)
    hub_key = operations.public_key(config).hex()
    if as_json:
        print_json({"hub_name": config.name, "hub_public_key": hub_key})
        return
    click.echo(f"{device} is enrolled. In its configuration, [sync]: hub_name = {config.name!r}, and hub_key_file")
    click.echo(f"names a file that holds: {hub_key}")


@hub.command()
@click.argument("device")
@settings_of
def revoke(settings: Settings, device: str) -> None:
    """Take nothing from a device any longer: it is lost or stolen. What it sent before stays.

    Example: aidpost hub revoke kisumu-3
    """
    from aidpost.sync.hub import operations

    operations.revoke(_config(settings), device)
    click.echo(f"{device} is revoked. For the broker too: aidpost hub broker FOLDER, and SIGHUP to Mosquitto.")


@hub.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--worker", "workers", multiple=True, help="Name of one of several ingest workers; may be repeated.")
@settings_of
def broker(settings: Settings, folder: Path, workers: tuple[str, ...]) -> None:
    """Write Mosquitto's configuration for this hub: certificates, revocations, and rules that keep each device to its
    own topics.

    Example: aidpost hub broker /etc/mosquitto/aidpost
    """
    from aidpost.sync.hub.broker import write

    path = write(_config(settings), folder, workers)
    click.echo(f"Start the broker with: mosquitto -c {path}")
    names = "broker_ca, broker_certificate, broker_key = authority.pem, hub.pem, hub.key"
    click.echo(f"In the hub's [hub] table: {names}, all in {folder}")


@hub.command("export-patient")
@click.argument("patient", type=click.UUID)
@click.argument("file", type=click.File("wb", lazy=False))
@settings_of
def export_patient(settings: Settings, patient: uuid.UUID, file: IO[bytes]) -> None:
    """Write all that the hub has of one person, under whichever records, as a ZIP.

    Example: aidpost hub export-patient 5f0c7a52-6f6b-4d0c-9b52-6c7f1f0f3a10 person.zip
    """
    from aidpost.sync.hub import operations

    records = operations.export_patient(_config(settings), patient, file)
    click.echo(f"{records} records", err=True)


@hub.command("erase-patient")
@click.argument("patient", type=click.UUID)
@click.option("--yes", is_flag=True, help="Without asking.")
@settings_of
def erase_patient(settings: Settings, patient: uuid.UUID, yes: bool) -> None:
    """Erase one person, under whichever records, for good. Devices are told; other systems and backups keep theirs.

    Example: aidpost hub erase-patient 5f0c7a52-6f6b-4d0c-9b52-6c7f1f0f3a10
    """
    from aidpost.sync.hub import operations

    if not yes:
        click.confirm(f"Erase {patient} for good?", abort=True)
    found = operations.erase_patient(_config(settings), patient)
    click.echo(f"erased, under {found} numbers")


@hub.command("research-export")
@click.argument("file", type=click.File("wb", lazy=False))
@click.option("--purpose", type=click.Choice(("research", "model-training")), default="research", show_default=True)
@settings_of
def research_export(settings: Settings, file: IO[bytes], purpose: str) -> None:
    """Write the exams of everybody who agrees to that purpose now, without who they are, as a ZIP.

    Example: aidpost hub research-export study.zip
    """
    from aidpost.records import ConsentPurpose
    from aidpost.sync.hub import research

    done = research.export(_config(settings), ConsentPurpose(purpose), file, "command-line")
    click.echo(f"{done.people} people, {done.exams} exams", err=True)


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


@hub.command("updates")
@click.option("--halt", nargs=2, metavar="NAME VERSION", help="Keep all devices that do not have it yet from it.")
@click.option("--why", default="halted by hand", show_default=True, help="Is kept in the audit log.")
@click.option("--resume", nargs=2, metavar="NAME VERSION", help="Let a halted one go on, for good.")
@json_option
@settings_of
def hub_updates(
    settings: Settings, halt: tuple[str, str] | None, why: str, resume: tuple[str, str] | None, as_json: bool
) -> None:
    """What updates came to on the devices, and which are halted.

    Example: aidpost hub updates --resume aidpost 1.2.0
    """
    from aidpost.sync.hub import operations

    config = _config(settings)
    if halt:
        operations.halt_update(config, *halt, why)
    if resume:
        operations.resume_update(config, *resume)
    found = operations.rollouts(config)
    if as_json:
        print_json({"schema": "aidpost.hub-updates/1", "updates": [one._asdict() for one in found]})
        return
    click.echo(f"{'update':28} {'serves':>7} {'on trial':>9} {'taken back':>11}")
    for one in found:
        said = f"{'HALTED: ' if one.halted_ms else ''}{one.why}"
        click.echo(f"{f'{one.name} {one.version}':28} {one.serves:7} {one.trial:9} {one.failed:11}  {said}".rstrip())
