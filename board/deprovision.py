"""The end of a device: its keys are destroyed, and with them every record, which is sealed under them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from aidpost.errors import StoreError
from aidpost.sync._durable import sync_folder
from aidpost.sync.keys import CREDENTIAL

KEYS = ("device.key", "device-key.salt")


def deprovision(state_dir: Path, waiting: int, lose: int, credentials: Path) -> list[str]:
    """Wipe the device: its keys first, so that whatever is left after an interruption opens no more; then the records.
    Gives what was removed. Run again, it removes what is left.

    Parameters
    ----------
    waiting
        Records that the hub has not receipted.
    lose
        How many of those the operator has said may be lost.
    credentials
        The folder of encrypted credentials of the system.

    Raises
    ------
    StoreError
        Records that the hub has not would be lost.
    """
    if waiting > lose:
        raise StoreError(
            operation="wiping the device",
            target=str(state_dir),
            cause=f"the hub has not receipted {waiting} records: they would be lost for ever",
            remedy=f"Connect the device, or: aidpost outbox export. To lose them: --lose {waiting}",
        )
    removed = []
    for path in (*(state_dir / name for name in KEYS), credentials / CREDENTIAL):
        if path.is_file():
            # one more write cannot harm; on flash memory the old block may live on until it is used again
            with path.open("r+b", buffering=0) as file:
                file.write(os.urandom(path.stat().st_size))
                os.fsync(file.fileno())
            path.unlink()
            sync_folder(path.parent)
            removed.append(str(path))
    if state_dir.is_dir():
        for one in sorted(state_dir.iterdir()):
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            else:
                one.unlink()
            removed.append(str(one))
        sync_folder(state_dir)
    return removed
