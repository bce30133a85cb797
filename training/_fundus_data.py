"""The fundus photographs as training reads them: labels, splits by patient, and a cache of kernel output made once."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parent.parent
WORK = REPOSITORY / "training" / "work" / "fundus"
MODELS = REPOSITORY / "inference" / "models"
# Tenths of the patients, by a checksum of their id, that are never trained on.
VALIDATION_TENTHS = {"IDRiD": (0, 1), "EyePACS": (0, 1)}


@dataclass(frozen=True)
class Photograph:
    """One row of `labels.csv`; None where a label is missing."""

    file: str
    dataset: str
    patient: str
    grade: int
    dme: int | None
    quality: int | None

    @property
    def hospital(self) -> str:
        """The collection, whatever the copy."""
        return "IDRiD" if self.dataset == "IDRiD" else "EyePACS"

    @property
    def held_out(self) -> bool:
        """Whether it belongs to validation: decided by patient (IDRiD names none, so by file)."""
        return zlib.crc32(self.patient.encode()) % 10 in VALIDATION_TENTHS[self.hospital]


def data_folder(argument: str | None = None) -> Path:
    """Where the photographs are: the argument, else `$AIDPOST_DATA`, else `../shared/data` beside the repository."""
    root = Path(argument or os.environ.get("AIDPOST_DATA") or REPOSITORY.parent / "shared" / "data")
    folder = root / "fundus"
    if not (folder / "labels.csv").is_file():
        raise SystemExit(f"no fundus photographs at {folder}: give the data folder with --data or AIDPOST_DATA")
    return folder


def hospitals_of(name: str) -> tuple[str, ...]:
    """Whose photographs a grading model was trained on."""
    return ("IDRiD",) if name.endswith("-open") else ("IDRiD", "EyePACS")


def read_labels(folder: Path) -> list[Photograph]:
    """All rows of `labels.csv`."""

    def optional(text: str) -> int | None:
        return int(text) if text else None

    with (folder / "labels.csv").open(newline="") as stream:
        return [
            Photograph(
                row["file"],
                row["dataset"],
                row["patient"],
                int(row["dr_grade"]),
                optional(row["dme_risk"]),
                optional(row["eyeq_quality"]),
            )
            for row in csv.DictReader(stream)
        ]


def subset(photographs: Sequence[Photograph], per_group: int) -> list[Photograph]:
    """The first few of each dataset, grade, quality and side of the split, for a tiny run."""
    taken: dict[tuple[object, ...], int] = {}
    out = []
    for p in photographs:
        key = (p.dataset, p.grade, p.quality, p.held_out)
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= per_group:
            out.append(p)
    return out


def cached(name: str, files: Sequence[str], size: int, make: Callable[[str], np.ndarray], tag: str = "") -> np.ndarray:
    """n x size x size x 3 int8, made once by `make(file)` and then read back by memory map.

    The file's name carries a checksum of the list of files and of `tag` (the preprocessing's version), so a stale
    cache is never read.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    key = zlib.crc32("\n".join([tag, *files]).encode())
    path = WORK / f"{name}-{size}-{len(files)}-{key:08x}.npy"
    if not path.is_file():
        partial = path.with_suffix(".partial.npy")
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.int8, shape=(len(files), size, size, 3))
        for i, file in enumerate(tqdm(files, desc=f"{name} {size} px", mininterval=5)):
            out[i] = make(file)
        out.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")


def unsigned(pixels: np.ndarray) -> np.ndarray:
    """The models' int8 as bytes."""
    return (pixels.astype(np.int16) + 128).astype(np.uint8)


def signed(image: np.ndarray) -> np.ndarray:
    """Bytes as the models' int8."""
    return (image.astype(np.int16) - 128).astype(np.int8)
