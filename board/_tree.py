"""Small readers of /proc and /sys, below a root that may be a copy of another board's; what is not there is None."""

from __future__ import annotations

import re
from pathlib import Path


def text(path: Path) -> str | None:
    """A file's text, without the NUL bytes that end a device tree's strings; None where it is empty or unreadable."""
    try:
        return path.read_bytes().replace(b"\0", b"").decode("utf-8", "replace").strip() or None
    except OSError:
        return None


def number(path: Path, base: int = 10) -> int | None:
    """A file's one number; None where it is missing or none."""
    try:
        return int(text(path) or "", base)
    except ValueError:
        return None


def strings(path: Path) -> tuple[str, ...]:
    """The strings of a device tree's list, `compatible` for one."""
    try:
        return tuple(part.decode("utf-8", "replace") for part in path.read_bytes().split(b"\0") if part)
    except OSError:
        return ()


def first(pattern: str, content: str | None) -> str | None:
    """The first group of the first line that matches."""
    found = re.search(pattern, content or "", re.MULTILINE)
    return found.group(1).strip() if found else None


def names(folder: Path, pattern: str) -> tuple[str, ...]:
    """The names in a folder that match whole, with `video2` before `video10`."""
    try:
        found = [entry.name for entry in folder.iterdir() if re.fullmatch(pattern, entry.name)]
    except OSError:
        return ()
    return tuple(sorted(found, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]))
