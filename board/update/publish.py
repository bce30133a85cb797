"""The other side of an update: a repository of signed metadata (TUF), kept in a folder that any web server can serve,
and written to one file for a stick. Whoever has the keys decides what devices install."""

from __future__ import annotations

import shutil
import zipfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from aidpost.board.update.slots import version_key
from aidpost.board.update.source import INDEX, Index, Offer
from aidpost.errors import UpdateError
from aidpost.sync._durable import make_folder, replace_file

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)
ROLES = ("root", "targets", "snapshot", "timestamp")
DAYS = {"root": 3650, "targets": 365, "snapshot": 90, "timestamp": 90}
"""How long each role's word holds. A clinic that is reached by a stick once a quarter must still be able to update."""


class Repository:
    """A repository in a folder, and its four keys in another, which must never be served or carried."""

    def __init__(self, folder: Path, keys: Path) -> None:
        self.folder, self._keys = folder, keys
        self._metadata, self._targets = folder / "metadata", folder / "targets"

    @classmethod
    def create(cls, folder: Path, keys: Path) -> Repository:
        """A new one, empty, with new keys; `metadata/1.root.json` is what devices are given.

        Raises
        ------
        UpdateError
            There is one already.
        """
        made = cls(folder, keys)
        if (made._metadata / "1.root.json").exists() or (keys / "root.pem").exists():
            raise UpdateError(
                operation="making the repository", target=str(folder), cause="there is one, or its keys, already"
            )
        for path in (made._metadata, made._targets, keys):
            make_folder(path)
        root = Root(version=1, expires=_until("root"), consistent_snapshot=True)
        for role in ROLES:
            key = Ed25519PrivateKey.generate()
            replace_file(keys / f"{role}.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            root.add_key(CryptoSigner(key).public_key, role)
        made._sign(root)
        made._publish(Index(), None)
        return made

    def _sign(self, signed: S) -> None:
        role, metadata = signed.type, Metadata(signed)
        key = load_pem_private_key((self._keys / f"{role}.pem").read_bytes(), None)
        metadata.sign(CryptoSigner(key))
        name = "timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json"
        replace_file(self._metadata / name, metadata.to_bytes(), 0o644)

    def index(self) -> Index:
        """What is on offer now."""
        targets = Metadata[Targets].from_file(str(self._newest("targets"))).signed
        digest = targets.targets[INDEX].hashes["sha256"]
        return msgspec.json.decode((self._targets / f"{digest}.{INDEX}").read_bytes(), type=Index)

    def _newest(self, role: str) -> Path:
        found = sorted(self._metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
        if not found:
            raise UpdateError(operation="opening the repository", target=str(self.folder), cause="there is none here")
        return found[-1]

    def add(self, offer: Offer, file: Path) -> None:
        """Offer a release or model; it replaces one of the same kind, name, version, Python and machine."""
        version_key(offer.version)
        same = ("kind", "name", "version", "python", "machine")
        kept = [one for one in self.index().offers if any(getattr(one, key) != getattr(offer, key) for key in same)]
        self._publish(Index(offers=(*kept, offer)), (offer.target, file))

    def set_rollout(self, name: str, version: str, share: float) -> None:
        """The share of devices, 0 (halt: no device takes it from now on) to 1.

        Raises
        ------
        UpdateError
            It is not on offer.
        """
        offers = self.index().offers
        if not any((one.name, one.version) == (name, version) for one in offers) or not 0 <= share <= 1:
            raise UpdateError(operation="setting the rollout", target=f"{name} {version}", cause="it is not on offer")
        changed = [
            msgspec.structs.replace(one, rollout=share) if (one.name, one.version) == (name, version) else one
            for one in offers
        ]
        self._publish(Index(offers=tuple(changed)), None)

    def _publish(self, index: Index, more: tuple[str, Path] | None) -> None:
        try:
            targets = Metadata[Targets].from_file(str(self._newest("targets"))).signed
            targets.version += 1
        except UpdateError:
            targets = Targets(version=1)
        targets.expires = _until("targets")
        content = msgspec.json.encode(index)
        if more:
            info = TargetFile.from_file(more[0], str(more[1]))
            targets.targets[more[0]] = info
            self._keep(info, more[1])
        offered = {INDEX, *(offer.target for offer in index.offers)}
        targets.targets = {name: info for name, info in targets.targets.items() if name in offered}
        info = TargetFile.from_data(INDEX, content)
        targets.targets[INDEX] = info
        replace_file(self._targets / f"{info.hashes['sha256']}.{INDEX}", content, 0o644)
        version = targets.version
        self._sign(targets)
        snapshot = Snapshot(version=version, expires=_until("snapshot"), meta={"targets.json": MetaFile(version)})
        self._sign(snapshot)
        # the last one to be written: until then everybody sees the state before
        stamp = Timestamp(version, expires=_until("timestamp"), snapshot_meta=MetaFile(version))
        self._sign(stamp)

    def _keep(self, info: TargetFile, file: Path) -> None:
        folder, _, name = info.path.rpartition("/")
        where = self._targets / folder / f"{info.hashes['sha256']}.{name}"
        make_folder(where.parent)
        shutil.copyfile(file, where)

    def bundle(self, path: Path) -> None:
        """Everything that is on offer now, in one file for a stick."""
        targets = Metadata[Targets].from_file(str(self._newest("targets"))).signed
        temporary = path.with_name(f"{path.name}.part")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            roots = sorted(self._metadata.glob("*.root.json"))
            for one in [*roots, self._newest("targets"), self._newest("snapshot"), self._metadata / "timestamp.json"]:
                archive.write(one, f"metadata/{one.name}")
            for info in targets.targets.values():
                folder, _, name = info.path.rpartition("/")
                stored = "/".join(filter(None, (folder, f"{info.hashes['sha256']}.{name}")))
                archive.write(self._targets / stored, f"targets/{stored}")
        temporary.replace(path)


def _until(role: str) -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=DAYS[role])
