"""Releases that are a few lines of shell, in a repository with real signatures: an update in milliseconds."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aidpost.board.update.install import Here
from aidpost.board.update.publish import Repository
from aidpost.board.update.slots import Slots
from aidpost.board.update.source import Offer, Source

HERE = Here(device="clinic/device", python="3.11", machine="aarch64", store_reads=3)


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def shell_release(version: str, well: bool = True) -> bytes:
    """A release whose `aidpost` says its version, and whose health is as told."""
    health = "exit 0" if well else "echo models: broken; exit 1"
    script = f'#!/bin/sh\ncase "$*" in *health*) {health};; *) echo {version};; esac\n'
    return tar_of({"bin/aidpost": script.encode()})


def unpack(archive: Path) -> Callable[[Path], None]:
    def install(folder: Path) -> None:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")

    return install


class Publisher:
    """The repository, and a device that is to follow it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = Repository.create(folder / "served", folder / "keys")
        self.root = folder / "served/metadata/1.root.json"
        self.slots = Slots(folder / "device")

    def release(self, version: str, *, well: bool = True, content: bytes | None = None, **more: Any) -> None:
        file = self.folder / "release.tar"
        file.write_bytes(content if content is not None else shell_release(version, well))
        given = {"python": "3.11", "machine": "aarch64", "store_writes": 3} | more
        self.repository.add(
            Offer(kind="release", name="aidpost", version=version, target=f"aidpost-{version}.tar", **given), file
        )

    def model(self, name: str, version: str, content: bytes) -> None:
        file = self.folder / "model.tar"
        file.write_bytes(content)
        self.repository.add(Offer(kind="model", name=name, version=version, target=f"{name}-{version}.tar"), file)

    def bundle(self, name: str = "stick.bundle") -> Path:
        self.repository.bundle(self.folder / name)
        return self.folder / name

    def source(self, bundle: Path | None = None) -> Source:
        device = self.folder / "device"
        return Source(str(bundle or self.bundle()), device / "trust", device / "downloads", self.root)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)
