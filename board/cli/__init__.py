"""The command line: `aidpost …`. Each command is one library call, loaded only when it is used.

Exit codes: 0 done, 1 failed, 2 usage, 3 some or all inputs unreadable, 4 not possible on this board.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from aidpost import __version__
from aidpost.errors import AidpostError

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("aidpost.board.cli.demo:demo", "A whole exam on simulated devices, with its own broker and hub."),
    "run": ("aidpost.board.cli.run:run", "The device: touch screen, sensors and sender."),
    "exam": ("aidpost.board.cli.exam:exam", "Record, interpret, report and queue one exam."),
    "analyze": ("aidpost.board.cli.analyze:analyze", "Interpret ECG recordings or fundus photographs from files."),
    "explain": ("aidpost.board.cli.explain:explain", "Why an exam came to its conclusions."),
    "devices": ("aidpost.board.cli.devices:devices", "Sensors: decode, record, replay, simulate."),
    "outbox": ("aidpost.board.cli.outbox:outbox", "What is queued for the hub."),
    "hub": ("aidpost.board.cli.hub:hub", "The other end: serve, users, enrolment."),
    "models": ("aidpost.board.cli.models:models", "List, verify and time the models."),
    "board": ("aidpost.board.cli.board:board", "This board: what it is and whether it is well."),
}
"""name -> (module:attribute, one line of help). The line stands here so that `--help` imports nothing else."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


class Settings:
    """The global options, and what follows from them."""

    def __init__(self, config: Path | None, state_dir: Path) -> None:
        self.config_path = config
        self.state_dir = state_dir


def default_state_dir() -> Path:
    """`/var/lib/aidpost` for root, as a service runs; a folder in the home directory for anybody else."""
    import os

    if os.geteuid() == 0:
        return Path("/var/lib/aidpost")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "aidpost"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="aidpost")
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file (TOML).")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where records, keys and the outbox are kept.")
@click.pass_context
def cli(ctx: click.Context, config: Path | None, state_dir: Path | None) -> None:
    """Point-of-care diagnostics: eyes, heart and vital signs, offline first."""
    ctx.obj = Settings(config, state_dir or default_state_dir())


def print_error(error: AidpostError) -> None:
    """What was being done, to which thing, why it failed and what to do, on standard error."""
    click.echo(f"aidpost: {error.operation}: {error.target}", err=True)
    click.echo(f"  why:  {error.cause}", err=True)
    if error.remedy:
        click.echo(f"  do:   {error.remedy}", err=True)


def main() -> None:
    """Entry point: every AidpostError becomes a message and its exit code."""
    try:
        cli.main(standalone_mode=True)
    except AidpostError as error:
        print_error(error)
        sys.exit(error.exit_code)
