"""Where measurements come from: one grammar, one table, one protocol.

A source is written as a path or a URL::

    exam/patient.hea                               a file (the same as file:exam/patient.hea)
    file:photo.dcm
    sim:ecg?rhythm=af&seconds=30&seed=1            a simulated patient
    replay:capture.bin?device=cyton                bytes that a device sent earlier
    serial:/dev/ttyACM0?device=healthypi4
    ble:AA:BB:CC:DD:EE:FF    ble:heart-rate
    camera:/dev/video0       csi:0      watch:/srv/photos
    dicom:0.0.0.0:11112?folder=/srv/dicom

To add one: write its class, add a row to `SOURCES`, and describe it in docs/sensors.
"""

from __future__ import annotations

import enum
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar, cast
from urllib.parse import parse_qsl, urlencode

from aidpost.errors import DeviceError, NotPossibleError, UsageError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.marks import Marks, NoMarks
from aidpost.records import EcgRecording, Eye, FundusPhoto, VitalSign

SOURCES: dict[str, str] = {
    "file": "aidpost.firmware_bridge.ports.file:FileSource",
    "sim": "aidpost.firmware_bridge.ports.sim:SimulatedSource",
    "replay": "aidpost.firmware_bridge.ports.replay:ReplaySource",
    "serial": "aidpost.firmware_bridge.ports.serial:SerialSource",
    "ble": "aidpost.firmware_bridge.ports.ble:BleSource",
    "camera": "aidpost.firmware_bridge.ports.camera:CameraSource",
    "csi": "aidpost.firmware_bridge.ports.camera:CsiSource",
    "watch": "aidpost.firmware_bridge.ports.watch:WatchSource",
    "dicom": "aidpost.firmware_bridge.ports.dicom:DicomSource",
}
"""name -> "module:class", imported only when a source of that name is opened."""


class Kind(enum.Enum):
    """What a source can give."""

    ECG = "ecg"
    FUNDUS = "fundus"
    VITALS = "vitals"


@dataclass(frozen=True)
class SourceSpec:
    """A source as it was asked for: its name in `SOURCES`, the address and the options."""

    name: str
    address: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        query = f"?{urlencode(self.options, safe=':,/')}" if self.options else ""
        return f"{self.name}:{self.address}{query}"

    def get(self, option: str, default: str = "") -> str:
        """The option's text, or the default."""
        return dict(self.options).get(option, default)

    def number(self, option: str, default: float, *, low: float, high: float) -> float:
        """The option as a number from `low` to `high`.

        Raises
        ------
        UsageError
            It is not a number, or outside.
        """
        text = self.get(option)
        try:
            value = float(text) if text else default
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise self.usage_error(f"{option}={text} is not a number from {low:g} to {high:g}")
        return value

    def choice(self, option: str, default: str, allowed: tuple[str, ...]) -> str:
        """The option as one of the words `allowed`.

        Raises
        ------
        UsageError
            It is another word.
        """
        value = self.get(option, default)
        if value not in allowed:
            raise self.usage_error(f"{option}={value} is not one of {', '.join(allowed)}")
        return value

    def require_only(self, *known: str) -> None:
        """Refuse an option that the source does not know: a misspelt one must not be ignored.

        Raises
        ------
        UsageError
            There is one.
        """
        for option, _ in self.options:
            if option not in known:
                hint = f"It knows: {', '.join(known)}." if known else "It takes none."
                raise self.usage_error(f"there is no option {option!r}", hint)

    def usage_error(self, cause: str, remedy: str = "") -> UsageError:
        """An error about the way this source was written, for the caller to raise."""
        return UsageError(operation="opening a source", target=str(self), cause=cause, remedy=remedy)


class Source(Protocol):
    """Something that measures. A call blocks until it has what was asked for, or its deadline passes.

    Every method may raise `DeviceError` (not there, busy, silent, gone), `UnreadableInputError` (files and captures),
    `NotPossibleError` (this board cannot do it) and `UsageError` (a kind that this source does not give).
    """

    spec: SourceSpec
    kinds: frozenset[Kind]
    read_up_to: Mapping[str, int]
    """Of a sensor that keeps records: what to hand to `Marks.keep` once the last reading is stored."""

    def read_ecg(self, seconds: float | None = None) -> EcgRecording:
        """An ECG of that many seconds; None: all of a file, 30 s of a live source."""

    def read_photo(self, eye: Eye | None = None) -> FundusPhoto:
        """A photograph; `eye` where the operator said which, else what the camera knows, else None."""

    def read_vitals(self) -> list[VitalSign]:
        """The vital signs of one measurement."""

    def close(self) -> None:
        """Let go of the device. May be called twice."""


_Self = TypeVar("_Self", bound="BaseSource")


class BaseSource:
    """What sources share: each overrides the methods of the kinds that it gives."""

    kinds: frozenset[Kind] = frozenset()

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        self.spec, self.clock = spec, clock
        self.marks: Marks = NoMarks()
        self.patience_s: float | None = None
        self.read_up_to: Mapping[str, int] = {}

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def read_ecg(self, seconds: float | None = None) -> EcgRecording:
        raise self._gives_no("ECG")

    def read_photo(self, eye: Eye | None = None) -> FundusPhoto:
        raise self._gives_no("photograph")

    def read_vitals(self) -> list[VitalSign]:
        raise self._gives_no("vital signs")

    def close(self) -> None:
        """Nothing is held open."""

    def _gives_no(self, what: str) -> UsageError:
        given = " and ".join(sorted(kind.value for kind in self.kinds)) or "nothing"
        return self.spec.usage_error(f"this source gives no {what} ({given} only)", "Name another source.")


_SCHEME = re.compile(r"([a-z][a-z0-9-]+):(.*)", re.DOTALL)
_QUERY = re.compile(r"[^?]*\?((?:[A-Za-z_]\w*=[^&]*)(?:&[A-Za-z_]\w*=[^&]*)*)\Z", re.DOTALL)


def parse_source(text: str) -> SourceSpec:
    """What `text` (a path or a URL, see the module) asks for.

    Raises
    ------
    UsageError
        It is empty, or starts with a name that is not in `SOURCES`.
    """
    match = _SCHEME.fullmatch(text)
    if match is None:
        if not text:
            raise UsageError(operation="opening a source", target="''", cause="it is empty", remedy=_remedy())
        return SourceSpec("file", text)
    name, rest = match.groups()
    if name not in SOURCES:
        raise UsageError(operation="opening a source", target=text, cause=f"no source {name!r}", remedy=_remedy())
    query = _QUERY.fullmatch(rest)
    if query is None:
        return SourceSpec(name, rest)
    # `?` may be part of a path: only what reads as option=value&option=value is taken for options
    options = tuple(parse_qsl(query[1], keep_blank_values=True))
    return SourceSpec(name, rest[: query.start(1) - 1], options)


def _remedy() -> str:
    return f"Give a path, or one of {', '.join(f'{name}:…' for name in SOURCES)} (file:… for a path with a colon)."


def plugged_in(source: str) -> bool | None:
    """Whether the port, camera, folder or file that a SOURCE names is there; None where only trying tells. Nothing is
    opened.

    Raises
    ------
    UsageError
        The text names no source.
    """
    spec = parse_source(source)
    if spec.name == "sim":
        return True
    if spec.name == "camera" and not spec.address:
        return any(Path("/dev").glob("video*"))
    return Path(spec.address).exists() if spec.name in ("serial", "camera", "watch", "file", "replay") else None


def open_source(
    source: SourceSpec | str, *, clock: Clock, marks: Marks | None = None, patience_s: float | None = None
) -> Source:
    """Open a source by its text or spec.

    Parameters
    ----------
    marks
        How far a sensor's own records have been stored: it goes on from there. Without, it gives all that it has.
    patience_s
        How long a silent sensor of vital signs is waited for, where the source does not say so (`wait`).

    Raises
    ------
    UsageError
        The text names no source, or an option is wrong.
    NotPossibleError
        This build or board lacks what the source needs.
    """
    from aidpost.firmware_bridge.states import STATES

    spec = parse_source(source) if isinstance(source, str) else source
    module, _, attribute = SOURCES[spec.name].partition(":")
    factory = getattr(importlib.import_module(module), attribute)
    try:
        opened = factory(spec, clock)
    except (DeviceError, NotPossibleError) as error:
        STATES.failed(spec, error)
        raise
    opened.marks, opened.patience_s = marks or NoMarks(), patience_s
    return cast(Source, opened)
