"""A power cut at any moment of an update, on the way forward and back: a whole release serves, nothing that was said is
taken back, and the same update comes to its end afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from aidpost.board.update.install import settle
from aidpost.board.update.publish import Repository
from aidpost.board.update.slots import Slots, version_key
from aidpost.board.update.source import Offer, Source
from aidpost.errors import UpdateError, UpdateRefusedError

TOP = Path(__file__).parents[2]
RELEASES = {"1.0.0": "well", "1.1.0": "well", "1.2.0": "broken"}


def command(version: str) -> str:
    """A release's command: more than one sector, so that a torn write shows."""
    return f"# {version}\n" * 200 + f"{RELEASES[version]}\n"


@pytest.fixture(scope="module")
def published(workload: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The root of trust, and a bundle after each release; each brings a newer model, too."""
    folder = tmp_path_factory.mktemp("published")
    repository = Repository.create(folder / "served", folder / "keys")
    bundles = []
    for version in RELEASES:
        for kind, name, member in (("release", "aidpost", "bin/aidpost"), ("model", "ecg-beats", "model.tflite")):
            archive = folder / "one.tar"
            archive.write_bytes(workload.tar(member, command(version).encode()))
            offer = Offer(
                kind=kind,  # type: ignore[arg-type]
                name=name,
                version=version,
                target=f"{name}-{version}.tar",
                python="3.11",
                machine="aarch64",
                store_writes=3,
            )
            repository.add(offer, archive)
        bundles.append(folder / f"{version}.bundle")
        repository.bundle(bundles[-1])
    return folder / "served/metadata/1.root.json", bundles


@pytest.fixture(autouse=True)
def without_syncs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is looked at lies in a folder of the test's: no need to wait for the machine's own disk."""
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sync").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


class Check:
    """What must hold of a device's folder after a cut."""

    def __init__(self, workload: ModuleType, published: tuple[Path, list[Path]], finish_every: int) -> None:
        self._workload, (self._root, self._bundles) = workload, published
        self._finish_every, self._looked = finish_every, 0

    def __call__(self, image: Path, acknowledged: Iterable[bytes]) -> str | None:
        told = [json.loads(line) for lines in acknowledged for line in lines.splitlines()]
        slots = Slots(image / "device")
        if told and (wrong := self._whole(slots, "after the cut")):
            return wrong
        if (slots.folder / "trial").exists():
            guard = ["sh", str(TOP / "packaging/boot-guard"), str(slots.folder)]
            subprocess.run(guard, check=True, capture_output=True)
            if wrong := self._whole(slots, "after the guard"):
                return wrong
        self._looked += 1
        if self._looked % self._finish_every and len(told) < len(self._bundles):
            return None
        return self._finished(slots, told)

    def _whole(self, slots: Slots, when: str) -> str | None:
        serves = slots.named("current")
        if not serves:
            return f"nothing serves {when}"
        return None if self._workload.content(slots) == command(serves) else f"{serves} is not whole {when}"

    def _refuses_the_first(self, slots: Slots) -> bool:
        device = slots.folder
        try:
            Source(str(self._bundles[0]), device / "trust", device / "downloads", self._root)
        except UpdateRefusedError:
            return True
        return False

    def _finished(self, slots: Slots, told: list[dict[str, object]]) -> str | None:
        """As `aidpost board update boot` and the following night do; then everything is as if nothing had happened."""
        slots.folder.mkdir(exist_ok=True)
        with slots.locked():
            slots.recover()
            if slots.trial():
                with contextlib.suppress(UpdateError):  # taken back, as it must be
                    settle(slots, self._workload.health)
            serves = slots.named("current")
            if told and version_key(serves) < version_key(str(told[-1]["serves"])):
                return f"{serves} serves, and {told[-1]['serves']} was said"
            if told and not set(told[-1]["failed"]) <= set(slots.failures()):  # type: ignore[call-overload]
                return "a failure that was known is forgotten"
        if len(told) > 1 and not self._refuses_the_first(slots):
            return "a bundle older than what was seen is accepted again"
        for bundle in self._bundles[max(len(told) - 1, 0) :]:
            try:
                self._workload.step(slots.folder, self._root, bundle)
            except UpdateError as error:
                # the next bundle was read already before the cut
                if bundle == self._bundles[-1] or "older than what this device has seen" not in error.cause:
                    return f"the next update does not work: {error}"
        if wrong := self._whole(slots, "at the end"):
            return wrong
        model = slots.models / "ecg-beats/model.tflite"
        if slots.named("current") != "1.1.0" or "1.2.0" not in slots.failures():
            return f"in the end {slots.named('current')} serves, failed {slots.failures()}"
        return None if model.read_text() == command("1.2.0") else "the model is not whole"


@pytest.fixture(scope="module")
def trace(harness: ModuleType, shim: Path, workload: ModuleType, published, tmp_path_factory):  # type: ignore[no-untyped-def]
    root, bundles = published
    return harness.traced(shim, tmp_path_factory.mktemp("traced"), root, *bundles, workload="update_workload.py")


def test_a_whole_release_serves_after_a_cut_at_any_moment(  # type: ignore[no-untyped-def]
    harness: ModuleType,
    workload: ModuleType,
    published,
    trace,
    tmp_path: Path,
) -> None:
    assert sum(one.path == "acknowledged" and one.op == "w" for one in trace) == len(RELEASES)
    check = Check(workload, published, finish_every=7)
    looked, found = harness.violations(trace, tmp_path, check=check)
    assert looked > 200
    assert found == []


@pytest.mark.parametrize(
    ("what", "left_out"),
    [
        ("a release's files", lambda one: one.op == "S"),
        ("the word that it is complete", lambda one: one.path.startswith("device/releases/") and one.op == "s"),
        ("the links", lambda one: one.path == "device"),
        ("why it was taken back", lambda one: "failed" in one.path),
        ("the versions that were seen", lambda one: one.path.startswith("device/trust")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_leaving_out_any_sync_of_an_update_breaks_a_promise(  # type: ignore[no-untyped-def]
    what: str,
    left_out,
    harness: ModuleType,
    workload: ModuleType,
    published,
    trace,
    tmp_path: Path,
) -> None:
    check = Check(workload, published, finish_every=5)
    variants = ("nothing more", "names survive")
    _, found = harness.violations(trace, tmp_path, skip=left_out, variants=variants, stop_at_first=True, check=check)
    assert found, f"nothing goes wrong without the sync of {what}"
