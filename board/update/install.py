"""The update itself: choose, prove, build beside what serves, switch on trial, ask the new release whether it is well,
and confirm or go back. And models, which must pass their golden recordings on this board before they serve."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from aidpost.board.update.slots import Slots, version_key
from aidpost.board.update.source import Offer, Source
from aidpost.errors import AidpostError, UpdateError, UpdateRefusedError
from aidpost.inference.model import verify
from aidpost.sync._durable import sync_folder
from aidpost.sync._schema import VERSION as SCHEMA

HEALTH_DEADLINE_S = 180.0
FREE_FACTOR = 4
"""Room that a release needs while it is built, in its packed sizes: checked first, for a full disk stops half-way."""


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What an offer is compared with."""

    device: str
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine: str = platform.machine()
    store_reads: int = SCHEMA


def in_rollout(offer: Offer, device: str) -> bool:
    """Whether this device is among the share that may take the offer now. A device keeps its place as the share grows,
    and has another one for each version, so that it is not always the same clinics that go first."""
    place = int.from_bytes(hashlib.sha256(f"{offer.name} {offer.version} {device}".encode()).digest()[:8], "big")
    return place < offer.rollout * 2**64


def choose(source: Source, slots: Slots, here: Here) -> Offer | None:
    """The newest release that this device may take now; None if it has it, or is not yet in the rollout.

    Raises
    ------
    UpdateRefusedError
        A newer one is there, and this release could not come back to its records after it.
    """
    current, failed = slots.named("current"), slots.failures()
    fitting = [
        offer
        for offer in source.offers
        if offer.kind == "release"
        and (offer.python, offer.machine) == (here.python, here.machine)
        and offer.version not in failed
        and (not current or version_key(offer.version) > version_key(current))
        and in_rollout(offer, here.device)
    ]
    readable = [offer for offer in fitting if not current or offer.store_writes <= here.store_reads]
    if fitting and not readable:
        raise UpdateRefusedError(
            operation="choosing the release",
            target=fitting[0].version,
            cause=f"it writes the store's schema {fitting[0].store_writes}, and this release reads up to "
            f"{here.store_reads}: after a way back the records would not open",
            remedy="Install the release between first: it reads the new schema and still writes the old one.",
        )
    return max(readable, key=lambda offer: version_key(offer.version), default=None)


def install_wheels(archive: Path) -> Callable[[Path], None]:
    """Fills a release folder from a tar of wheels: a virtual environment of its own, with nothing from the network."""

    def install(folder: Path) -> None:
        wheels = folder / "wheels"
        _unpack(archive, wheels)
        names = sorted(str(one) for one in wheels.glob("*.whl"))
        if not names:
            raise UpdateRefusedError(operation="installing", target=str(archive), cause="there is no wheel in it")
        _call([sys.executable, "-m", "venv", str(folder)], "making the environment", folder)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _call([*pip, "--no-index", "--no-deps", *names], "installing the wheels", folder)
        shutil.rmtree(wheels)

    return install


def _unpack(archive: Path, folder: Path) -> None:
    free, packed = shutil.disk_usage(archive.parent).free, archive.stat().st_size
    if free < FREE_FACTOR * packed:
        raise UpdateError(
            operation="installing",
            target=str(archive),
            cause=f"{free >> 20} MB are free, and {FREE_FACTOR * packed >> 20} MB are needed",
            remedy="aidpost outbox status; connect the hub, or free space on the disk",
        )
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")  # no absolute names, no links out, no devices
    except (tarfile.TarError, OSError) as error:
        raise UpdateError(operation="unpacking", target=str(archive), cause=str(error)) from None


def _call(command: list[str], what: str, folder: Path) -> None:
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
    if done.returncode:
        cause = " ".join((done.stderr or done.stdout).split())[-300:]
        raise UpdateError(
            operation=what, target=str(folder), cause=cause, remedy="The release that serves is untouched."
        )


def healthy(slots: Slots, state_dir: Path, config: Path | None, deadline_s: float = HEALTH_DEADLINE_S) -> str:
    """Ask the release that `current` names whether it is well, as a process of its own; empty if it is, else why not.

    It answers by `aidpost board update health`: kernels, model runtime, golden recordings, configuration, and that the
    store opens.
    """
    words = ["--state-dir", str(state_dir), *(["--config", str(config)] if config else [])]
    command = [str(slots.folder / "current/bin/aidpost"), *words, "board", "update", "health"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, check=False)
    except subprocess.TimeoutExpired:
        return f"it did not say within {deadline_s:.0f} s whether it is well"
    except OSError as error:
        return f"it does not start: {error.strerror}"
    if done.returncode == 0:
        return ""
    return " ".join((done.stdout + done.stderr).split())[-500:] or f"exit code {done.returncode}"


def update(
    source: Source,
    slots: Slots,
    here: Here,
    health: Callable[[Slots], str],
    install: Callable[[Path], Callable[[Path], None]] = install_wheels,
    confirm: bool = True,
) -> str:
    """Install the newest release that this device may take, and prove it. Gives the version that serves now; the same
    as before where nothing is to be done. Without `confirm` a release that says it is well stays on trial, until the
    service has started with it.

    Raises
    ------
    UpdateError
        It was taken back; the release before serves, and this one is not tried again.
    """
    with slots.locked():
        slots.recover()
        if trial := slots.trial():
            raise UpdateError(
                operation="updating",
                target=trial.new,
                cause="it is on trial",
                remedy="aidpost board update confirm, or aidpost board update rollback",
            )
        offer = choose(source, slots, here)
        if offer is None:
            return slots.named("current")
        archive = source.get(offer)
        if not slots.complete(offer.version):
            slots.build(offer.version, install(archive))
        archive.unlink(missing_ok=True)
        slots.begin_trial(offer.version)
        return settle(slots, health, confirm=confirm)


def settle(slots: Slots, health: Callable[[Slots], str], *, confirm: bool = True) -> str:
    """Confirm the release on trial if it is well (or leave it there), else go back. Gives the version that serves.

    Raises
    ------
    UpdateError
        It was taken back.
    """
    trial = slots.trial()
    why = health(slots)
    if not why:
        if confirm:
            slots.confirm()
        return slots.named("current")
    if trial is None:
        raise UpdateError(
            operation="checking the release",
            target=slots.named("current"),
            cause=why,
            remedy="aidpost board doctor; there is no trial to take back: aidpost board update rollback",
        )
    old = slots.roll_back(why)
    raise UpdateError(
        operation="updating",
        target=trial.new,
        cause=f"it is not well, and {old} serves again: {why}",
        remedy="It is not tried again. Send this message to who publishes the updates.",
    )


def update_models(
    source: Source,
    slots: Slots,
    here: Here,
    prove: Callable[[Path], str] | None = None,
) -> list[str]:
    """Install newer models. Each must pass its hash, card and golden recordings on this board before it serves; one
    that does not is deleted, and what served before goes on. Gives `name version` of each that serves anew.

    Raises
    ------
    UpdateError
        A model did not pass; those before it in the index serve.
    """
    served = []
    with slots.locked():
        for offer in source.offers:
            if offer.kind != "model" or not in_rollout(offer, here.device):
                continue
            current = slots.models_serving().get(offer.name)
            if current and version_key(offer.version) <= version_key(current):
                continue
            if f"{offer.name}-{offer.version}" in slots.failures():
                continue
            _update_model(source.get(offer), offer, slots, prove or golden)
            served.append(f"{offer.name} {offer.version}")
    return served


def golden(root: Path) -> str:
    """Empty if every model below `root` passes on every runtime here, else why not."""
    try:
        checks = verify([root])
    except AidpostError as error:
        return str(error)
    broken = [f"{one.name} on {one.runtime}: {one.error.cause}" for one in checks if one.error]
    return "; ".join(broken) if broken or checks else "there is no model in it, or no runtime to try it on"


def _update_model(archive: Path, offer: Offer, slots: Slots, prove: Callable[[Path], str]) -> None:
    if "/" in offer.name or offer.name.startswith("."):
        raise UpdateRefusedError(operation="installing the model", target=offer.name, cause="it is no name of a model")
    version_key(offer.version)
    store = slots.folder / "model-store"
    trial, kept = store / ".trial", store / f"{offer.name}-{offer.version}"
    shutil.rmtree(trial, ignore_errors=True)
    _unpack(archive, trial / offer.name)
    slots.step("model unpacked")
    if why := prove(trial):
        slots.note_failure(kept.name, why)
        shutil.rmtree(trial)
        raise UpdateError(
            operation="proving the model on this board",
            target=f"{offer.name} {offer.version}",
            cause=why,
            remedy="What served before goes on. Send this message to who publishes the updates.",
        )
    shutil.rmtree(kept, ignore_errors=True)
    os.sync()
    (trial / offer.name).rename(kept)
    sync_folder(store)
    slots.step("model kept")
    before = (slots.models / offer.name).readlink().name if (slots.models / offer.name).is_symlink() else ""
    slots.link(f"models/{offer.name}", f"../model-store/{kept.name}")
    slots.step("model serves")
    archive.unlink(missing_ok=True)
    if before and before != kept.name:
        shutil.rmtree(store / before, ignore_errors=True)
