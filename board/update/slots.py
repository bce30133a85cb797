"""Release folders, and the link that says which one serves. Killed or powered off at any moment, `current` names a
complete release.

    DIR/releases/1.2.0/           a release with an environment of its own; `complete` in it is written last
    DIR/current  -> releases/…    what serves
    DIR/previous -> releases/…    what served before
    DIR/trial                     there while a release is on trial: from, to, and a line for each start
    DIR/failed/1.3.0              why that release was taken back; it is not tried again
    DIR/models/NAME -> ../model-store/NAME-1.0.1
    DIR/failed/NAME-1.0.2         why that model did not pass here; it is not tried again

A trial is decided by packaging/boot-guard as well, a few lines of shell that no update replaces: a release whose Python
does not even start is taken back all the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from aidpost.errors import AidpostError, UpdateError
from aidpost.sync._alone import alone
from aidpost.sync._durable import make_folder, replace_file, sync_folder

STARTS_ON_TRIAL = 3
"""Starts without a confirmation after which a release is taken back: a worker who switches off and on is no failure."""

COMPLETE = "complete"

Step = Callable[[str], None]
"""Called with the name of each state as it is entered; a test stops the world there."""


class Trial(NamedTuple):
    """A release that must still prove itself."""

    old: str
    new: str
    starts: int


def version_key(version: str) -> tuple[tuple[int, ...], int, str]:
    """For ordering: 1.10.0 after 1.9.0, and a pre-release (1.0.0rc1) before the release.

    Raises
    ------
    UpdateError
        It is no version.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+){0,3})((?:a|b|rc)\d+)?", version)
    if found is None:
        raise UpdateError(
            operation="reading the version", target=version[:40], cause="it is not like 1.2.0 or 1.2.0rc1"
        )
    return tuple(int(part) for part in found[1].split(".")), 0 if found[2] else 1, found[2] or ""


class Slots:
    """The folder that releases live in. Everything that changes it holds its lock."""

    def __init__(self, folder: Path, step: Step = lambda name: None) -> None:
        self.folder, self.step = folder, step
        self.releases, self.models = folder / "releases", folder / "models"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One update at a time.

        Raises
        ------
        StoreLockedError
            Another one is under way.
        """
        for folder in (self.folder, self.releases, self.models, self.folder / "failed", self.folder / "model-store"):
            make_folder(folder)
            folder.chmod(0o755)
        cause, remedy = "another update is under way", "Wait for it."
        with alone(self.folder / "lock", operation="updating", cause=cause, remedy=remedy, mode=0o644):
            yield

    def named(self, link: str) -> str:
        """The release that `current` or `previous` names; empty if it names none that is complete."""
        try:
            version = (self.folder / link).readlink().name
        except OSError:
            return ""
        return version if self.complete(version) else ""

    def complete(self, version: str) -> bool:
        """Whether the release was installed to its end."""
        return (self.releases / version / COMPLETE).is_file()

    def installed(self) -> list[str]:
        """Complete releases, oldest version first."""
        try:
            names = [one.name for one in self.releases.iterdir() if self.complete(one.name)]
        except OSError:
            return []
        return sorted(names, key=version_key)

    def trial(self) -> Trial | None:
        """The trial that is under way."""
        try:
            lines = (self.folder / "trial").read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        values = dict(line.split(" ", 1) for line in lines if " " in line)
        return Trial(values.get("from", ""), values.get("to", ""), sum(line == "start" for line in lines))

    def models_serving(self) -> dict[str, str]:
        """Model -> version, of those that an update brought."""
        try:
            found = [one.readlink().name for one in sorted(self.models.iterdir()) if one.is_symlink()]
        except OSError:
            return {}
        return {name: version for name, _, version in (one.rpartition("-") for one in found)}

    def roll_back_model(self, name: str, why: str) -> str:
        """Let the model that came with the software serve again, and remember why; gives the version that was taken
        back, which is not tried again.

        Raises
        ------
        UpdateError
            No update brought it.
        """
        version = self.models_serving().get(name)
        if version is None:
            raise UpdateError(
                operation="going back",
                target=name,
                cause="no update brought this model",
                remedy="`aidpost models list` shows what serves.",
            )
        # the reason first: killed in between, the update does not bring it again, and the command is repeated
        self.note_failure(f"{name}-{version}", why)
        (self.models / name).unlink()
        sync_folder(self.models)
        return version

    def failures(self) -> dict[str, str]:
        """Version -> why it was taken back; of a model NAME-VERSION."""
        folder = self.folder / "failed"
        if not folder.is_dir():
            return {}
        return {one.name: one.read_text(encoding="utf-8").strip() for one in sorted(folder.iterdir())}

    def build(self, version: str, install: Callable[[Path], None]) -> None:
        """Make a release folder with `install`, which fills it; it counts only when all of it is on the disk.

        Raises
        ------
        UpdateError
            It is the release that serves, or the one to go back to.
        """
        version_key(version)
        if version in {self.named("current"), self.named("previous")}:
            raise UpdateError(operation="installing", target=version, cause="it is installed and in use already")
        folder = self.releases / version
        if folder.exists():  # of an update that was interrupted
            with contextlib.suppress(FileNotFoundError):
                (folder / COMPLETE).unlink()
            sync_folder(folder)
            shutil.rmtree(folder)
        self.step("building")
        folder.mkdir(mode=0o755)
        try:
            install(folder)
            self.step("built")
            # thousands of files: one sync of everything is less than an fsync for each
            os.sync()
            replace_file(folder / COMPLETE, f"{version}\n".encode(), 0o644)
            sync_folder(self.releases)
        except AidpostError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.step("complete")

    def link(self, name: str, target: str) -> None:
        """Point a link at something else, in one step."""
        path = self.folder / name
        temporary = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(target)
        temporary.replace(path)
        sync_folder(path.parent)

    def begin_trial(self, version: str) -> None:
        """Let a complete release serve on trial. A first release has nothing to go back to, and serves at once."""
        if not self.complete(version):
            raise UpdateError(operation="switching", target=version, cause="it is not installed completely")
        old = self.named("current")
        if not old:
            self.link("current", f"releases/{version}")
            return
        self.link("previous", f"releases/{old}")
        self.step("previous")
        replace_file(self.folder / "trial", f"from {old}\nto {version}\n".encode(), 0o644)
        self.step("trial")
        self.link("current", f"releases/{version}")
        self.step("switched")

    def confirm(self) -> None:
        """The release on trial is good; older ones than the one before it are removed."""
        trial = self.trial()
        if trial is None:
            return
        self.step("confirming")
        (self.folder / "trial").unlink()
        sync_folder(self.folder)
        self.step("confirmed")
        keep = {self.named("current"), self.named("previous")}
        for version in self.installed():
            if version not in keep:
                self.remove(version)

    def remove(self, version: str) -> None:
        """Delete a release; a deletion that is interrupted leaves one that is not complete."""
        folder = self.releases / version
        (folder / COMPLETE).unlink()
        sync_folder(folder)
        shutil.rmtree(folder)

    def roll_back(self, why: str) -> str:
        """Let the release before serve again, and remember why. Gives its version.

        Raises
        ------
        UpdateError
            There is none.
        """
        trial = self.trial()
        old = trial.old if trial else self.named("previous")
        bad = trial.new if trial else self.named("current")
        if not old or not self.complete(old) or old == bad:
            raise UpdateError(
                operation="going back",
                target=str(self.folder),
                cause="there is no release before this one",
                remedy="Install a release from a stick: aidpost board update install BUNDLE",
            )
        self.step("going back")
        # first, so that a way back that is interrupted is known for one
        self.note_failure(bad, why)
        self.step("failure noted")
        self.link("current", f"releases/{old}")
        self.step("gone back")
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "trial").unlink()
        sync_folder(self.folder)
        self.step("rolled back")
        return old

    def note_failure(self, name: str, why: str) -> None:
        """Remember why a release (its version) or model (NAME-VERSION) was not kept: it is not tried again."""
        replace_file(self.folder / "failed" / name, f"{why}\n".encode(), 0o644)

    def recover(self) -> str:
        """After a start: end what was interrupted, and say what was done (empty: nothing was to be done)."""
        trial = self.trial()
        if trial and self.named("current") != trial.new:
            # the power went between writing down the trial and the switch, or on the way back
            (self.folder / "trial").unlink()
            sync_folder(self.folder)
            return f"the switch to {trial.new} had not happened; {self.named('current')} serves"
        if trial and trial.new in self.failures():
            return f"went back to {self.roll_back(self.failures()[trial.new])}, as was begun"
        if trial and trial.starts >= STARTS_ON_TRIAL:
            return f"went back to {self.roll_back(f'{trial.starts} starts without a confirmation')}"
        for one in self.releases.iterdir() if self.releases.is_dir() else ():
            if not self.complete(one.name):
                shutil.rmtree(one, ignore_errors=True)
        return ""

    def started(self) -> None:
        """Count one start of the release on trial; outside a trial nothing is counted, so nothing runs out."""
        if self.trial() is not None:
            content = (self.folder / "trial").read_bytes()
            replace_file(self.folder / "trial", content + b"start\n", 0o644)
