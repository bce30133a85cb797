"""Updates that the hub sends down as a bundle, by MQTT or on a stick: checked as they come, then installed as any
other."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from aidpost.board.configuration import Configuration
from aidpost.errors import AidpostError, NotPossibleError, UpdateRefusedError
from aidpost.sync._durable import sync_folder
from aidpost.sync.applier import Taken
from aidpost.sync.deliveries import Ready

SUBJECT = "update"
BUNDLE = "hub.bundle"


class HubBundles:
    """Keeps the newest bundle of the hub in the state folder, for `aidpost board update install` and `models`."""

    def __init__(self, configuration: Configuration, state_dir: Path) -> None:
        self._section, self._state_dir = configuration.update, state_dir

    def take_up(self, one: Ready) -> Taken:
        """The handler of `update` deliveries; see `aidpost.sync.applier`. The bundle is kept only where its signatures
        are those that this device trusts, and it is neither out of date nor older than what was seen. "Applied" says
        that it is kept; what the update comes to is told in the device's status.

        Raises
        ------
        UpdateError
            It is not, or there is no root of trust here.
        """
        path = self._state_dir / BUNDLE
        coming = path.with_suffix(".coming")
        coming.unlink(missing_ok=True)
        free = shutil.disk_usage(self._state_dir).free
        if free < 2 * one.size:
            return Taken("later", f"{free >> 20} MB are free")
        one.copy_to(coming)
        try:
            check(coming, Path(self._section.folder) / "trust", Path(self._section.root_file))
        except AidpostError:
            coming.unlink()
            raise
        coming.replace(path)
        sync_folder(path.parent)
        return Taken()


def check(bundle: Path, trust: Path, root: Path) -> None:
    """Nothing, where this device may take the bundle; what it trusts is read and not changed.

    Raises
    ------
    UpdateRefusedError, UpdateError
        As `Source` has it; or the bundle offers nothing.
    """
    try:
        from aidpost.board.update.source import Source
    except ImportError as error:
        raise NotPossibleError(
            operation="checking the update",
            target=bundle.name,
            cause=str(error),
            remedy="pip install 'aidpost[update]' on the device",
        ) from error

    with tempfile.TemporaryDirectory(prefix="aidpost-bundle-") as folder:
        if trust.is_dir():
            shutil.copytree(trust, Path(folder) / "trust")
        source = Source(str(bundle), Path(folder) / "trust", Path(folder) / "downloads", root)
        if not source.offers:
            raise UpdateRefusedError(operation="checking the update", target=bundle.name, cause="it offers nothing")
