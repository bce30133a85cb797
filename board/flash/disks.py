"""The disks of this machine, from /sys and /proc below a root, and which of them a card image may be written to.

The rules are rpi-imager's, and stricter: the bus says nothing of a Pi that runs from its own SD card, the mounts do.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from aidpost.board import _tree
from aidpost.errors import AidpostError, DeviceBusyError, DeviceNotFoundError, UsageError

_SYSTEM = re.compile(r"^(/|/usr|/var|/home|/etc|/opt|/srv|/nix|/boot|/efi|/snap)(/.*)?$")
_VIRTUAL = re.compile(r"^(loop|ram|zram|dm-|md|nbd|sr|fd|mtd)")


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A whole disk. `refused` says why nothing may be written to it; empty where it may."""

    path: str
    model: str
    serial: str
    bus: str
    size: int
    removable: bool
    read_only: bool
    mounted: tuple[str, ...]
    system: bool
    refused: str = ""


def disks(root: Path = Path("/"), *, internal: bool = False) -> list[Disk]:
    """Every real disk. Built-in ones (NVMe, SATA, eMMC) are refused unless `internal` says that one is meant."""
    folder, used = root / "sys/block", _used(root)
    return [_disk(root, name, used, internal) for name in _tree.names(folder, r"[\w!-]+") if not _VIRTUAL.match(name)]


def _used(root: Path) -> dict[str, list[str]]:
    """What is in use: device number (`8:1`) or node (`/dev/sda1`) -> mount points and uses."""
    used: dict[str, list[str]] = {}
    for line in (_tree.text(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, source = before.split(), after.split()
        if len(fields) < 5 or len(source) < 2:
            continue
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        # btrfs and overlays show a device number of their own: the node tells there
        for key in (fields[2], source[1]):
            used.setdefault(key, []).append(point)
    for line in (_tree.text(root / "proc/swaps") or "").splitlines()[1:]:
        used.setdefault(line.split()[0], []).append("swap")
    return used


def _uses(folder: Path, used: dict[str, list[str]], depth: int = 0) -> set[str]:
    """What a disk or partition is used for, itself and through what is built on it (LVM, encryption, RAID)."""
    number, found = _tree.text(folder / "dev") or "", set()
    for key in (number, f"/dev/{folder.name}"):
        found |= set(used.get(key, ()))
    mapped = _tree.text(folder / "dm/name")
    if mapped:
        found |= set(used.get(f"/dev/mapper/{mapped}", ()))
    if depth < 8:
        for holder in _tree.names(folder / "holders", ".+"):
            found |= _uses(folder / "holders" / holder, used, depth + 1) or {f"part of {holder}"}
    return found


def _disk(root: Path, name: str, used: dict[str, list[str]], internal: bool) -> Disk:
    folder = root / "sys/block" / name
    try:
        place = str(folder.readlink())
    except OSError:
        place = ""
    bus = "usb" if "/usb" in place else "mmc" if name.startswith("mmcblk") else re.sub(r"[\d].*", "", name)
    parts = [folder / part for part in _tree.names(folder, re.escape(name) + r"p?\d+")]
    uses: set[str] = set().union(*(_uses(one, used) for one in (folder, *parts)))
    # an eMMC is soldered in: only a card is something that a person puts in and takes out
    built_in_mmc = bus == "mmc" and _tree.text(folder / "device/type") != "SD"
    flagged = _tree.number(folder / "removable") == 1
    disk = Disk(
        path=f"/dev/{name.replace('!', '/')}",
        model=" ".join(
            filter(None, (_tree.text(folder / "device" / key) for key in ("vendor", "model", "name")))
        ).strip()
        or name,
        serial=_tree.text(folder / "device/serial") or _tree.text(folder / "device/cid") or "",
        bus=bus,
        size=(_tree.number(folder / "size") or 0) * 512,
        removable=bus == "usb" or flagged or (bus == "mmc" and not built_in_mmc),
        read_only=_tree.number(folder / "ro") == 1,
        mounted=tuple(sorted(uses)),
        system=any(_SYSTEM.match(use) or use == "swap" for use in uses),
    )
    return msgspec.structs.replace(disk, refused=_refusal(disk, internal))


def _refusal(disk: Disk, internal: bool) -> str:
    if disk.system:
        return f"this machine runs from it ({', '.join(disk.mounted)})"
    if disk.mounted:
        return f"it is in use: {', '.join(disk.mounted)}"
    if disk.size == 0:
        return "there is no card in it"
    if disk.read_only:
        return "it is read-only: the card's lock, or a card that has come to its end"
    if not (disk.removable or internal):
        return "it is built into this machine"
    return ""


def find(path: Path, root: Path = Path("/"), *, internal: bool = False) -> Disk:
    """The disk at a path. A plain file that is there stands for a card of its size, for an emulator or a copier.

    Raises
    ------
    DeviceNotFoundError
        There is no such disk, or it is a partition of one.
    """
    if path.is_file():
        writable = os.access(path, os.W_OK)
        size = path.stat().st_size
        disk = Disk(
            path=str(path.absolute()),
            model="file",
            serial="",
            bus="file",
            size=size,
            removable=True,
            read_only=not writable,
            mounted=(),
            system=False,
        )
        return msgspec.structs.replace(disk, refused=_refusal(disk, internal))
    wanted = path.resolve()  # /dev/disk/by-id/… is a link
    for disk in disks(root, internal=internal):
        if disk.path == str(wanted):
            return disk
    raise DeviceNotFoundError(
        operation="looking for the card",
        target=str(path),
        cause="there is no such disk here (a partition of one is none)",
        remedy="aidpost board flash list",
    )


def check(disk: Disk, needed: int, image: str) -> None:
    """Return if `needed` bytes may be written to the disk.

    Raises
    ------
    DeviceBusyError
        It is mounted, or this machine runs from it.
    UsageError
        It is built in, read-only or too small, or the image lies on it.
    """
    if disk.refused:
        kind: type[AidpostError] = DeviceBusyError if disk.mounted else UsageError
        raise _refused(kind, disk, disk.refused, _REMEDIES.get(disk.refused.split(":")[0], "Choose another disk."))
    if disk.size < needed:
        cause = f"it has {disk.size / 1e9:.2f} GB, and the image needs {needed / 1e9:.2f} GB"
        raise _refused(UsageError, disk, cause, "Use a larger card.")
    if str(Path(image).absolute()) == disk.path:
        raise _refused(UsageError, disk, "it is the image itself", "Choose another target.")


_REMEDIES = {
    "it is in use": "Unmount it first (umount, or eject it in the file manager).",
    "there is no card in it": "Put a card in, then: aidpost board flash list",
    "it is read-only": "Slide the card's lock, or use a new card.",
    "it is built into this machine": "If this very disk is meant: --internal",
}


def _refused(kind: type[AidpostError], disk: Disk, cause: str, remedy: str) -> AidpostError:
    return kind(operation="checking the card", target=f"{disk.path} ({disk.model})", cause=cause, remedy=remedy)
