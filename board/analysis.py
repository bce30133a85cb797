"""Files in, findings out: what `aidpost analyze` does, one file or folder after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from aidpost.board.configuration import InferenceSection
from aidpost.errors import AidpostError, UnreadableInputError
from aidpost.firmware_bridge.formats.inputs import Input, list_inputs
from aidpost.inference.head import HEADS
from aidpost.inference.model import SHIPPED, Models
from aidpost.records import Eye, Timestamp

Limits = Mapping[str, Mapping[str, float]]
"""A site's own clinical limits: rule file -> limit -> value."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One input: its JSON object, or the error that it met."""

    source: str
    result: dict[str, Any] | None = None
    error: AidpostError | None = None


def models_for(section: InferenceSection, state_dir: Path | None = None) -> Models:
    """The models that this site may use, by its configuration, with the heads learned in `state_dir`."""
    roots = (Path(section.models_dir), SHIPPED) if section.models_dir else (SHIPPED,)
    heads = None if state_dir is None else state_dir / HEADS
    return Models(roots=roots, profile=section.profile, accepted=section.accepted_models, heads=heads)


def _inputs(paths: Iterable[Path], kind: Literal["ecg", "fundus"]) -> Iterator[Input | UnreadableInputError]:
    for path in paths:
        found = False
        for item in list_inputs(path, kind):
            if isinstance(item, Input):
                found = True
                yield item
        if not found:
            yield UnreadableInputError(
                operation="looking for recordings",
                target=str(path),
                cause=f"nothing here reads as {'an ECG' if kind == 'ecg' else 'a photograph'}",
                remedy="Give a file, or a folder that holds some.",
            )


def _each(
    paths: Iterable[Path], kind: Literal["ecg", "fundus"], analyze: Callable[[Input], dict[str, Any]]
) -> Iterator[Outcome]:
    """One bad input never stops the others: its error is its outcome."""
    for item in _inputs(paths, kind):
        if isinstance(item, AidpostError):
            yield Outcome(source=item.target, error=item)
            continue
        try:
            yield Outcome(source=item.name, result=analyze(item))
        except AidpostError as error:
            yield Outcome(source=item.name, error=error)


def analyze_ecgs(
    paths: Iterable[Path],
    models: Models,
    at: Timestamp,
    limits: Limits,
    lead: str | None = None,
    *,
    waves: bool = False,
) -> Iterator[Outcome]:
    """Interpret every ECG under `paths`; each outcome comes as soon as it is there; `waves` adds each beat's waves.

    Raises
    ------
    UsageError, ModelError
        What would fail for every input alike is raised as an outcome of each, never swallowed.
    """
    from aidpost.firmware_bridge.formats.inputs import read_ecg_file
    from aidpost.inference.ecg import analyze, delineation
    from aidpost.inference.output import ecg_json

    def one(item: Input) -> dict[str, Any]:
        started = time.perf_counter()
        recording = read_ecg_file(item.path, at=at, source=item.name)
        read = time.perf_counter()
        elapsed = {"read": (read - started) * 1e3}
        result = analyze(recording, models, lead, limits=limits.get("ecg"), elapsed_ms=elapsed)
        elapsed |= {"total": (time.perf_counter() - started) * 1e3}
        out = ecg_json(result, elapsed)
        return out | {"waves": delineation(result, recording)} if waves else out

    return _each(paths, "ecg", one)


def analyze_photographs(
    paths: Iterable[Path],
    models: Models,
    at: Timestamp,
    limits: Limits,
    *,
    eye: Eye | None = None,
    heatmap_dir: Path | None = None,
    force: bool = False,
) -> Iterator[Outcome]:
    """Interpret every photograph under `paths`; with `heatmap_dir`, a PNG beside each answer that has a heatmap."""
    from aidpost.firmware_bridge.formats.inputs import read_photo_file
    from aidpost.inference.fundus import analyze
    from aidpost.inference.output import fundus_json

    def one(item: Input) -> dict[str, Any]:
        started = time.perf_counter()
        photo = read_photo_file(item.path, at=at, eye=eye, source=item.name)
        analysis = analyze(photo, models, force=force, limits=limits.get("fundus"))
        elapsed = {**analysis.elapsed_ms, "total": (time.perf_counter() - started) * 1e3}
        heatmap = None
        if heatmap_dir is not None and analysis.heatmap_png is not None:
            heatmap_dir.mkdir(parents=True, exist_ok=True)
            heatmap = heatmap_dir / f"{item.path.stem}.heatmap.png"
            heatmap.write_bytes(analysis.heatmap_png)
        return fundus_json(analysis.result, elapsed, heatmap=str(heatmap) if heatmap else None)

    return _each(paths, "fundus", one)
