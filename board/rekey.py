"""Another device key for this board: what it is made of, where that is put, and what else hangs on it here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aidpost.board.console.people import reseal_workers
from aidpost.errors import KeyUnavailableError
from aidpost.sync import keys, rotation, seal
from aidpost.sync._durable import sync_folder
from aidpost.sync.keys import DeviceKey

KEY_FILE = "device.key"
CREDENTIAL_FILE = Path("/etc/credstore.encrypted") / keys.CREDENTIAL
"""Where systemd looks for what `LoadCredentialEncrypted=` names without a path."""


def rotate(
    state_dir: Path,
    old: DeviceKey,
    to: str,
    passphrase: Callable[[], str],
    credential_file: Path = CREDENTIAL_FILE,
) -> DeviceKey:
    """Make a new device key here, bring everything under it and put it where `to` takes it from.

    Parameters
    ----------
    old
        The key until now.
    to
        A value of `store.key`: where the new key is taken from at the next start.
    passphrase
        Asks for the new one; called only where `to` is that.
    credential_file
        For systemd's credential: the file that `systemd-creds` writes, with the TPM where there is one.

    Raises
    ------
    KeyUnavailableError, StoreLockedError, OSError, StoreError
        As `rotation.rotate`; or `systemd-creds` failed. The next start serves with the key that it is given.
    """
    if to == "passphrase":
        salt = os.urandom(16)
        new = keys.derived(passphrase(), salt)
        rotation.rotate(state_dir, old, new, reseal_workers, lambda: _place_salt(state_dir, salt), salt)
    elif to == "systemd-credential":
        new = DeviceKey(seal.new_key(), "systemd credential")
        rotation.rotate(state_dir, old, new, reseal_workers, lambda: _place_credential(state_dir, new, credential_file))
    else:
        path = state_dir / KEY_FILE
        new = DeviceKey(seal.new_key(), f"key file {path}", weak=True)
        rotation.rotate(state_dir, old, new, reseal_workers, lambda: keys.place_file(path, new.secret))
    return new


def settled(state_dir: Path, key: DeviceKey) -> DeviceKey:
    """The key from file or credential; an interrupted change of it is brought to its end with this one."""
    if rotation.under_way(state_dir):
        return rotation.come_back(state_dir, [key], reseal_workers, lambda _: None)
    return key


def settled_passphrase(state_dir: Path, typed: str) -> DeviceKey:
    """The key that a passphrase makes; during an interrupted change of it the old passphrase and the new one both do,
    and the one that was typed stays."""
    if not rotation.under_way(state_dir):
        return keys.from_passphrase(state_dir, typed)
    salts = {keys.derived(typed, salt): salt for salt in rotation.salts(state_dir)}
    return rotation.come_back(state_dir, salts, reseal_workers, lambda key: _place_salt(state_dir, salts[key]))


def _place_salt(state_dir: Path, salt: bytes) -> None:
    keys.place_salt(state_dir, salt)
    _remove_file(state_dir)


def _remove_file(state_dir: Path) -> None:
    with suppress(FileNotFoundError):
        (state_dir / KEY_FILE).unlink()
        sync_folder(state_dir)


def _place_credential(state_dir: Path, key: DeviceKey, path: Path) -> None:
    fresh = path.with_name(f"{path.name}.new")
    command = ["systemd-creds", "encrypt", f"--name={keys.CREDENTIAL}", "-", str(fresh)]
    try:
        subprocess.run(command, input=key.secret, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        raise KeyUnavailableError(
            operation="putting the new device key in its place",
            target=str(path),
            cause=said.decode(errors="replace").strip(),
            remedy="Run it as root, where systemd-creds is installed. The old key serves: start the device with it.",
        ) from None
    with fresh.open("rb") as written:
        os.fsync(written.fileno())
    fresh.replace(path)
    sync_folder(path.parent)
    _remove_file(state_dir)
