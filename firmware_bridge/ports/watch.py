"""`watch:/srv/photos`: a folder into which a commercial camera drops its photographs.

`read_photo` waits for a file that was not there when the source was opened (option `wait`, seconds, 300). A file counts
when it is whole; one that stays incomplete is an error, not a photograph. Sub-folders are watched too.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from aidpost.errors import DeviceNotFoundError, DeviceTimeoutError, UnreadableInputError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.inputs import PHOTO_SUFFIXES, read_photo_file
from aidpost.firmware_bridge.sources import BaseSource, Kind, SourceSpec
from aidpost.firmware_bridge.states import STATES
from aidpost.records import Eye, FundusPhoto, Origin

POLL_S = 0.2
UNCHANGED_S = 3.0
"""A file that has not grown for so long will not become whole any more."""
SUFFIXES = PHOTO_SUFFIXES | {".dcm", ".dicom", ""}

_Stamp = tuple[int, int]


class WatchSource(BaseSource):
    """The photographs that appear in a folder, each given once, oldest first."""

    kinds = frozenset({Kind.FUNDUS})

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        super().__init__(spec, clock)
        spec.require_only("wait")
        self._wait_s = spec.number("wait", 300, low=0.1, high=86_400)
        self._folder = Path(spec.address)
        if not self._folder.is_dir():
            raise DeviceNotFoundError(
                operation="watching a folder",
                target=spec.address,
                cause="there is no such folder",
                remedy="Make it, and set the camera's software to save photographs there.",
            )
        self._seen: dict[Path, _Stamp] = self._files()

    def _files(self) -> dict[Path, _Stamp]:
        found = {}
        for path in self._folder.rglob("*"):
            try:
                status = path.stat()
            except OSError:  # renamed or removed meanwhile
                continue
            if path.is_file() and not path.name.startswith(".") and path.suffix.lower() in SUFFIXES:
                found[path] = (status.st_mtime_ns, status.st_size)
        return found

    def read_photo(self, eye: Eye | None = None) -> FundusPhoto:
        with STATES.reading(self.spec):
            photo = self._next(eye)
            STATES.heard(self.spec)
        return photo

    def _next(self, eye: Eye | None) -> FundusPhoto:
        until = time.monotonic() + self._wait_s
        changed: dict[Path, tuple[_Stamp, float]] = {}
        while time.monotonic() < until:
            fresh = {path: stamp for path, stamp in self._files().items() if self._seen.get(path) != stamp}
            for path, stamp in sorted(fresh.items(), key=lambda item: item[1]):
                last = changed.get(path)
                if last is None or last[0] != stamp:
                    changed[path] = (stamp, time.monotonic())  # still growing
                    continue
                try:
                    photo = read_photo_file(path, at=self.clock.now(), eye=eye)
                except UnreadableInputError:
                    if time.monotonic() - last[1] > UNCHANGED_S:
                        self._seen[path] = stamp
                        raise
                    continue
                self._seen[path] = stamp
                return msgspec.structs.replace(photo, origin=Origin.LIVE)
            time.sleep(POLL_S)
        raise DeviceTimeoutError(
            operation="watching a folder",
            target=str(self._folder),
            cause=f"no photograph appeared in {self._wait_s:g} s",
            remedy="Take one, and check that the camera saves to this folder.",
        )
