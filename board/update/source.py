"""Where updates come from: a repository over HTTPS, or one file on a stick. The same signed metadata (TUF) decides in
both: who signed, that nothing older is served than was seen before, and that it has not gone out of date."""

from __future__ import annotations

import contextlib
import os
import ssl
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from aidpost.board.update._https import HttpsFetcher
from aidpost.errors import UpdateError, UpdateRefusedError
from aidpost.sync._durable import make_folder, replace_file, sync_folder

INDEX = "index.json"
HALTED = "halted.json"
"""What a hub has halted, beside the repository that it serves. It is not signed: it can only keep a device from an
update, which whoever stands between could do as well."""
_HALTED_BYTES = 64 * 1024


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One target of the repository. For a release: the Python and machine that it is for, the store's schema that it
    writes (`store_writes`) and the highest it reads, and the share of devices that may take it now."""

    kind: Literal["release", "model"]
    name: str
    version: str
    target: str
    python: str = ""
    machine: str = ""
    store_writes: int = 0
    store_reads: int = 0
    rollout: float = 1.0


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on offer; a signed target itself."""

    offers: tuple[Offer, ...] = ()


class Halted(msgspec.Struct, frozen=True):
    """`halted.json`: names and versions that no device takes until a person has looked at them."""

    halted: tuple[tuple[str, str], ...] = ()


class _BundleFetcher(FetcherInterface):
    """Reads a bundle (a zip of `metadata/` and `targets/`) as if it were a server."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        try:
            zipfile.ZipFile(bundle).close()
        except (OSError, zipfile.BadZipFile) as error:
            raise UpdateError(
                operation="opening the bundle",
                target=str(bundle),
                cause=str(error),
                remedy="Copy it to the stick again, and eject the stick before pulling it.",
            ) from None

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix("bundle:///")
        with zipfile.ZipFile(self._bundle) as archive:
            if name not in archive.namelist():
                raise DownloadHTTPError(f"{name} is not in the bundle", 404)
            with archive.open(name) as member:
                while piece := member.read(1 << 18):
                    yield piece


class Source:
    """A repository (`https://…`) or a bundle (a path). What was once trusted is remembered in `metadata`, which lies
    outside the releases: neither an update nor a way back may forget it.

    Parameters
    ----------
    root
        The first root of trust, as it was installed with the device; later ones are signed by it.
    tls
        For an address at the hub that this device was enrolled at: its own authority is believed, and no other.

    Attributes
    ----------
    offers
        All that is on offer, without what the hub has halted.

    Raises
    ------
    UpdateRefusedError
        Signed by nobody trusted, older than what was seen (a downgrade), or out of date (a freeze).
    UpdateError
        It cannot be reached or read.
    """

    def __init__(
        self, where: str, metadata: Path, downloads: Path, root: Path, tls: ssl.SSLContext | None = None
    ) -> None:
        self.where = where
        for folder in (metadata, downloads):
            make_folder(folder)
        local = not where.startswith(("https://", "http://"))
        base = "bundle:///" if local else where.rstrip("/") + "/"
        with self._refusing():
            fetcher = _BundleFetcher(Path(where)) if local else HttpsFetcher(tls, f"{base}targets/", downloads)
            self._updater = Updater(
                str(metadata),
                f"{base}metadata/",
                str(downloads),
                f"{base}targets/",
                fetcher=fetcher,
                bootstrap=self._root(root),
            )
            self._updater.refresh()
            _keep(metadata)
            index = msgspec.json.decode(Path(self._download(INDEX)).read_bytes(), type=Index)
            halted = _halted(fetcher, f"{base}{HALTED}")
        self.offers = tuple(one for one in index.offers if (one.name, one.version) not in halted)

    def _root(self, root: Path) -> bytes:
        try:
            return root.read_bytes()
        except OSError as error:
            raise UpdateError(
                operation="reading the root of trust",
                target=str(root),
                cause=str(error.strerror),
                remedy="Put root.json there from who publishes the updates, or reinstall the package.",
            ) from None

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except ExpiredMetadataError as error:
            raise UpdateRefusedError(
                operation="checking the update",
                target=self.where,
                cause=f"its signed metadata is out of date ({error}): an old state held on to, or a wrong clock here",
                remedy="Check the date of this device; get a newer bundle.",
            ) from None
        except BadVersionNumberError as error:
            raise UpdateRefusedError(
                operation="checking the update",
                target=self.where,
                cause=f"it is older than what this device has seen ({error})",
                remedy="Get the newest bundle. An older state is never taken, whoever offers it.",
            ) from None
        except DownloadError as error:
            raise UpdateError(
                operation="getting the update",
                target=self.where,
                cause=str(error),
                remedy="Check the network, or copy the bundle again. The release that serves is untouched.",
            ) from None
        except (RepositoryError, ValueError, msgspec.MsgspecError) as error:
            raise UpdateRefusedError(
                operation="checking the update",
                target=self.where,
                cause=f"it is not signed as it must be, or was altered ({error})",
                remedy="Do not use it. Get it again from who publishes the updates.",
            ) from None

    def _download(self, target: str) -> str:
        info = self._updater.get_targetinfo(target)
        if info is None:
            raise UpdateRefusedError(
                operation="checking the update", target=self.where, cause=f"{target} is not among what was signed"
            )
        return self._updater.find_cached_target(info) or self._updater.download_target(info)

    def get(self, offer: Offer) -> Path:
        """The file of an offer, with the size and hash that were signed."""
        with self._refusing():
            return Path(self._download(offer.target))


def _keep(metadata: Path) -> None:
    """Bring to the disk what python-tuf has written: a power cut must not make an older state acceptable again."""
    for path in sorted(metadata.rglob("*.json")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for folder in {path.parent for path in metadata.rglob("*")}:
        sync_folder(folder)


def _halted(fetcher: FetcherInterface, url: str) -> frozenset[tuple[str, str]]:
    """What is halted; nothing where none is told. An answer that does not come is not taken for "nothing"."""
    try:
        content = fetcher.download_bytes(url, _HALTED_BYTES)
    except DownloadHTTPError as error:
        if error.status_code == 404:
            return frozenset()
        raise
    return frozenset(msgspec.json.decode(content, type=Halted).halted)


def remember_root(root: Path, where: Path) -> None:
    """Install the first root of trust; one that is there stays."""
    if not where.exists():
        make_folder(where.parent)
        replace_file(where, root.read_bytes(), 0o644)
