"""`aidpost demo`: a whole exam, and where to look at it."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import click

from aidpost.board.cli._common import json_option, print_json
from aidpost.board.cli.exam import summary
from aidpost.board.demo import Scene, Shown, demonstrate
from aidpost.firmware_bridge.simulators.ecg import RHYTHMS


@click.command()
@click.option("--once", is_flag=True, help="End when the hub's receipt is in.")
@click.option("--rhythm", type=click.Choice(list(RHYTHMS)), default="af", show_default=True)
@click.option("--grade", type=click.IntRange(0, 4), default=2, show_default=True, help="Simulated retinopathy (ICDR).")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Which simulated patient.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the hub's pages; by default a free one.")
@json_option
def demo(once: bool, rhythm: str, grade: int, seed: int, port: int, as_json: bool) -> None:
    """A whole exam on simulated devices, with an embedded broker and a hub of its own.

    Example: aidpost demo --once --json
    """

    def linger(shown: Shown) -> None:
        if once:
            return
        click.echo(summary(shown.report))
        click.echo(f"\nLook at it:  {shown.exam_url}\n  user {shown.user}, password {shown.password}\nCtrl-C ends it.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("\nended", err=True)

    def say(step: str) -> None:
        click.echo(f"aidpost: {step}", err=True)

    with tempfile.TemporaryDirectory(prefix="aidpost-demo-") as folder:
        shown = demonstrate(
            Path(folder) / "state", Scene(rhythm=rhythm, grade=grade, seed=seed), port=port, progress=say, linger=linger
        )
    if once:
        if as_json:
            print_json({"synced": shown.synced, "seconds": shown.seconds, "report": shown.report})
        else:
            click.echo(summary(shown.report))
            click.echo(f"synced in {shown.seconds:.1f} s")
