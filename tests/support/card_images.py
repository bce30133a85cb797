"""Card images for tests: a partition table, a FAT boot partition with real files (made by mtools), and a second
partition of noise. Small, and laid out as the images of Raspberry Pi OS are."""

from __future__ import annotations

import gzip
import lzma
import random
import struct
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import zstandard

MIB = 1 << 20
BOOT_START, BOOT_BYTES, SIZE = MIB, 2 * MIB, 4 * MIB

BOOKWORM = {
    "cmdline.txt": "console=serial0,115200 root=PARTUUID=1-02 rootwait init=/usr/lib/raspberrypi-sys-mods/firstboot\n",
    "issue.txt": "Raspberry Pi reference 2024-11-19\nGenerated using pi-gen\n",
    "config.txt": "arm_64bit=1\n",
}
BULLSEYE = {
    "cmdline.txt": "console=serial0,115200 root=PARTUUID=1-02 rootwait init=/usr/lib/raspi-config/init_resize.sh\n",
    "issue.txt": "Raspberry Pi reference 2023-05-03\n",
}
TRIXIE = {
    "cmdline.txt": "console=serial0,115200 root=PARTUUID=1-02 rootwait ds=nocloud;i=rpi-imager-1\n",
    "issue.txt": "Raspberry Pi reference 2025-12-04\n",
    "user-data": "#cloud-config\n",
    "meta-data": "instance-id: rpi-imager-1\n",
    "network-config": "version: 2\n",
}


def mtools(*command: str, given: bytes = b"") -> bytes:
    done = subprocess.run(
        command, input=given, capture_output=True, env={"PATH": "/usr/bin:/bin", "MTOOLSRC": "/dev/null"}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_image(path: Path, files: Mapping[str, str] = BOOKWORM, seed: int = 1) -> Path:
    """An image of `SIZE` bytes; its last MiB is empty."""
    with path.open("wb") as file:
        entries = struct.pack("<B3sB3sII", 0x80, b"\0" * 3, 0x0C, b"\0" * 3, BOOT_START // 512, BOOT_BYTES // 512)
        entries += struct.pack("<B3sB3sII", 0, b"\0" * 3, 0x83, b"\0" * 3, 3 * MIB // 512, MIB // 512)
        file.write(bytes(440) + b"AIDP\0\0" + entries.ljust(64, b"\0") + b"\x55\xaa")
        file.seek(3 * MIB)
        file.write(random.Random(seed).randbytes(MIB // 2))
        file.truncate(SIZE)
    mtools(
        "mformat",
        "-i",
        f"{path}@@{BOOT_START}",
        "-T",
        str(BOOT_BYTES // 512),
        "-h",
        "16",
        "-s",
        "63",
        "-N",
        "12345678",
        "::",
    )
    for name, text in files.items():
        mtools("mcopy", "-i", f"{path}@@{BOOT_START}", "-", f"::/{name}", given=text.encode())
    return path


def packed(image: Path, kind: str) -> Path:
    """The image packed; the name says nothing of how."""
    content, path = image.read_bytes(), image.with_name(f"{image.name}.download")
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("os.img", content)
        return path
    half = len(content) // 2  # two frames or members: what pzstd, pixz and pigz write
    pack = {
        "raw": lambda part: part,
        "xz": lambda part: lzma.compress(part, preset=0),
        "gz": lambda part: gzip.compress(part, 1),
        "zst": lambda part: zstandard.ZstdCompressor(write_checksum=True).compress(part),
    }[kind]
    path.write_bytes(pack(content[:half]) + pack(content[half:]))
    return path


def make_card(path: Path, size: int = SIZE + MIB) -> Path:
    """A card that something else was on."""
    content = random.Random(7).randbytes(MIB) * (size // MIB)
    path.write_bytes(content[:510] + b"\x55\xaa" + content[512:])
    return path


def boot_file(disk: Path, name: str) -> str:
    return mtools("mtype", "-i", f"{disk}@@{BOOT_START}", f"::/{name}").decode()
