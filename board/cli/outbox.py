"""`aidpost outbox`: what the hub has, and what it has not."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click
import msgspec

from aidpost.board import device
from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.cli._device import opened_store
from aidpost.sync import outbox as outbox_of
from aidpost.sync import stick


@click.group()
def outbox() -> None:
    """What is queued for the hub."""


@outbox.command()
@json_option
@settings_of
def status(settings: Settings, as_json: bool) -> None:
    """Queued, receipted and refused records by class, the age of the oldest, the days of storage left, and whether this
    store was damaged or copied.

    Example: aidpost outbox status --json
    """
    with opened_store(settings, load_configuration(settings)) as store:
        classes, blobs, dead = outbox_of.status(store), outbox_of.blob_status(store), outbox_of.dead_letters(store)
        days, notes, size = store.space.days_left(), store.notes(), outbox_of.queued_bytes(store)
    if as_json:
        told = [note._asdict() for note in notes]
        sized = [msgspec.structs.asdict(one) | {"bytes": size.get(one.cls, 0)} for one in classes]
        print_json({"classes": sized, "blobs": blobs, "dead_letters": dead, "days_left": days, "notes": told})
        return
    click.echo(f"{'class':12} {'queued':>8} {'at the hub':>11} {'refused':>8} {'oldest waits':>13}")
    for one in classes:
        click.echo(f"{one.cls:12} {one.queued:8} {one.receipted:11} {one.dead:8} {_waits(one.oldest_s):>13}")
    click.echo(f"photographs and waveforms to send: {blobs.queued} ({blobs.bytes / 1e6:.1f} MB)")
    click.echo(f"room for {days} days of work, if the hub stays away")
    for note in notes:
        click.echo(f"{datetime.fromtimestamp(note.at_ms / 1000, timezone.utc):%Y-%m-%d}: {note.what}: {note.detail}")
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


@outbox.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@settings_of
def export(settings: Settings, file: Path, as_json: bool) -> None:
    """Write what the hub lacks to one encrypted, signed file, for a USB stick.

    Example: aidpost outbox export /media/usb/kisumu-3.aidpost
    """
    configuration = load_configuration(settings)
    with opened_store(settings, configuration) as store:
        link = device.link(configuration, store)
        done = stick.export_stick(store, file, hub_name=link.hub_name, hub_key=link.hub_key)
    if as_json:
        print_json({"file": str(file), **done._asdict()})
        return
    click.echo(f"{done.records} records and {done.blobs} photographs and waveforms are in {file}, for {link.hub_name}.")
    if done.unreadable:
        click.echo(f"{done.unreadable} photographs or waveforms do not open any more and were left out.", err=True)
    click.echo(f"They stay queued here until `aidpost outbox import` reads {file.name}.receipts, or the hub answers.")


@outbox.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@settings_of
def import_(settings: Settings, file: Path, as_json: bool) -> None:
    """Take in the receipts, reviews and referrals that the hub wrote to the stick.

    Example: aidpost outbox import /media/usb/kisumu-3.aidpost.receipts
    """
    configuration = load_configuration(settings)
    with opened_store(settings, configuration) as store:
        link = device.link(configuration, store)
        done = stick.import_receipts(store, file, hub_name=link.hub_name, hub_key=link.hub_key)
        queued = sum(one.queued for one in outbox_of.status(store))
    if as_json:
        print_json({"file": str(file), "queued": queued, **done._asdict()})
        return
    click.echo(f"{done.received} reviews, referrals and other records came from the hub; {queued} records still wait.")
    if done.refused:
        click.echo(f"{done.refused} records from the hub were refused; the log says why.", err=True)
