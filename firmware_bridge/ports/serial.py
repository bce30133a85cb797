"""`serial:/dev/ttyACM0?device=healthypi4`: an ECG board on a serial port, live.

Options: `device` (a name of `boards.BOARDS`; without it the board is told from what it sends), `baud`, `fs`, `leads`,
and `gain` or `uv_per_count`, where the site has calibrated them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aidpost.errors import DeviceBusyError, DeviceError, DeviceLostError, DeviceNotFoundError, DeviceTimeoutError
from aidpost.firmware_bridge.assembler import BOARD_OPTIONS, EcgAssembler, scale_of
from aidpost.firmware_bridge.boards import BOARDS, Board, identify
from aidpost.firmware_bridge.capture import CaptureHeader, CaptureWriter, Chunk
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders.base import Announcement, Block, Corrupt
from aidpost.firmware_bridge.ports import _serial_worker
from aidpost.firmware_bridge.sources import BaseSource, Kind, SourceSpec
from aidpost.firmware_bridge.states import STATES
from aidpost.firmware_bridge.supervisor import STARTUP_S, Supervisor
from aidpost.firmware_bridge.usb_boards import Remembered
from aidpost.firmware_bridge.vitals import vital_signs
from aidpost.records import EcgRecording, Origin, Timestamp, VitalSign

DEFAULT_SECONDS = 30.0
FIRST_BYTE_S = 5.0
SILENCE_S = 5.0
"""Longest silence in a recording before it is ended with what there is."""
SNIFF_S = 2.0


class SerialSource(BaseSource):
    """One board, read by a supervised process of its own."""

    kinds = frozenset({Kind.ECG, Kind.VITALS})

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        super().__init__(spec, clock)
        spec.require_only(*BOARD_OPTIONS, "baud")
        if not spec.address:
            raise spec.usage_error("no port is named", "Write serial:/dev/ttyACM0 or the like.")
        name = spec.get("device")
        if name and name not in BOARDS:
            raise spec.usage_error(f"there is no board {name!r}", f"Known are {', '.join(BOARDS)}.")
        self._board: Board | None = BOARDS.get(name)
        if self._board is not None:
            scale_of(self._board, spec)
        self._baud = int(spec.number("baud", 0, low=0, high=4_000_000))
        self._worker: Supervisor | None = None
        self._problem = ""
        self._off: tuple[int, ...] = ()
        self.watcher: Callable[[EcgAssembler], None] | None = None
        """Told after each arrival while an ECG is recorded, for a live trace; may raise to end the recording."""

    @property
    def restarts(self) -> int:
        """How often the worker had to be replaced since the port was opened."""
        return self._worker.restarts if self._worker else 0

    def _open(self, board: Board | None, baud: int) -> Supervisor:
        if self._worker is None:
            start, stop = (board.start, board.stop) if board else (b"", b"")
            remembered = Remembered(self.spec.address)
            self._worker = Supervisor(_serial_worker.run, self.spec.address, baud, start, stop, remembered)
            self._worker.start()
        return self._worker

    def chunks(self, board: Board | None, baud: int, first_s: float | None = None) -> Iterator[tuple[float, bytes]]:
        """(monotonic seconds, bytes) as they arrive; ends when `SILENCE_S` have passed without any.

        Raises
        ------
        DeviceNotFoundError, DeviceBusyError
            The port is not there, or held by another program.
        DeviceTimeoutError
            Nothing came within `first_s` (None: `FIRST_BYTE_S`).
        """
        first_s = FIRST_BYTE_S if first_s is None else first_s
        worker = self._open(board, baud)
        quiet_until: float | None = None
        any_yet, restarts, waited, starting = False, worker.restarts, False, False
        while True:
            message = worker.receive(0.25)
            now = time.monotonic()
            if worker.restarts != restarts:
                restarts = worker.restarts
                if not waited:  # nobody listens until the new process has started; a port that hangs again has had it
                    waited, starting, quiet_until = True, True, now + STARTUP_S
            if message is not None:
                kind, at, what = message
                if kind == "data":
                    any_yet, quiet_until, waited = True, at + SILENCE_S, False
                    STATES.heard(self.spec)
                    yield at, what
                    continue
                self._problem = what if kind == "lost" else ""
                STATES.told(self.spec, reason=self._problem)
                if starting:
                    starting, quiet_until = False, now + (SILENCE_S if any_yet else first_s)
                # the deadline runs from when the port was opened, or found missing, not from the worker's start
                quiet_until = quiet_until or now + first_s
            if quiet_until is not None and now > quiet_until:
                if any_yet:
                    return
                raise self._nothing_came()

    def _nothing_came(self) -> DeviceError:
        port = self.spec.address
        if not Path(port).exists():
            return DeviceNotFoundError(
                operation="opening the port", target=port, cause="it is not there", remedy="Plug the board in."
            )
        if "lock" in self._problem or "busy" in self._problem.lower():
            return DeviceBusyError(
                operation="opening the port",
                target=port,
                cause="another program holds it",
                remedy="Close the other program (a serial monitor, ModemManager).",
            )
        if self._problem:
            return DeviceError(
                operation="opening the port", target=port, cause=self._problem, remedy="Re-plug the board."
            )
        return DeviceTimeoutError(
            operation="reading the port",
            target=port,
            cause="the board sent nothing",
            remedy="Check its power and the cable, then re-plug it.",
        )

    def detect(self) -> Board:
        """The board on the port, by what it sends at each usual rate.

        Raises
        ------
        DeviceError
            What comes fits no board, or several alike.
        """
        heard = False
        for baud in [self._baud] if self._baud else sorted({board.baud for board in BOARDS.values()}):
            data, until = bytearray(), time.monotonic() + SNIFF_S + FIRST_BYTE_S
            try:
                for at, chunk in self.chunks(None, baud, first_s=SNIFF_S):
                    until = min(until, at + SNIFF_S) if not data else until
                    data += chunk
                    if time.monotonic() > until:
                        break
            except DeviceTimeoutError:
                pass
            finally:
                self.close()
            heard = heard or bool(data)
            names = identify(bytes(data))
            if len(names) == 1:
                return BOARDS[names[0]]
            if names:
                raise self._unknown(f"it may be any of {', '.join(names)}, which send alike")
        raise self._unknown("what it sends is of no known board" if heard else "nothing came at any usual rate")

    def _unknown(self, cause: str) -> DeviceError:
        remedy = f"Say which board it is with ?device= and one of {', '.join(BOARDS)}."
        return DeviceError(operation="recognising the board", target=self.spec.address, cause=cause, remedy=remedy)

    def reach(self) -> None:
        """Open the port until something comes. Raises as `chunks`."""
        board = self._board
        with STATES.reading(self.spec):
            next(self.chunks(board, self._baud or (board.baud if board else BOARDS["healthypi4"].baud)), None)
            STATES.told(self.spec, name=board.title if board else None)

    def stream(self, board: Board) -> Iterator[tuple[float, Sequence[Block | Corrupt | Announcement]]]:
        """(monotonic seconds, what the decoder made of it) as it arrives, for a live trace."""
        decoder = board.decoder()
        for at, data in self.chunks(board, self._baud or board.baud):
            yield at, decoder.feed(data)

    def read_ecg(self, seconds: float | None = None) -> EcgRecording:
        with STATES.reading(self.spec):
            assembler, at = self._record(seconds or DEFAULT_SECONDS)
        return assembler.recording(at=at, origin=Origin.LIVE, source=str(self.spec))

    def read_vitals(self) -> list[VitalSign]:
        with STATES.reading(self.spec):
            assembler, at = self._record(5.0)
        assert self._board is not None
        readings = assembler.readings
        return vital_signs(readings, board=self._board, at=at, origin=Origin.LIVE, source=str(self.spec))

    def _record(self, seconds: float) -> tuple[EcgAssembler, Timestamp]:
        if self._board is None:
            self._board = self.detect()
        board = self._board
        STATES.told(self.spec, name=board.title)
        assembler = EcgAssembler(board, self.spec, seconds)
        at = self.clock.now()
        until, last = None, time.monotonic()
        for time_s, items in self.stream(board):
            assembler.add(items, time_s)
            self._tell(board, items)
            if self.watcher is not None:
                self.watcher(assembler)
            if len(assembler) and until is None:
                at, until = self.clock.now(), time_s + seconds + SILENCE_S
            last = time_s
            if assembler.full or (until is not None and time_s > until):
                return assembler, at
            if until is None and assembler.corrupt > 8192:
                break
        if not len(assembler):
            raise self._unreadable(assembler.corrupt)
        if self._problem and len(assembler) < assembler.fs_hz:
            raise DeviceLostError(
                operation="recording an ECG",
                target=self.spec.address,
                cause=f"the board went away at once ({self._problem})",
                remedy="Check the cable, re-plug the board and record again.",
            )
        # it fell silent: what was asked for and never came is missing, and the recording says so
        assembler.finish(time.monotonic() - last)
        return assembler, at

    def _tell(self, board: Board, items: Sequence[Block | Corrupt | Announcement]) -> None:
        """Say which leads have no contact, when that changes: a board that never says so may not be able to."""
        for item in items:
            if isinstance(item, Block) and item.off != self._off:
                self._off, leads = item.off, board.leads
                off = [leads[lead] if lead < len(leads) else f"channel {lead + 1}" for lead in item.off]
                STATES.told(self.spec, lead_off=off)

    def _unreadable(self, corrupt: int) -> DeviceError:
        name = self._board.title if self._board else "a board"
        return DeviceError(
            operation="recording an ECG",
            target=self.spec.address,
            cause=f"{corrupt} bytes came, and none was a frame of {name}",
            remedy="Check device= and baud=, or leave device= out to have the board recognised.",
        )

    def record(self, path: Path, seconds: float) -> int:
        """Write what arrives in `seconds` to a capture at `path`; gives the number of bytes. For `replay:`, later."""
        if self._board is None:
            self._board = self.detect()
        board, now, total = self._board, self.clock.now(), 0
        header = CaptureHeader(board.name, self.spec.address, now.wall_ms, now.boot)
        began: float | None = None
        with STATES.reading(self.spec), CaptureWriter(path, header) as writer:
            for at, data in self.chunks(board, self._baud or board.baud):
                began = at if began is None else began
                writer.write(Chunk(round((at - began) * 1e6), data))
                total += len(data)
                if at - began >= seconds:
                    break
        return total

    def close(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
