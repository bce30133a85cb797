"""Which disks may be written: by the mounts first, for the bus says nothing of a Pi that runs from its SD card."""

from __future__ import annotations

from pathlib import Path

import pytest

from aidpost.board.flash import disks
from aidpost.board.flash.disks import Disk
from aidpost.errors import DeviceBusyError, DeviceNotFoundError, UsageError

GB = 10**9 // 512 * 512


def plant(
    root: Path, name: str, place: str, *, parts: int = 0, major: str = "8:0", size: int = 32 * GB, **files: str
) -> Path:
    """A disk's folder below /sys/devices, and the link to it in /sys/block, as the kernel lays them out."""
    folder = root / "sys/devices" / place / "block" / name
    for number in range(parts + 1):
        one = folder if number == 0 else folder / (f"{name}p{number}" if name[-1].isdigit() else f"{name}{number}")
        (one / "holders").mkdir(parents=True, exist_ok=True)
        base, _, minor = major.partition(":")
        (one / "dev").write_text(f"{base}:{int(minor) + number}\n")
        (one / "size").write_text(f"{size // 512}\n")
    defaults = {"ro": "0\n", "removable": "0\n"}
    for key, text in (defaults | files).items():
        path = folder / key.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "sys/block").mkdir(parents=True, exist_ok=True)
    (root / "sys/block" / name).symlink_to(f"../devices/{place}/block/{name}")
    return folder


def mounts(root: Path, *lines: str) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in lines))


def mount(number: str, point: str, source: str, kind: str = "ext4") -> str:
    return f"29 1 {number} / {point} rw,relatime shared:1 - {kind} {source} rw"


def found(root: Path, path: str, *, internal: bool = False) -> Disk:
    return disks.find(Path(path), root, internal=internal)


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """NVMe with the system, a USB card reader with a card and an empty slot, a built-in SATA disk."""
    plant(tmp_path, "nvme0n1", "pci0000:00/nvme/nvme0", parts=2, major="259:0")
    plant(
        tmp_path,
        "sda",
        "pci0000:00/usb1/1-2/host4",
        parts=1,
        removable="1\n",
        device__model="Card  Reader\n",
        device__vendor="Generic\n",
    )
    plant(tmp_path, "sdb", "pci0000:00/usb1/1-2/host5", major="8:16", size=0, removable="1\n")
    plant(tmp_path, "sdc", "pci0000:00/ata1/host0", major="8:32")
    plant(tmp_path, "loop0", "virtual", major="7:0")
    mounts(tmp_path, mount("259:1", "/boot/efi", "/dev/nvme0n1p1"), mount("259:2", "/", "/dev/nvme0n1p2"))
    return tmp_path


def test_of_a_laptop_only_the_card_may_be_written(laptop: Path) -> None:
    by_path = {disk.path: disk for disk in disks.disks(laptop)}
    assert set(by_path) == {"/dev/nvme0n1", "/dev/sda", "/dev/sdb", "/dev/sdc"}
    assert by_path["/dev/sda"].refused == ""
    assert by_path["/dev/sda"].model == "Generic Card  Reader"
    assert by_path["/dev/nvme0n1"].system
    assert "no card" in by_path["/dev/sdb"].refused
    assert "built into" in by_path["/dev/sdc"].refused


def test_internal_says_that_a_built_in_disk_is_meant_but_never_the_system(laptop: Path) -> None:
    assert found(laptop, "/dev/sdc", internal=True).refused == ""
    assert "runs from it" in found(laptop, "/dev/nvme0n1", internal=True).refused


def test_a_pi_never_overwrites_the_sd_card_that_it_runs_from(tmp_path: Path) -> None:
    plant(tmp_path, "mmcblk0", "platform/mmc0", parts=2, major="179:0", device__type="SD\n")
    mounts(tmp_path, mount("179:2", "/", "/dev/root"), mount("179:1", "/boot/firmware", "/dev/mmcblk0p1", "vfat"))
    disk = found(tmp_path, "/dev/mmcblk0")
    assert disk.removable
    assert disk.system
    with pytest.raises(DeviceBusyError, match="runs from it"):
        disks.check(disk, 1, "os.img")


@pytest.mark.parametrize("point", ["/", "/usr", "/var", "/home", "/boot/firmware", "/snap/core/1", "/var/lib/aidpost"])
def test_any_system_mount_makes_a_system_disk(point: str, tmp_path: Path) -> None:
    plant(tmp_path, "sda", "usb1/host4", parts=3)
    mounts(tmp_path, mount("8:3", point, "/dev/sda3"))
    assert found(tmp_path, "/dev/sda").system


def test_a_mount_behind_encryption_or_lvm_is_seen(tmp_path: Path) -> None:
    folder = plant(tmp_path, "sda", "usb1/host4", parts=2)
    mapped = plant(tmp_path, "dm-0", "virtual", major="253:0", dm__name="vg-root\n")
    (folder / "sda2/holders/dm-0").symlink_to(mapped)
    mounts(tmp_path, mount("253:0", "/", "/dev/mapper/vg-root"))
    assert found(tmp_path, "/dev/sda").system


def test_a_mapping_that_is_not_mounted_is_in_use_all_the_same(tmp_path: Path) -> None:
    folder = plant(tmp_path, "sda", "usb1/host4", parts=2)
    mapped = plant(tmp_path, "md0", "virtual", major="9:0")
    (folder / "sda2/holders/md0").symlink_to(mapped)
    mounts(tmp_path)
    assert found(tmp_path, "/dev/sda").refused == "it is in use: part of md0"


def test_btrfs_is_seen_by_its_node_and_swap_by_its_table(tmp_path: Path) -> None:
    plant(tmp_path, "sda", "usb1/host4", parts=2)
    plant(tmp_path, "sdb", "usb1/host5", parts=1, major="8:16")
    mounts(tmp_path, mount("0:35", "/home", "/dev/sda2", "btrfs"))
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/sdb1 partition 100 0 -2\n")
    assert found(tmp_path, "/dev/sda").system
    assert found(tmp_path, "/dev/sdb").system


def test_a_card_mounted_by_the_desktop_is_refused_with_the_remedy(tmp_path: Path) -> None:
    plant(tmp_path, "sda", "usb1/host4", parts=1)
    mounts(tmp_path, mount("8:1", r"/media/me/MY\040CARD", "/dev/sda1", "vfat"))
    with pytest.raises(DeviceBusyError, match=r"in use: /media/me/MY CARD.*Unmount it"):
        disks.check(found(tmp_path, "/dev/sda"), 1, "os.img")


def test_a_locked_card_and_one_that_is_too_small_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, "sda", "usb1/host4", ro="1\n")
    plant(tmp_path, "sdb", "usb1/host5", major="8:16", size=4 * GB)
    mounts(tmp_path)
    with pytest.raises(UsageError, match="read-only"):
        disks.check(found(tmp_path, "/dev/sda"), 1, "os.img")
    with pytest.raises(UsageError, match=r"has 4.00 GB, and the image needs 8.00 GB"):
        disks.check(found(tmp_path, "/dev/sdb"), 8 * 10**9, "os.img")


def test_an_emmc_is_built_in_and_an_sd_card_is_not(tmp_path: Path) -> None:
    plant(tmp_path, "mmcblk0", "platform/mmc0", major="179:0", device__type="MMC\n")
    plant(tmp_path, "mmcblk1", "platform/mmc1", major="179:32", device__type="SD\n", device__serial="0x1234\n")
    mounts(tmp_path)
    assert "built into" in found(tmp_path, "/dev/mmcblk0").refused
    assert found(tmp_path, "/dev/mmcblk1").refused == ""
    assert found(tmp_path, "/dev/mmcblk1").serial == "0x1234"


def test_a_partition_is_no_card(laptop: Path) -> None:
    with pytest.raises(DeviceNotFoundError):
        found(laptop, "/dev/sda1")
