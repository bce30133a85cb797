"""`file:PATH` or a plain path: a recording or photograph kept in a file."""

from __future__ import annotations

from pathlib import Path

from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.inputs import read_ecg_file, read_photo_file
from aidpost.firmware_bridge.sources import BaseSource, Kind, SourceSpec
from aidpost.records import EcgRecording, Eye, FundusPhoto


class FileSource(BaseSource):
    """One file, read when asked for; whether it holds what is asked for is found out then."""

    kinds = frozenset({Kind.ECG, Kind.FUNDUS})

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        super().__init__(spec, clock)
        spec.require_only()
        if not spec.address:
            raise spec.usage_error("no path is given", "Write file: and the path.")
        self._path = Path(spec.address)

    def read_ecg(self, seconds: float | None = None) -> EcgRecording:
        return read_ecg_file(self._path, at=self.clock.now(), seconds=seconds)

    def read_photo(self, eye: Eye | None = None) -> FundusPhoto:
        return read_photo_file(self._path, at=self.clock.now(), eye=eye)
