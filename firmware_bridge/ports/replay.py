"""`replay:FILE?device=NAME`: bytes that a board sent earlier, through the same decoder.

`pace=real` gives them at the speed at which they came; the default, `pace=fast`, as fast as they are taken. A capture
made by `devices record` knows its device and times; a file of raw bytes needs `device=` and has no times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aidpost.errors import UnreadableInputError
from aidpost.firmware_bridge.assembler import BOARD_OPTIONS, EcgAssembler, scale_of
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.capture import Capture, Chunk, open_capture, paced
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.cgm import decode_cgm
from aidpost.firmware_bridge.gatt_vitals import MEASUREMENTS, CgmReading, Context, vital_signs_of
from aidpost.firmware_bridge.ports import _ble_ecg
from aidpost.firmware_bridge.sources import BaseSource, Kind, SourceSpec
from aidpost.firmware_bridge.vitals import vital_signs
from aidpost.records import Device, EcgRecording, Origin, VitalSign

RAW_CHUNK = 4096
MAX_SECONDS = 86_400.0


class ReplaySource(BaseSource):
    """A capture of a serial board or of a Bluetooth sensor."""

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        super().__init__(spec, clock)
        spec.require_only(*BOARD_OPTIONS, "pace")
        self._pace = spec.choice("pace", "fast", ("fast", "real"))
        self._path = Path(spec.address)
        self._capture: Capture | None = open_capture(self._path)
        self._gatt = self._capture is not None and self._capture.header.channels != ("serial",)
        if self._gatt:
            channels = self._capture.header.channels if self._capture else ()
            self._stream = _ble_ecg.kind_of(lambda name: name in channels)
            self.kinds = frozenset({Kind.VITALS, Kind.ECG} if self._stream else {Kind.VITALS})
            return
        name = spec.get("device") or (self._capture.header.device if self._capture else "")
        if name not in BOARDS:
            cause = f"there is no board {name!r}" if name else "the file does not say which board sent it"
            raise spec.usage_error(cause, f"Add ?device= with one of {', '.join(BOARDS)}.")
        self._board = BOARDS[name]
        scale_of(self._board, spec)
        self.kinds = frozenset({Kind.ECG, Kind.VITALS} if self._board.vitals else {Kind.ECG})

    def chunks(self) -> Iterator[Chunk]:
        """What was captured, in order, at the pace that was asked for."""
        chunks = self._capture.chunks() if self._capture else self._raw_chunks()
        return paced(chunks, real=self._pace == "real")

    def _raw_chunks(self) -> Iterator[Chunk]:
        with self._path.open("rb") as file:
            while data := file.read(RAW_CHUNK):
                yield Chunk(0, data)

    def _assemble(self, seconds: float) -> EcgAssembler:
        assembler = EcgAssembler(self._board, self.spec, seconds)
        decoder = self._board.decoder()
        for chunk in self.chunks():
            assembler.add(decoder.feed(chunk.data), chunk.time_us / 1e6 if self._capture else None)
            if assembler.full:
                break
        return assembler

    def read_ecg(self, seconds: float | None = None) -> EcgRecording:
        if Kind.ECG not in self.kinds:
            return super().read_ecg(seconds)
        at = self.clock.now()
        if self._gatt:
            return self._streamed(min(seconds or MAX_SECONDS, MAX_SECONDS))
        assembler = self._assemble(min(seconds or MAX_SECONDS, MAX_SECONDS))
        if not len(assembler):
            raise UnreadableInputError(
                operation="replaying a capture",
                target=str(self._path),
                cause=f"it holds no frame of {self._board.title} ({assembler.corrupt} bytes could not be read)",
                remedy="Check device=: the capture may be of another board.",
            )
        return assembler.recording(at=at, origin=Origin.REPLAY, source=str(self.spec))

    def read_vitals(self) -> list[VitalSign]:
        if Kind.VITALS not in self.kinds:
            return super().read_vitals()
        if self._gatt:
            return self._characteristics()
        at = self.clock.now()
        readings = self._assemble(MAX_SECONDS).readings
        return vital_signs(readings, board=self._board, at=at, origin=Origin.REPLAY, source=str(self.spec))

    def _streamed(self, seconds: float) -> EcgRecording:
        """The ECG of a Bluetooth capture."""
        kind, capture, scale = self._stream, self._capture, self.spec.number("uv_per_count", 0, low=0, high=1e6)
        assert kind is not None
        assert capture is not None
        if not (scale or kind.uv_per_count):
            cause = f"what a count of {kind.title} is worth is not known"
            raise self.spec.usage_error(cause, "Apply a 1 mV signal, and add uv_per_count= as calibration finds it.")
        trace = _ble_ecg.Trace(kind, round(seconds * kind.fs_hz))
        for chunk in self.chunks():
            if trace.full:
                break
            if chunk.channel != kind.data:
                continue
            try:
                frame = kind.frame(kind.decode(chunk.data))
            except DecodeError:
                continue
            if frame is not None:
                trace.add(*frame, chunk.time_us / 1e6)
        if not len(trace):
            raise UnreadableInputError(
                operation="replaying a capture",
                target=str(self._path),
                cause=f"it holds no frame of {kind.title}",
                remedy="Record it again with the sensor worn.",
            )
        return trace.recording(
            uv_per_count=scale or kind.uv_per_count or 0,
            at=self.clock.now(),
            origin=Origin.REPLAY,
            device=Device(name=capture.header.device, address=capture.header.source),
            source=str(self.spec),
        )

    def _characteristics(self) -> list[VitalSign]:
        """The vital signs of a Bluetooth capture: of each measurement that can be decoded, in order."""
        assert self._capture is not None
        device = Device(name=self._capture.header.device, address=self._capture.header.source)
        found: list[VitalSign] = []
        for chunk in self.chunks():
            with contextlib.suppress(DecodeError):
                for measurement in _measurements(chunk):
                    context = Context(at=self.clock.now(), origin=Origin.REPLAY, device=device, source=str(self.spec))
                    found += vital_signs_of(measurement, context)
        return found


def _measurements(chunk: Chunk) -> list[Any]:
    if chunk.channel == "2AA7":  # when its session began, a capture does not tell
        records = decode_cgm(chunk.data)
        return [CgmReading(one, f"minute {one.offset_min} of a session", "", "") for one in records]
    return [MEASUREMENTS[chunk.channel](chunk.data)] if chunk.channel in MEASUREMENTS else []
