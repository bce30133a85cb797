"""`aidpost devices`: sensors, from the bytes up."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import click

from aidpost.board.cli._common import json_option, print_json
from aidpost.firmware_bridge.sources import SOURCES


@click.group()
def devices() -> None:
    """Sensors: list, decode, simulate."""


@devices.command("list")
@json_option
def list_(as_json: bool) -> None:
    """The sources, and the boards and characteristics that have a decoder.

    Example: aidpost devices list --json
    """
    from aidpost.firmware_bridge.boards import BOARDS
    from aidpost.firmware_bridge.decoders.catalogue import CHARACTERISTICS

    characteristics = {key: title for key, (title, _) in CHARACTERISTICS.items()}
    if as_json:
        boards = {name: board.title for name, board in BOARDS.items()}
        print_json({"sources": list(SOURCES), "boards": boards, "characteristics": characteristics})
        return
    click.echo("sources:  " + ", ".join(f"{name}:" for name in SOURCES))
    click.echo("boards:   " + ", ".join(BOARDS))
    click.echo("Bluetooth characteristics:")
    for key, title in characteristics.items():
        click.echo(f"  {key if len(key) > 4 else '0x' + key}  {title}")


@devices.command()
@click.argument("what")
@click.argument("hex_bytes", metavar="HEX")
def decode(what: str, hex_bytes: str) -> None:
    """What a decoder makes of these bytes, as JSON.

    Example: aidpost devices decode 0x2A37 0055
    """
    from aidpost.firmware_bridge.decoders.catalogue import decode as decode_bytes

    print_json(decode_bytes(what, hex_bytes))


@devices.command()
@click.argument("board")
@click.option(
    "--record", type=click.Path(exists=True, path_type=Path), help="Play this recording; else a simulated one."
)
@click.option("--seconds", type=click.FloatRange(min=0.1), help="End after so long; by default with Ctrl-C.")
def simulate(board: str, record: Path | None, seconds: float | None) -> None:
    """A serial board that does not exist, on a pseudo-terminal that any program can open.

    Example: aidpost devices simulate healthypi4
    """
    from aidpost.firmware_bridge.boards import BOARDS
    from aidpost.firmware_bridge.clock import SystemClock
    from aidpost.firmware_bridge.simulators.boards import ENCODERS, BoardSimulator
    from aidpost.firmware_bridge.sources import open_source

    if board not in ENCODERS:
        raise click.BadParameter(f"{board!r} cannot be simulated; known: {', '.join(ENCODERS)}", param_hint="BOARD")
    row = BOARDS[board]
    source = str(record) if record else f"sim:ecg?fs={row.fs_hz:g}&seconds=60"
    recording = open_source(source, clock=SystemClock(boot=0)).read_ecg()
    scale = (row.uv_per_count or 1.0) / 1000
    counts = [int(value) for value in (recording.millivolts(0) / scale + row.baseline).round().tolist()]
    with BoardSimulator(board, itertools.cycle(counts)) as simulated:
        click.echo(simulated.port)
        try:
            threading.Event().wait(seconds)
        except KeyboardInterrupt:
            click.echo("ended", err=True)
