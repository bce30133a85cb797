"""`aidpost outbox`: what the hub has, and what it has not."""

from __future__ import annotations

import click

from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.cli._device import opened_store
from aidpost.sync import outbox as outbox_of


@click.group()
def outbox() -> None:
    """What is queued for the hub."""


@outbox.command()
@json_option
@settings_of
def status(settings: Settings, as_json: bool) -> None:
    """Queued, receipted and refused records by class, and the age of the oldest.

    Example: aidpost outbox status --json
    """
    with opened_store(settings, load_configuration(settings)) as store:
        classes, blobs, dead = outbox_of.status(store), outbox_of.blob_status(store), outbox_of.dead_letters(store)
    if as_json:
        print_json({"classes": classes, "blobs": blobs, "dead_letters": dead})
        return
    click.echo(f"{'class':12} {'queued':>8} {'at the hub':>11} {'refused':>8} {'oldest waits':>13}")
    for one in classes:
        click.echo(f"{one.cls:12} {one.queued:8} {one.receipted:11} {one.dead:8} {_waits(one.oldest_s):>13}")
    click.echo(f"photographs and waveforms to send: {blobs.queued} ({blobs.bytes / 1e6:.1f} MB)")
    for letter in dead:
        click.echo(f"refused: {letter.cls}/{letter.seq} {letter.kind}: {letter.code}: {letter.reason}")


def _waits(seconds: int | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"


@outbox.command()
@click.option("--class", "cls", help="Only records of this class.")
@settings_of
def retry(settings: Settings, cls: str | None) -> None:
    """Put refused records back into the queue.

    Example: aidpost outbox retry --class report
    """
    with opened_store(settings, load_configuration(settings)) as store:
        click.echo(f"{outbox_of.retry(store, cls)} records are queued again.")
