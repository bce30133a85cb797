"""`aidpost board rotate-key`: another device key, made here."""

from __future__ import annotations

from pathlib import Path

import click

from aidpost.board import rekey
from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.cli._device import device_key, opened_store
from aidpost.board.configuration import Configuration
from aidpost.errors import UsageError
from aidpost.sync import enrolment
from aidpost.sync.keys import public_bytes
from aidpost.sync.publisher import sending


@click.command(name="rotate-key")
@click.option(
    "--to",
    type=click.Choice(["systemd-credential", "passphrase", "file"]),
    help="Where the new key is taken from at the next start; without it as now (store.key).",
)
@click.option(
    "--credential",
    type=click.Path(dir_okay=False, path_type=Path),
    default=rekey.CREDENTIAL_FILE,
    show_default=True,
    help="The file that systemd-creds writes.",
)
@click.option("--identity", is_flag=True, help="The key that the device signs with, instead; the hub must answer.")
@json_option
@settings_of
def rotate_key(settings: Settings, to: str | None, credential: Path, identity: bool, as_json: bool) -> None:
    """A new device key in the place of the old one: after a card or a passphrase got into other hands, or to take it
    from a safer place. Records stay as they are and readable; the device must be stopped. Killed at any moment, the
    next start serves with the old key or the new one, whichever it is given.

    Example: aidpost board rotate-key --to passphrase
    """
    configuration = load_configuration(settings)
    if identity:
        _change_identity(settings, configuration, as_json)
        return
    old = device_key(settings, configuration)
    chosen = to or configuration.store.key

    def ask() -> str:
        text = "New passphrase of this device"
        return str(click.prompt(text, hide_input=True, confirmation_prompt=True, err=True))

    new = rekey.rotate(settings.state_dir, old, chosen, ask, credential)
    if as_json:
        print_json({"store_key": chosen, "source": new.source, "weak": new.weak})
        return
    click.echo(f"Everything is under the new key: {new.source}.")
    if chosen != configuration.store.key:
        click.echo(f'Now set in the configuration, before the device is started: store.key = "{chosen}"')


def _change_identity(settings: Settings, configuration: Configuration, as_json: bool) -> None:
    with opened_store(settings, configuration) as store, sending(store.folder):
        folder = store.folder / enrolment.FOLDER
        enrolled = enrolment.load(folder, store.key)
        if enrolled is None:
            raise UsageError(
                operation="changing the device's signing key",
                target=store.identity.name,
                cause="it was not enrolled at its hub by a code",
                remedy="On the hub: aidpost hub enroll NAME; here: aidpost board provision --code CODE.",
            )
        enrolled.change_identity(store, synced=store.now().synced)
        public = public_bytes(store.identity.public).hex()
    if as_json:
        print_json({"name": store.identity.name, "public_key": public})
    else:
        click.echo(f"{store.identity.name} signs with a new key, and the hub knows it: {public}")
