"""`aidpost run`: the device, with its screen, sensors and sender."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from aidpost.board import device, runtime, watchdog
from aidpost.board.cli import Settings
from aidpost.board.cli._common import load_configuration, settings_of


@click.command()
@click.option("--simulate", is_flag=True, help="Practice only: simulated sensors, nothing is sent. For a laptop.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the screen's pages; 0 takes a free one.")
@settings_of
def run(settings: Settings, simulate: bool, port: int | None) -> None:
    """Run the device: its touch screen, sensors and sender, until it is ended.

    Example: aidpost run --simulate
    """
    configuration = load_configuration(settings)
    if port is not None:
        console = msgspec.structs.replace(configuration.console, port=port)
        configuration = msgspec.structs.replace(configuration, console=console)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    key = device.device_key(
        configuration,
        settings.state_dir,
        passphrase=lambda: str(click.prompt("Passphrase of this device", hide_input=True, err=True)),
        credentials=Path(credentials) if credentials else None,
    )
    if key.weak:
        click.echo("aidpost: the device key is a file beside the data: weak (store.key)", err=True)
    running = runtime.Running(configuration, settings.state_dir, key, practice_only=simulate)
    dogs: list[watchdog.Watchdog] = []

    def serving(url: str) -> None:
        click.echo(f"screen at {url}")
        dogs.append(watchdog.start(os.environ, url))

    try:
        runtime.run(running, serving=serving)
    finally:
        for dog in dogs:
            dog.stop()
