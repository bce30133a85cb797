"""`aidpost devices`: sensors, from the bytes up."""

from __future__ import annotations

import click

from aidpost.board.cli._common import json_option, print_json
from aidpost.firmware_bridge.sources import SOURCES


@click.group()
def devices() -> None:
    """Sensors: decode, list."""


@devices.command("list")
@json_option
def list_(as_json: bool) -> None:
    """The sources, and what has a decoder.

    Example: aidpost devices list --json
    """
    from aidpost.firmware_bridge.decoders import DECODERS

    if as_json:
        print_json({"sources": list(SOURCES), "decoders": sorted(DECODERS)})
        return
    click.echo("sources:  " + ", ".join(f"{name}:" for name in SOURCES))
    click.echo("decoders: " + ", ".join(sorted(DECODERS)))


@devices.command()
@click.argument("what")
@click.argument("hex_bytes", metavar="HEX")
def decode(what: str, hex_bytes: str) -> None:
    """What a decoder makes of these bytes, as JSON.

    Example: aidpost devices decode 0x2A37 0055
    """
    from aidpost.firmware_bridge.decoders import decode as decode_bytes

    print_json(decode_bytes(what, hex_bytes))
