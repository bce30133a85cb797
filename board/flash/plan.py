"""A plan: which proven image goes to which very disks, and what each board is told. It can be looked at, kept in a file
and run later, on all cards side by side; a disk that is another one by then is not written."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import msgspec

from aidpost.board.flash import disks, writer
from aidpost.board.flash.card import Card
from aidpost.board.flash.fat import BootFiles
from aidpost.board.flash.first_boot import (
    RECEIPT,
    FirstBoot,
    Mechanism,
    detect_mechanism,
    first_boot_files,
)
from aidpost.board.flash.image import Image, inspect
from aidpost.board.flash.receipt import Receipt, differences, read
from aidpost.errors import AidpostError, DeviceNotFoundError, UnreadableInputError, UsageError
from aidpost.sync._durable import replace_file

SCHEMA = "aidpost.flash-plan/1"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One card, recognised by more than its name, and what its board is told (None: nothing)."""

    disk: str
    model: str
    serial: str
    size: int
    first_boot: FirstBoot | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag=SCHEMA, forbid_unknown_fields=True):
    """Everything that `run` needs; it holds the Wi-Fi key and enrolment tokens, so it is its owner's only."""

    image: Image
    mechanism: Mechanism | None
    jobs: tuple[Job, ...]
    package: str = ""
    internal: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one card. `written` is not yet success where a board was told something: see `confirm`."""

    disk: str
    written: bool
    error: dict[str, str] | None = None


def make_plan(
    image: Path,
    targets: Sequence[tuple[Path, FirstBoot | None]],
    *,
    package: Path | None = None,
    first_boot: Mechanism | None = None,
    internal: bool = False,
    root: Path = Path("/"),
    **proof: Any,
) -> Plan:
    """Prove the image, look at every disk, find out how the image's first boot is set up; nothing is written.

    `proof` goes on to `inspect`; `first_boot` is a person's word, for an image that does not tell.
    """
    if len({path.resolve() for path, _ in targets}) != len(targets):
        raise UsageError(operation="planning", target=str(image), cause="one card is named twice")
    found = [disks.find(path, root, internal=internal) for path, _ in targets]
    for disk in found:
        disks.check(disk, 0, str(image))  # before minutes of unpacking
    wanted = any(told for _, told in targets)
    with tempfile.TemporaryDirectory(prefix="aidpost-flash-") as folder:
        copy = Path(folder) / "boot"
        proven = inspect(image, boot_copy=copy if wanted else None, **proof)
        mechanism = None
        if wanted:
            mechanism = _mechanism(proven, copy, first_boot, [told for _, told in targets if told], package)
    for disk in found:
        disks.check(disk, proven.size, str(image))
    jobs = [
        Job(disk=disk.path, model=disk.model, serial=disk.serial, size=disk.size, first_boot=told)
        for disk, (_, told) in zip(found, targets, strict=True)
    ]
    return Plan(
        image=proven,
        mechanism=mechanism,
        jobs=tuple(jobs),
        package=str(package.absolute()) if package else "",
        internal=internal,
    )


def _mechanism(
    image: Image, copy: Path, given: Mechanism | None, told: Sequence[FirstBoot], package: Path | None
) -> Mechanism:
    if image.boot_start is None:
        raise UnreadableInputError(
            operation="preparing the first boot",
            target=image.path,
            cause="the image has no boot partition that settings could be put on",
            remedy="Write it without settings, or use an image for this board.",
        )
    boot = BootFiles(copy, image.boot_start)
    mechanism = given or detect_mechanism(boot, image.path)
    for one in told:  # what the mechanism cannot do is said now, not when the card is half written
        first_boot_files(mechanism, one, boot.read, b"" if package else None)
    return mechanism


def save(plan: Plan, path: Path) -> None:
    """Keep a plan in a file that only its owner may read."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(plan)))


def load(path: Path) -> Plan:
    """The plan in a file.

    Raises
    ------
    UnreadableInputError
        It is none, or damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, msgspec.MsgspecError, UsageError) as error:
        raise UnreadableInputError(
            operation="reading the plan", target=str(path), cause=str(error), remedy="aidpost board flash plan"
        ) from None


def run_job(plan: Plan, job: Job, report: Callable[[writer.Progress], None], root: Path = Path("/")) -> None:
    """Write one card of a plan, if it is still that card."""
    disk = disks.find(Path(job.disk), root, internal=plan.internal)
    if (disk.serial, disk.size, disk.model) != (job.serial, job.size, job.model):
        raise DeviceNotFoundError(
            operation="checking the card",
            target=job.disk,
            cause=f"another disk is there now: {disk.model} instead of {job.model}, or another size or serial number",
            remedy="Make the plan again: disks change their names when they are plugged in.",
        )
    disks.check(disk, plan.image.size, plan.image.path)
    card = Card(Path(job.disk))
    try:
        files: Mapping[str, bytes] = {}
        if job.first_boot and plan.mechanism and plan.image.boot_start is not None:
            # the files that the mechanism alters are the image's own, and are on the card only after the write
            files = _Files(plan, job.first_boot, BootFiles(Path(job.disk), plan.image.boot_start))
        writer.write(plan.image, card, files, report)
    finally:
        card.close()


class _Files(Mapping[str, bytes]):
    """The first boot's files, made when they are first asked for."""

    def __init__(self, plan: Plan, told: FirstBoot, boot: BootFiles) -> None:
        self._plan, self._told, self._boot = plan, told, boot
        self._made: dict[str, bytes] | None = None

    def _files(self) -> dict[str, bytes]:
        if self._made is None:
            assert self._plan.mechanism is not None
            package = Path(self._plan.package).read_bytes() if self._plan.package else None
            self._made = first_boot_files(self._plan.mechanism, self._told, self._boot.read, package)
        return self._made

    def __getitem__(self, name: str) -> bytes:
        return self._files()[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._files())

    def __len__(self) -> int:
        return len(self._files())


def _work(content: bytes, index: int, root: str, pipe: Connection) -> None:
    plan = msgspec.json.decode(content, type=Plan)
    try:
        run_job(plan, plan.jobs[index], lambda progress: pipe.send(progress), Path(root))
        pipe.send(None)
    except AidpostError as error:
        pipe.send(error)


def run(
    plan: Plan, report: Callable[[int, writer.Progress], None] = lambda index, progress: None, root: Path = Path("/")
) -> list[Outcome]:
    """Write all cards side by side, each in a process of its own: one bad card or reader stops no other."""
    context, content = multiprocessing.get_context("spawn"), msgspec.json.encode(plan)
    outcomes: dict[int, Outcome] = {}
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    for index in range(len(plan.jobs)):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(content, index, str(root), theirs))
        process.start()
        theirs.close()
        running[ours] = (index, process)
    while running:
        for pipe in [one for one in wait(list(running)) if isinstance(one, Connection)]:
            index, process = running[pipe]
            said = _said(pipe, plan.jobs[index].disk)
            if isinstance(said, writer.Progress):
                report(index, said)
                continue
            outcomes[index] = said
            process.join()
            pipe.close()
            del running[pipe]
    return [outcomes[index] for index in range(len(plan.jobs))]


def _said(pipe: Connection, disk: str) -> writer.Progress | Outcome:
    """What a card's process says next, or that it died."""
    try:
        said = pipe.recv()
    except EOFError:
        message = f"writing the card: {disk}: its process died"
        error = {"code": "device", "message": message, "remedy": "Write it again: the card has no partition table now."}
        return Outcome(disk=disk, written=False, error=error)
    if isinstance(said, writer.Progress):
        return said
    return Outcome(disk=disk, written=said is None, error=said.to_dict() if said else None)


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """A board of the plan that has spoken: which card, which device, and what it has not done of what it was told."""

    disk: str
    device: str
    public_key: str
    board: str
    missing: tuple[str, ...]


def confirm(plan: Plan, content: bytes, source: str) -> Confirmation:
    """Which card of the plan a receipt is of, and what its board has not done.

    Raises
    ------
    UnreadableInputError
        It is no receipt, was altered, or is of no card of this plan.
    """
    receipt: Receipt = read(content, source)
    for job in plan.jobs:
        told = job.first_boot
        if told and told.nonce and told.nonce == receipt.nonce:
            asked = {key: getattr(told, key) for key in ("hostname", "user", "wifi_ssid", "timezone", "hub", "clinic")}
            return Confirmation(
                disk=job.disk,
                device=receipt.device,
                public_key=receipt.public_key,
                board=receipt.board,
                missing=tuple(differences(asked, receipt)),
            )
    raise UnreadableInputError(
        operation="confirming",
        target=source,
        cause="the receipt is of no card of this plan: an old card, or another plan's",
        remedy="Give the plan that this card was written by.",
    )


def receipt_on(card: Path, plan: Plan) -> bytes:
    """The receipt that a board has left on its card.

    Raises
    ------
    UnreadableInputError
        There is none: the board has not finished its first boot with this card.
    """
    boot = BootFiles(card, plan.image.boot_start or 0)
    try:
        return boot.read(RECEIPT)
    except AidpostError as error:
        raise UnreadableInputError(
            operation="looking for the board's receipt",
            target=str(card),
            cause=f"there is none that can be read: the first boot has not come to its end ({error.cause})",
            remedy="Boot the board from it, wait until its light is quiet, and look again.",
        ) from None
