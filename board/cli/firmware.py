"""`aidpost board firmware`: firmware into the microcontrollers of sensors."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from aidpost.board.cli._common import json_option, print_json
from aidpost.board.firmware import write as writing
from aidpost.board.firmware.images import read_firmware
from aidpost.board.flash.signature import trusted_key
from aidpost.errors import UsageError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def firmware() -> None:
    """Write firmware into sensors' microcontrollers."""


@firmware.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Boards that are connected, and what their connection tells of them.

    Example: aidpost board firmware list
    """
    found = writing.connected()
    if as_json:
        print_json({"schema": "aidpost.boards/1", "boards": found})
        return
    for one in found:
        click.echo(f"{one.where:24} {one.chip or one.kind or 'unknown':12} {one.name}")
    if not found:
        click.echo("no serial port and no boot loader's drive")


@firmware.command()
@click.argument("image", type=FILE)
@click.option("--to", "where", default="", help="The port, or the folder of the boot loader's drive.")
@click.option("--chip", default="", help="The chip that must be there: esp32s3, 0x410, atmega328p.")
@click.option("--address", help="Where it goes, as 0x8000; without it the image or the chip's start tells.")
@click.option("--baud", type=int, help="A lower rate for a bad cable.")
@click.option("--sha256", default="", help="Of the file, as published.")
@click.option("--signature", type=FILE, help="Detached: minisign's, or 64 bytes of Ed25519.")
@click.option("--key", help="The public key it must be of: a file or the key itself.")
@click.option("--expect", default="", help="What the board must announce afterwards, as its version.")
@click.option("--esptool-option", multiple=True, help="Goes on to esptool; may be repeated.")
@json_option
def write(
    image: Path,
    where: str,
    chip: str,
    address: str | None,
    baud: int | None,
    sha256: str,
    signature: Path | None,
    key: str | None,
    expect: str,
    esptool_option: tuple[str, ...],
    as_json: bool,
) -> None:
    """Prove the image, find the board, write, read back, start it and ask it who it is.

    Example: aidpost board firmware write ecg.uf2 --to /media/RPI-RP2 --sha256 9b…
    """
    if bool(signature) != bool(key):
        cause = "a signature and the key that it must be of go together"
        raise UsageError(operation="checking the firmware", target=str(image), cause=cause, remedy="Give both.")
    try:
        start = int(address, 0) if address else None
    except ValueError:
        cause = "it is no number"
        raise UsageError(operation="checking the firmware", target=f"--address {address}", cause=cause) from None
    proven = read_firmware(
        image, sha256=sha256, signature=(signature, trusted_key(key)) if signature and key else None, address=start
    )
    board = writing.choose(proven, writing.connected(), where)

    def report(done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{board.where}: {100 * done // total:3d} %", nl=done == total, err=True)

    done = writing.write(proven, board, report, chip=chip, baud=baud, expect=expect, esptool_options=esptool_option)
    if as_json:
        print_json({"schema": "aidpost.firmware/1", "sha256": proven.sha256, "result": done})
        return
    what = f"{done.written} bytes written and compared" if done.written else "it held this firmware already"
    click.echo(f"{done.where} ({done.chip}): {what}; {f'it says: {done.answer}' if done.answer else 'it says nothing'}")
