"""The device's store for a command, with its key asked for where it must be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from aidpost.board import device
from aidpost.board.cli import Settings
from aidpost.board.configuration import Configuration
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Store


def device_key(settings: Settings, configuration: Configuration) -> DeviceKey:
    """The device's key, its passphrase asked for where that is what opens it; a weak one is said to be."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    key = device.device_key(
        configuration,
        settings.state_dir,
        passphrase=lambda: str(click.prompt("Passphrase of this device", hide_input=True, err=True)),
        credentials=Path(credentials) if credentials else None,
    )
    if key.weak:
        click.echo("aidpost: the device key is a file beside the data: weak (store.key)", err=True)
    return key


@contextmanager
def opened_store(settings: Settings, configuration: Configuration) -> Iterator[Store]:
    """The store of `--state-dir`, closed afterwards."""
    key = device_key(settings, configuration)
    with device.open_store(configuration, settings.state_dir, key) as store:
        yield store
