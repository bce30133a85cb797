"""`dicom:0.0.0.0:11112?folder=/srv/dicom`: a camera that sends its photographs by DICOM (C-STORE).

Options: `folder` (where they are kept), `ae` (our AE title, AIDPOST), `from` (the AE titles that may send, with commas;
else any), `wait` (seconds, 300), `near` (minutes, 5; 0: any age) and `keep` (hours, 24).

A photograph counts that was taken at most `near` minutes ago: by its own time of acquisition where it has one and our
clock can be trusted, else by when it came. Older ones may be another patient's; they stay in the folder, and the error
says so. The eye is what the tags say, or what the worker says; a photograph of the other eye waits until that is read.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta, timezone
from pathlib import Path

import msgspec

from aidpost.errors import DeviceError, DeviceTimeoutError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.dicom import photo_taken_at
from aidpost.firmware_bridge.formats.inputs import read_photo_file
from aidpost.firmware_bridge.ports._dicom_store import Listener, Spool
from aidpost.firmware_bridge.sources import BaseSource, Kind, SourceSpec
from aidpost.firmware_bridge.states import STATES
from aidpost.records import Eye, FundusPhoto, Origin, Timestamp


class DicomSource(BaseSource):
    """The photographs that cameras send to this device; listens from opening to `close`."""

    kinds = frozenset({Kind.FUNDUS})

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        super().__init__(spec, clock)
        spec.require_only("folder", "ae", "from", "wait", "near", "keep")
        host, colon, port = spec.address.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise spec.usage_error("no address and port are named", "Write dicom:0.0.0.0:11112?folder=FOLDER.")
        if not spec.get("folder"):
            raise spec.usage_error("no folder is named in which photographs are kept", "Add ?folder=FOLDER.")
        title, allowed = spec.get("ae", "AIDPOST"), tuple(filter(None, spec.get("from").split(",")))
        if any(not 1 <= len(name) <= 16 or not name.isascii() for name in (title, *allowed)):
            raise spec.usage_error("an AE title has 1 to 16 plain characters")
        self._wait_s = spec.number("wait", 300, low=0.1, high=86_400)
        self._near_s = spec.number("near", 5, low=0, high=10_000) * 60 or float("inf")
        self._keep_s = spec.number("keep", 24, low=0, high=8760) * 3600
        folder = Path(spec.get("folder"))
        try:
            self._spool = Spool(folder)
        except OSError as error:
            cause, remedy = f"nothing can be kept there ({error.strerror})", "Name a folder that can be written to."
            operation = "opening the folder for photographs"
            raise DeviceError(operation=operation, target=str(folder), cause=cause, remedy=remedy) from error
        self._came = threading.Event()
        self._listener = Listener(host, int(port), self._spool, title=title, allowed=allowed, stored=self._came.set)
        self.port = self._listener.port

    def read_photo(self, eye: Eye | None = None) -> FundusPhoto:
        with STATES.reading(self.spec):
            photo = self._next(eye)
            STATES.heard(self.spec)
        return photo

    def _next(self, eye: Eye | None) -> FundusPhoto:
        self._spool.prune(time.time() - self._keep_s)
        until = time.monotonic() + self._wait_s
        while True:
            self._came.clear()
            old, others = 0, 0
            for path in self._spool.waiting():
                now = self.clock.now()
                photo = msgspec.structs.replace(read_photo_file(path, at=now), origin=Origin.LIVE)
                if self._age_s(path, now) > self._near_s:
                    old += 1
                elif eye is not None and photo.eye not in (None, eye):
                    others += 1
                else:
                    self._spool.hand_on(path)
                    return msgspec.structs.replace(photo, eye=photo.eye or eye)
            left = until - time.monotonic()
            if left <= 0 or not self._came.wait(left):
                raise self._nothing_came(old, others)

    def _age_s(self, path: Path, now: Timestamp) -> float:
        """How long ago a photograph was taken."""
        taken = photo_taken_at(path) if now.synced else None
        if taken is None:
            return time.time() - path.stat().st_mtime
        if taken.tzinfo is None:
            taken = taken.replace(tzinfo=timezone(timedelta(minutes=now.utc_offset_min or 0)))
        return abs(now.wall_ms / 1000 - taken.timestamp())

    def _nothing_came(self, old: int, others: int) -> DeviceTimeoutError:
        cause = f"no photograph came in {self._wait_s:g} s"
        if others:
            cause += f"; {others} of the other eye came"
        if old:
            cause += f"; {old} that were not taken just now wait in {self._spool.folder}"
        remedy = "Send one from the camera to this device's address, port and AE title."
        if old:
            remedy += " Give an older one with its path, if it is this patient's; check the camera's clock."
        return DeviceTimeoutError(
            operation="waiting for a DICOM camera", target=str(self.spec), cause=cause, remedy=remedy
        )

    def close(self) -> None:
        self._listener.stop()
