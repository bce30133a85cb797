"""Updates: only what was signed and is newer; proven before it is kept; always a release that works."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.board.update.install import Here, choose, healthy, in_rollout, update, update_models
from aidpost.board.update.publish import Repository
from aidpost.board.update.slots import STARTS_ON_TRIAL, Slots, version_key
from aidpost.board.update.source import Offer, Source
from aidpost.errors import StoreLockedError, UpdateError, UpdateRefusedError
from aidpost.inference.model import SHIPPED

from .conftest import HERE, Publisher, shell_release, tar_of, unpack

TOP = Path(__file__).parents[3]


def well(slots: Slots) -> str:
    return healthy(slots, slots.folder, None, 20)


def run(publisher: Publisher, source: Source | None = None, here: Here = HERE) -> str:
    return update(source or publisher.source(), publisher.slots, here, well, unpack)


def says(slots: Slots) -> str:
    """What the release that serves answers; it must always answer."""
    done = subprocess.run([str(slots.folder / "current/bin/aidpost")], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_newest_release_is_installed_proven_and_confirmed(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    assert run(publisher) == "1.0.0"
    publisher.release("1.9.0")
    publisher.release("1.10.0")
    assert run(publisher) == "1.10.0"
    assert says(publisher.slots) == "1.10.0"
    assert publisher.slots.named("previous") == "1.0.0"
    assert publisher.slots.trial() is None
    assert run(publisher) == "1.10.0"


def test_older_releases_than_the_one_before_are_removed(publisher: Publisher) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publisher.release(version)
        run(publisher)
    assert publisher.slots.installed() == ["1.1.0", "1.2.0"]


def test_a_release_that_is_not_well_is_taken_back_at_once_and_not_tried_again(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("1.1.0", well=False)
    with pytest.raises(UpdateError, match=r"1\.0\.0 serves again: models: broken"):
        run(publisher)
    assert says(publisher.slots) == "1.0.0"
    assert publisher.slots.failures() == {"1.1.0": "models: broken"}
    assert run(publisher) == "1.0.0"
    publisher.release("1.2.0")
    assert run(publisher) == "1.2.0"


def test_a_release_that_does_not_even_start_is_taken_back(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("1.1.0", content=tar_of({"bin/nothing": b""}))
    with pytest.raises(UpdateError, match="does not start"):
        run(publisher)
    assert says(publisher.slots) == "1.0.0"


def test_a_release_that_hangs_is_taken_back(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("1.1.0", content=tar_of({"bin/aidpost": b"#!/bin/sh\nexec sleep 60\n"}))
    with pytest.raises(UpdateError, match="did not say within"):
        update(publisher.source(), publisher.slots, HERE, lambda slots: healthy(slots, slots.folder, None, 0.3), unpack)
    assert says(publisher.slots) == "1.0.0"


def test_downgrade_by_an_old_bundle_is_refused(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    old = publisher.bundle("old.bundle")
    publisher.release("1.1.0")
    assert run(publisher) == "1.1.0"
    with pytest.raises(UpdateRefusedError, match="older than what this device has seen"):
        publisher.source(old)
    assert says(publisher.slots) == "1.1.0"


def test_an_older_release_that_is_validly_signed_is_not_taken(publisher: Publisher) -> None:
    publisher.release("1.1.0")
    run(publisher)
    publisher.release("1.0.0")
    assert run(publisher) == "1.1.0"


def test_what_was_seen_is_remembered_over_a_way_back(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    old = publisher.bundle("old.bundle")
    publisher.release("1.1.0", well=False)
    with pytest.raises(UpdateError):
        run(publisher)
    with pytest.raises(UpdateRefusedError):
        publisher.source(old)


def test_freeze_metadata_that_is_out_of_date_is_refused(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    from aidpost.board.update import publish

    monkeypatch.setitem(publish.DAYS, "timestamp", -1)
    publisher.release("1.0.0")
    with pytest.raises(UpdateRefusedError, match="out of date"):
        publisher.source()


def altered(bundle: Path, name_part: str, change: bytes) -> Path:
    out = bundle.with_suffix(".altered")
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            new.writestr(member, content + change if name_part in member else content)
    return out


@pytest.mark.parametrize("part", ["timestamp", "snapshot", "targets.json", "index.json"])
def test_a_bundle_altered_anywhere_is_refused(part: str, publisher: Publisher) -> None:
    publisher.release("1.0.0")
    with pytest.raises((UpdateRefusedError, UpdateError)):
        publisher.source(altered(publisher.bundle(), part, b"x"))


def test_an_altered_release_is_refused_and_nothing_is_installed(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    with pytest.raises(UpdateError):
        run(publisher, publisher.source(altered(publisher.bundle(), "aidpost-1.0.0.tar", b"x")))
    assert publisher.slots.installed() == []


def test_a_bundle_of_somebody_else_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    other = Repository.create(tmp_path / "other", tmp_path / "other-keys")
    other.bundle(tmp_path / "other.bundle")
    with pytest.raises(UpdateRefusedError, match="not signed as it must be"):
        publisher.source(tmp_path / "other.bundle")


def test_a_bundle_that_was_cut_off_is_refused(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    bundle = publisher.bundle()
    bundle.write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(UpdateError):
        publisher.source(bundle)


def test_a_release_whose_records_the_old_one_could_not_read_is_refused(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("2.0.0", store_writes=4)
    with pytest.raises(UpdateRefusedError, match="after a way back the records would not open"):
        run(publisher)
    publisher.release("1.5.0", store_writes=3)
    assert run(publisher) == "1.5.0"


def test_a_release_for_another_machine_or_python_is_not_taken(publisher: Publisher) -> None:
    publisher.release("1.0.0", machine="x86_64")
    publisher.release("1.1.0", python="3.13")
    assert choose(publisher.source(), publisher.slots, HERE) is None


def test_a_halted_rollout_is_taken_by_nobody(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("1.1.0")
    publisher.repository.set_rollout("aidpost", "1.1.0", 0)
    assert run(publisher) == "1.0.0"
    publisher.repository.set_rollout("aidpost", "1.1.0", 1)
    assert run(publisher) == "1.1.0"


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_growing_rollout_only_adds_devices(one: float, other: float) -> None:
    less, more = sorted((one, other))
    for device in range(20):
        early = Offer(kind="release", name="aidpost", version="1.0.0", target="", rollout=less)
        late = Offer(kind="release", name="aidpost", version="1.0.0", target="", rollout=more)
        assert not in_rollout(early, f"d{device}") or in_rollout(late, f"d{device}")


def test_a_tenth_is_a_tenth() -> None:
    offer = Offer(kind="release", name="aidpost", version="1.0.0", target="", rollout=0.1)
    assert 70 < sum(in_rollout(offer, f"device-{number}") for number in range(1000)) < 130


@pytest.mark.parametrize("version", ["", "1", "1.0.0-x", "../1.0", "1.0.0\n", "v1.0", "1.0.0.0.0"])
def test_what_is_no_version_is_refused(version: str, publisher: Publisher) -> None:
    if version == "1":
        assert version_key("1") < version_key("1.0.1")
        return
    with pytest.raises(UpdateError):
        version_key(version)


def test_a_prerelease_comes_before_its_release() -> None:
    ordered = ["1.0.0a1", "1.0.0rc1", "1.0.0", "1.0.1", "1.9.0", "1.10.0"]
    assert sorted(ordered, key=version_key) == ordered


def test_two_updates_at_once_are_refused(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    source = publisher.source()
    with publisher.slots.locked(), pytest.raises(StoreLockedError):
        run(publisher, source)


_KILLED_IN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[5])
from tests.board.update.conftest import HERE, unpack
from aidpost.board.update.install import healthy, update
from aidpost.board.update.slots import Slots
from aidpost.board.update.source import Source
from aidpost.errors import UpdateError
def step(name):
    print(name, flush=True)
    if name == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
device = Path(sys.argv[2])
slots = Slots(device, step)
source = Source(sys.argv[3], device / "trust", device / "downloads", Path(sys.argv[4]))
try:
    print("serves", update(source, slots, HERE, lambda at: healthy(at, device, None, 20), unpack))
except UpdateError as error:
    print("taken back", error.cause)
"""

FORWARD = ("building", "built", "complete", "previous", "trial", "switched", "confirming", "confirmed")
BACK = ("going back", "failure noted", "gone back", "rolled back")


def killed_in(state: str, publisher: Publisher, bundle: Path) -> subprocess.CompletedProcess[str]:
    words = [state, str(publisher.slots.folder), str(bundle), str(publisher.root), str(TOP)]
    return subprocess.run([sys.executable, "-c", _KILLED_IN, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("state", FORWARD)
def test_killed_in_each_state_a_release_serves_and_the_update_is_done_at_last(state: str, publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("1.1.0")
    bundle = publisher.bundle()
    done = killed_in(state, publisher, bundle)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert says(publisher.slots) in {"1.0.0", "1.1.0"}
    with publisher.slots.locked():
        publisher.slots.recover()
        trial = publisher.slots.trial()
    assert says(publisher.slots) in {"1.0.0", "1.1.0"}
    if trial:  # as `aidpost board update boot` does
        from aidpost.board.update.install import settle

        assert settle(publisher.slots, well) == "1.1.0"
    assert run(publisher, publisher.source(bundle)) == "1.1.0"
    assert says(publisher.slots) == "1.1.0"
    assert publisher.slots.named("previous") == "1.0.0"


@pytest.mark.parametrize("state", BACK)
def test_killed_on_the_way_back_in_each_state_the_old_release_serves(state: str, publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("1.1.0", well=False)
    bundle = publisher.bundle()
    done = killed_in(state, publisher, bundle)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert says(publisher.slots) in {"1.0.0", "1.1.0"}
    with publisher.slots.locked():
        publisher.slots.recover()
    if publisher.slots.trial():
        from aidpost.board.update.install import settle

        with pytest.raises(UpdateError):
            settle(publisher.slots, well)
    assert says(publisher.slots) == "1.0.0"
    assert publisher.slots.trial() is None
    assert "1.1.0" in publisher.slots.failures()


def guard(slots: Slots) -> None:
    subprocess.run(["sh", str(TOP / "packaging/boot-guard"), str(slots.folder)], check=True, capture_output=True)


def on_trial(publisher: Publisher) -> Slots:
    publisher.release("1.0.0")
    run(publisher)
    archive = publisher.folder / "dead.tar"
    archive.write_bytes(shell_release("1.1.0"))
    publisher.slots.build("1.1.0", unpack(archive))
    publisher.slots.begin_trial("1.1.0")
    return publisher.slots


def test_a_release_that_never_confirms_is_taken_back_by_the_guard_without_any_python(publisher: Publisher) -> None:
    slots = on_trial(publisher)
    for start in range(STARTS_ON_TRIAL):
        guard(slots)
        trial = slots.trial()
        assert trial is not None
        assert trial.starts == start + 1
        assert says(slots) == "1.1.0"
    guard(slots)
    assert says(slots) == "1.0.0"
    assert slots.failures() == {"1.1.0": "3 starts without a confirmation"}
    guard(slots)
    assert says(slots) == "1.0.0"


def test_guard_and_library_decide_alike(publisher: Publisher) -> None:
    slots = on_trial(publisher)
    for _ in range(STARTS_ON_TRIAL):
        slots.started()
    assert slots.recover() == "went back to 1.0.0"
    assert slots.failures() == {"1.1.0": "3 starts without a confirmation"}


def test_outside_a_trial_no_number_of_starts_changes_anything(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    before = sorted(str(path) for path in publisher.slots.folder.rglob("*"))
    for _ in range(5):
        guard(publisher.slots)
        publisher.slots.started()
    assert sorted(str(path) for path in publisher.slots.folder.rglob("*")) == before


def test_the_guard_leaves_a_switch_that_never_happened(publisher: Publisher) -> None:
    slots = on_trial(publisher)
    slots.link("current", "releases/1.0.0")
    guard(slots)
    assert slots.trial() is None
    assert slots.failures() == {}


def test_a_real_environment_is_built_from_wheels_and_serves(publisher: Publisher, tmp_path: Path) -> None:
    from aidpost.board.update.install import install_wheels

    wheel = tmp_path / "aidpost-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("aidpost_release.py", "def main():\n    print('1.0.0')\n")
        info = "aidpost-1.0.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: aidpost\nVersion: 1.0.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\naidpost = aidpost_release:main\n")
        archive.writestr(f"{info}/RECORD", "")
    publisher.release("1.0.0", content=tar_of({wheel.name: wheel.read_bytes()}))
    assert update(publisher.source(), publisher.slots, HERE, well, install_wheels) == "1.0.0"
    assert says(publisher.slots) == "1.0.0"


def model_files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


def test_a_model_serves_only_after_its_golden_recordings_passed_here(publisher: Publisher) -> None:
    name = "fundus-quality"
    files = model_files(SHIPPED / name)
    publisher.model(name, "9.0.0", tar_of(files))
    assert update_models(publisher.source(), publisher.slots, HERE) == [f"{name} 9.0.0"]
    assert (publisher.slots.models / name / "model.tflite").is_file()
    broken = dict(files) | {"model.tflite": files["model.tflite"][:-1] + b"\x01"}
    publisher.model(name, "9.1.0", tar_of(broken))
    with pytest.raises(UpdateError, match=r"proving the model.*9\.1\.0"):
        update_models(publisher.source(), publisher.slots, HERE)
    assert (publisher.slots.models / name).readlink().name == f"{name}-9.0.0"
    assert not list((publisher.slots.folder / "model-store").glob(".trial/*"))


@pytest.mark.parametrize("state", ["model unpacked", "model kept", "model serves"])
def test_cut_while_a_model_is_updated_the_old_or_the_new_one_serves(state: str, publisher: Publisher) -> None:
    class Cut(Exception):
        pass

    def cut(name: str) -> None:
        if name == state:
            raise Cut

    publisher.model("m", "1.0.0", tar_of({"version": b"1.0.0"}))
    update_models(publisher.source(), publisher.slots, HERE, lambda root: "")
    publisher.model("m", "1.1.0", tar_of({"version": b"1.1.0"}))
    with pytest.raises(Cut):
        update_models(publisher.source(), Slots(publisher.slots.folder, cut), HERE, lambda root: "")
    assert (publisher.slots.models / "m/version").read_bytes() in {b"1.0.0", b"1.1.0"}
    update_models(publisher.source(), publisher.slots, HERE, lambda root: "")
    assert (publisher.slots.models / "m/version").read_bytes() == b"1.1.0"


def test_an_archive_that_reaches_out_of_its_folder_is_refused(publisher: Publisher) -> None:
    publisher.model("m", "1.0.0", tar_of({"../../escaped": b"x"}))
    with pytest.raises(UpdateError):
        update_models(publisher.source(), publisher.slots, HERE, lambda root: "")
    assert not (publisher.slots.folder / "escaped").exists()


def test_a_disk_without_room_stops_before_anything_is_changed(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(publisher.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    publisher.model("m", "1.0.0", tar_of({"version": b"1.0.0"}))
    with pytest.raises(UpdateError, match="are needed"):
        update_models(publisher.source(), publisher.slots, HERE, lambda root: "")
