"""`aidpost board flash`: from an image and a card to a board that has said itself that it is set up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from aidpost.board.cli._common import json_option, print_json
from aidpost.board.flash import disks
from aidpost.board.flash.first_boot import WRITERS, FirstBoot, new_nonce, wifi_key
from aidpost.board.flash.plan import Confirmation, Outcome, Plan, confirm, load, make_plan, receipt_on, run, save
from aidpost.board.flash.receipt import Listener
from aidpost.board.flash.signature import trusted_key
from aidpost.board.flash.writer import Progress
from aidpost.errors import AidpostError, NotPossibleError, UsageError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
root_option = click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), default="/", hidden=True
)


@click.group()
def flash() -> None:
    """Write cards, and prove that the boards came up."""


@flash.command("list")
@root_option
@click.option("--internal", is_flag=True, help="Built-in disks may be written too.")
@json_option
def list_(root: Path, internal: bool, as_json: bool) -> None:
    """Disks, and which of them may be written.

    Example: aidpost board flash list
    """
    found = disks.disks(root, internal=internal)
    if as_json:
        print_json({"schema": "aidpost.disks/1", "disks": found})
        return
    for disk in found:
        click.echo(
            f"{disk.path:16} {disk.size / 1e9:8.1f} GB  {disk.bus:5} {disk.model:24} {disk.refused or 'may be written'}"
        )
    if not found:
        click.echo("no disks")


_OPTIONS: list[Callable[[Any], Any]] = [
    click.argument("image", type=FILE),
    click.argument("disk", type=click.Path(path_type=Path), nargs=-1, required=True),
    click.option("--sha256", "file_sha256", default="", help="Of the file, as published."),
    click.option("--content-sha256", default="", help="Of the unpacked image."),
    click.option("--signature", type=FILE, help="Detached: minisign's, or 64 bytes of Ed25519."),
    click.option("--key", help="The public key it must be of: a file or the key itself."),
    click.option("--bmap", type=FILE, help="The block map: only what holds something is written."),
    click.option("--internal", is_flag=True, help="Built-in disks may be written too."),
    click.option("--hostname", default="", help="{n} stands for the number of the card, from 1."),
    click.option("--user", default="", help="The account to make."),
    click.option("--password-file", type=FILE, help="Its password; without it only the SSH key opens it."),
    click.option("--ssh-key", type=FILE, multiple=True, help="A .pub file; may be repeated."),
    click.option("--wifi", default="", metavar="SSID", help="The network to join."),
    click.option("--wifi-password-file", type=FILE, help="Its passphrase."),
    click.option("--wifi-country", default="", help="Two letters, for the radio's rules."),
    click.option("--timezone", default="", help="As in Africa/Kampala."),
    click.option("--hub", default="", metavar="URL", help="Where the board enrols."),
    click.option("--token-file", type=FILE, help="Enrolment tokens, one a line: one for each card."),
    click.option("--clinic", default="", help="The clinic's id."),
    click.option("--report-to", default="", metavar="URL", help="Where `confirm --listen` waits for the boards."),
    click.option("--package", type=FILE, help="aidpost's .deb, installed at the first boot."),
    click.option("--first-boot", type=click.Choice(list(WRITERS)), help="If the image does not tell its mechanism."),
    root_option,
]


def planning(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments of a plan."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _line(path: Path | None) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0] if path else ""


def _hash_password(path: Path | None) -> str:
    """sha512crypt, which every system reads, by OpenSSL: Python has no `crypt` any more."""
    import subprocess

    if path is None:
        return ""
    command = ["openssl", "passwd", "-6", "-stdin"]
    try:
        done = subprocess.run(command, input=_line(path), capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotPossibleError(
            operation="hashing the password", target="openssl", cause=str(error), remedy="sudo apt-get install openssl"
        ) from None
    return done.stdout.strip()


def _settings(count: int, given: dict[str, Any]) -> list[FirstBoot | None]:
    """What each of `count` boards is told; None where nothing was given."""
    tokens = given["token_file"].read_text(encoding="utf-8").split() if given["token_file"] else [""] * count
    if len(tokens) < count:
        cause = f"{count} cards and {len(tokens)} tokens: a token is for one device"
        raise UsageError(operation="planning", target=str(given["token_file"]), cause=cause, remedy="Get more tokens.")
    passphrase = _line(given["wifi_password_file"])
    common = {
        "user": given["user"],
        "password_hash": _hash_password(given["password_file"]),
        "ssh_keys": tuple(_line(path).strip() for path in given["ssh_key"]),
        "wifi_ssid": given["wifi"],
        "wifi_psk": wifi_key(given["wifi"], passphrase) if passphrase else "",
        "wifi_country": given["wifi_country"],
        "timezone": given["timezone"],
        "hub": given["hub"],
        "clinic": given["clinic"],
        "report_to": given["report_to"],
    }
    if not (any(common.values()) or given["hostname"] or any(tokens) or given["package"]):
        return [None] * count
    if count > 1 and given["hostname"] and "{n}" not in given["hostname"]:
        cause = f"{count} boards would have the same name"
        raise UsageError(operation="planning", target="--hostname", cause=cause, remedy="Put {n} into it.")
    return [
        FirstBoot(**common, hostname=given["hostname"].replace("{n}", str(number)), token=token, nonce=new_nonce())
        for number, token in enumerate(tokens[:count], 1)
    ]


def _plan(image: Path, disk: tuple[Path, ...], given: dict[str, Any]) -> Plan:
    if bool(given["signature"]) != bool(given["key"]):
        cause = "a signature and the key that it must be of go together"
        raise UsageError(operation="checking the image", target=str(image), cause=cause, remedy="Give both.")
    signature = (given["signature"], trusted_key(given["key"])) if given["signature"] else None
    return make_plan(
        image,
        list(zip(disk, _settings(len(disk), given), strict=True)),
        package=given["package"],
        first_boot=given["first_boot"],
        internal=given["internal"],
        root=given["root"],
        file_sha256=given["file_sha256"],
        sha256=given["content_sha256"],
        signature=signature,
        bmap=given["bmap"],
        progress=_unpacking(),
    )


def _unpacking() -> Callable[[int], None]:
    last = [0.0]

    def show(done: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - last[0] > 0.2:
            last[0] = time.monotonic()
            click.echo(f"\rchecking the image: {done / 1e6:.0f} MB", nl=False, err=True)

    return show


def _show(plan: Plan) -> None:
    image = plan.image
    click.echo(f"image       {image.path} ({image.kind}), {image.size / 1e9:.2f} GB unpacked")
    click.echo(f"vouched by  {', '.join(image.vouched)}")
    click.echo(f"block map   {image.bmap or 'none: every block is written'}")
    click.echo(f"first boot  {plan.mechanism or 'nothing is set'}")
    for job in plan.jobs:
        click.echo(
            f"card        {job.disk}: {job.model}, {job.size / 1e9:.1f} GB, "
            f"serial {job.serial or 'unknown'}: ALL OF IT IS ERASED"
        )
        for key, value in (job.first_boot.public() if job.first_boot else {}).items():
            if value:
                click.echo(f"              {key}: {', '.join(value) if isinstance(value, list) else value}")


@flash.command()
@planning
@click.option("--save", "save_to", type=click.Path(path_type=Path), help="Keep the plan here (it holds secrets).")
@json_option
def plan(image: Path, disk: tuple[Path, ...], save_to: Path | None, as_json: bool, **given: Any) -> None:
    """Check the image and the cards, and say what would be written; nothing is.

    Example: aidpost board flash plan os.img.xz /dev/sda --sha256 3f… --hostname clinic7 --save plan.json
    """
    made = _plan(image, disk, given)
    if save_to:
        save(made, save_to)
    if as_json:
        shown = msgspec.to_builtins(made)
        for job, one in zip(shown["jobs"], made.jobs, strict=True):
            job["first_boot"] = one.first_boot.public() if one.first_boot else None
        print_json(shown)
    else:
        _show(made)


@flash.command()
@planning
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="One JSON object a line: progress and outcomes.")
def write(image: Path, disk: tuple[Path, ...], yes: bool, as_jsonl: bool, **given: Any) -> None:
    """Plan, ask, write and compare, all cards side by side.

    Example: aidpost board flash write os.img.xz /dev/sda --signature os.img.xz.minisig --key maker.pub
    """
    _write(_plan(image, disk, given), given["root"], yes, as_jsonl)


@flash.command("run")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@root_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="One JSON object a line: progress and outcomes.")
def run_(plan_file: Path, root: Path, yes: bool, as_jsonl: bool) -> None:
    """Write the cards of a saved plan, if they are still the same cards.

    Example: aidpost board flash run plan.json
    """
    _write(load(plan_file), root, yes, as_jsonl)


def _write(plan: Plan, root: Path, yes: bool, as_jsonl: bool) -> None:
    if not as_jsonl:
        _show(plan)
    if not yes:
        click.confirm("Erase and write?", abort=True, err=True)

    def report(index: int, progress: Progress) -> None:
        disk = plan.jobs[index].disk
        if as_jsonl:
            print_json({"disk": disk, "progress": progress})
        elif sys.stderr.isatty():
            rate = f"{progress.rate / 1e6:6.1f} MB/s" if progress.rate else ""
            left = f"{progress.left_s:5.0f} s left" if progress.left_s is not None else ""
            share = 100 * progress.done // max(progress.total, 1)
            click.echo(f"\r{disk} {progress.step:12} {share:3d} % {rate} {left}   ", nl=False, err=True)

    outcomes = run(plan, report, root)
    for outcome, job in zip(outcomes, plan.jobs, strict=True):
        _print_outcome(outcome, job.first_boot is not None, as_jsonl)
    sys.exit(0 if all(outcome.written for outcome in outcomes) else 1)


def _print_outcome(outcome: Outcome, told: bool, as_jsonl: bool) -> None:
    if as_jsonl:
        state = "failed" if not outcome.written else "written, not confirmed" if told else "written"
        print_json({"disk": outcome.disk, "state": state, "error": outcome.error})
    elif outcome.error:
        click.echo(f"{outcome.disk}: FAILED: {outcome.error['message']}. {outcome.error['remedy']}")
    elif told:
        click.echo(
            f"{outcome.disk}: written and compared; done only when its board says so: aidpost board flash confirm"
        )
    else:
        click.echo(f"{outcome.disk}: written and compared")


@flash.command("confirm")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option("--card", type=click.Path(exists=True, path_type=Path), multiple=True, help="A card back from its board.")
@click.option("--listen", metavar="HOST:PORT", help="Wait here for the boards to report.")
@click.option("--wait", "wait_s", type=float, default=900.0, show_default=True, help="For how many seconds.")
@json_option
def confirm_(plan_file: Path, card: tuple[Path, ...], listen: str | None, wait_s: float, as_json: bool) -> None:
    """Whether every board of a plan came up as it was told, by its own signed word. Exit code 1 until all have.

    Example: aidpost board flash confirm plan.json --listen 192.168.1.5:8090
    """
    plan = load(plan_file)
    told = {job.disk for job in plan.jobs if job.first_boot}
    heard: dict[str, Confirmation] = {}

    def take(content: bytes, source: str) -> None:
        found = confirm(plan, content, source)
        heard[found.disk] = found
        if not as_json:
            click.echo(
                f"{found.device} ({found.board}), written as {found.disk}: {'; '.join(found.missing) or 'all set'}"
            )

    problems = []
    for one in card:
        try:
            take(receipt_on(one, plan), str(one))
        except AidpostError as error:
            problems.append(error)
    if listen:
        host, _, port = listen.rpartition(":")
        if not port.isdigit():
            raise UsageError(operation="listening", target=listen, cause="it is not HOST:PORT")
        Listener(host or "0.0.0.0", int(port), take).wait(lambda: told <= heard.keys(), wait_s)
    silent = sorted(told - heard.keys())
    if as_json:
        print_json(
            {
                "schema": "aidpost.flash-confirm/1",
                "confirmed": list(heard.values()),
                "silent": silent,
                "errors": [one.to_dict() for one in problems],
            }
        )
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        for disk in silent:
            click.echo(f"{disk}: its board has not said anything yet", err=True)
    sys.exit(0 if told and not silent and not any(one.missing for one in heard.values()) else 1)
