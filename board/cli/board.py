"""`aidpost board`: what this board is, whether it is well, and how it is made, set up and kept up to date."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import click
import msgspec

from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.detect import detect as detect_board

GROUPS = {
    "provision": "Make this board a device of a clinic.",
    "deprovision": "Wipe this device.",
    "firmware": "Write firmware into sensors' microcontrollers.",
    "flash": "Write cards, and prove that the boards came up.",
    "rotate-key": "Another device key, or another place for it.",
    "update": "Updates of releases and models, with a way back.",
}
"""Commands in modules of their own (`aidpost.board.cli.NAME`), imported when they are used."""

_MODULES = {"deprovision": "aidpost.board.cli.provision", "rotate-key": "aidpost.board.cli.rekey"}


class BoardGroup(click.Group):
    """The commands of this file, and those of others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in GROUPS:
            command: click.Command = getattr(
                importlib.import_module(_MODULES.get(cmd_name, f"aidpost.board.cli.{cmd_name}")),
                cmd_name.replace("-", "_"),
            )
            return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        helps = {name: command.get_short_help_str(100) for name, command in self.commands.items()} | GROUPS
        with formatter.section("Commands"):
            formatter.write_dl(sorted(helps.items()))


@click.group(cls=BoardGroup)
def board() -> None:
    """This board: what it is and whether it is well."""


root_option = click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), default="/", hidden=True
)


@board.command()
@root_option
@json_option
def detect(root: Path, as_json: bool) -> None:
    """Board, processor, memory, ports, cameras, Bluetooth, clock.

    Example: aidpost board detect --json
    """
    found = detect_board(root)
    if as_json:
        print_json(found)
        return
    for name, value in msgspec.structs.asdict(found).items():
        shown = ", ".join(value) if isinstance(value, tuple) else value
        click.echo(f"{name.replace('_', ' '):16} {'–' if shown in (None, '') else shown}")


@board.command()
@root_option
@click.option("--bench", "with_bench", is_flag=True, help="Also time the stages of an exam on this board.")
@json_option
@settings_of
def doctor(settings: Settings, root: Path, with_bench: bool, as_json: bool) -> None:
    """Whether this device is well: each check's state, why, and what mends it. Exit code 1 where one failed.

    Example: aidpost board doctor --bench
    """
    from aidpost.board.analysis import models_for
    from aidpost.board.bench import bench
    from aidpost.board.doctor import Surroundings, examine, exit_code
    from aidpost.sync.clock import SystemClock

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    checks = examine(
        Surroundings(
            state_dir=settings.state_dir,
            configuration=load_configuration(settings),
            root=root,
            clock=SystemClock(root),
            credentials=Path(credentials) if credentials else None,
        )
    )
    timed = (
        bench(models_for(load_configuration(settings).inference, settings.state_dir), settings.state_dir)
        if with_bench
        else None
    )
    if as_json:
        print_json({"schema": "aidpost.doctor/1", "checks": checks} | ({"bench": timed} if timed else {}))
    else:
        for check in checks:
            click.echo(f"{check.state:8} {check.name:16} {check.why}")
            if check.mend:
                click.echo(f"{'':8} {'':16} do: {check.mend}")
    if timed and not as_json:
        click.echo(f"\n{'stage':24} {'first ms':>10} {'median ms':>10} {'slowest ms':>11} {'processor ms':>13}")
        for one in timed.stages:
            processor = "" if one.processor_ms is None else f"{one.processor_ms:13.1f}"
            times = f"{one.first_ms:10.1f} {one.median_ms:10.1f} {one.slowest_ms:11.1f} {processor}"
            click.echo(f"{one.name:24} {times}".rstrip())
        click.echo(f"{'memory':24} {'unknown' if timed.memory_mb is None else f'{timed.memory_mb:.0f} MB'}")
    sys.exit(exit_code(checks))


@board.command()
@json_option
@settings_of
def identity(settings: Settings, as_json: bool) -> None:
    """The device's name and public key, for `aidpost hub enroll`; made at the first use.

    Example: aidpost board identity
    """
    from aidpost.board.cli._device import opened_store
    from aidpost.sync.keys import public_bytes

    with opened_store(settings, load_configuration(settings)) as store:
        name, key = store.identity.name, public_bytes(store.identity.public).hex()
    if as_json:
        print_json({"name": name, "public_key": key})
    else:
        click.echo(f"{name} {key}")
