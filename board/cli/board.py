"""`aidpost board`: what this board is."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.detect import detect as detect_board


@click.group()
def board() -> None:
    """This board: what it is and whether it is well."""


@board.command()
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), default="/", hidden=True)
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
