"""`aidpost run`: the device, with its screen, sensors and sender."""

from __future__ import annotations

import os

import click
import msgspec

from aidpost.board import remote, runtime, watchdog
from aidpost.board.cli import Settings
from aidpost.board.cli._common import settings_of
from aidpost.board.cli._device import device_key
from aidpost.board.configuration import load


@click.command()
@click.option("--simulate", is_flag=True, help="Practice only: simulated sensors, nothing is sent. For a laptop.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the screen's pages; 0 takes a free one.")
@settings_of
def run(settings: Settings, simulate: bool, port: int | None) -> None:
    """Run the device: its touch screen, sensors and sender, until it is ended.

    Example: aidpost run --simulate
    """
    own = load(settings.config_path)
    if port is not None:
        own = msgspec.structs.replace(own, console=msgspec.structs.replace(own.console, port=port))
    remote.begin(settings.state_dir)
    configuration = remote.applied(own, settings.state_dir)
    key = device_key(settings, configuration)
    running = runtime.Running(configuration, settings.state_dir, key, practice_only=simulate, own=own)
    dogs: list[watchdog.Watchdog] = []

    def serving(url: str) -> None:
        click.echo(f"screen at {url}")
        dogs.append(watchdog.start(os.environ, url))

    try:
        runtime.run(running, serving=serving)
    finally:
        for dog in dogs:
            dog.stop()
