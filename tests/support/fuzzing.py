"""Arbitrary bytes for every decoder and file reader: no exception but the documented ones, no hang, no growth.

Inputs are mutations of what is known to be interesting: the frames of simulated devices, and the corpus, into which
goes whatever made a decoder answer in a new way. `scripts/fuzz` runs this for ten minutes; the test suite plays the
corpus and a short seeded run.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aidpost.errors import UnreadableInputError
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.capture import CaptureHeader, CaptureWriter, Chunk, open_capture
from aidpost.firmware_bridge.decoders.catalogue import CHARACTERISTICS
from aidpost.firmware_bridge.formats.inputs import read_ecg_file, read_photo_file
from aidpost.firmware_bridge.formats.write import write_ecg, write_photo
from aidpost.firmware_bridge.simulators.boards import ENCODERS, frames
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.firmware_bridge.simulators.sensors import SENSORS
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import Eye, Timestamp

CORPUS = Path(__file__).resolve().parents[1] / "firmware_bridge" / "corpus"
AT = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True)
HANG_S = 2.0
"""Processor time after which an input is called a hang; they take microseconds to milliseconds."""
MAX_KEPT, MAX_LENGTH = 40, 400
GROWTH_MB = 24

Answer = Callable[[bytes], str]
"""Takes bytes, and gives what kind of answer they got: an unseen one makes the bytes worth keeping."""


class Clock:
    """A clock that stands still."""

    def now(self) -> Timestamp:
        return AT


class Hang(Exception):
    """An input took longer than `HANG_S` of processor time."""


@contextmanager
def _watched() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _plain(text: str) -> str:
    return re.sub(r"[\d.]+|'[^']*'|\(.*\)", "#", text)[:80]


def _board(name: str) -> Answer:
    lasting = BOARDS[name].decoder()  # sees everything, one input after the other, as a noisy line would bring it

    def answer(data: bytes) -> str:
        lasting.feed(data)
        whole, parts = BOARDS[name].decoder().feed(data), BOARDS[name].decoder()
        pieces = [item for n in range(0, len(data), 7) for item in parts.feed(data[n : n + 7])]
        assert pieces == list(whole), "the answer depends on how the bytes were cut"
        kinds = sorted({f"{type(item).__name__} {getattr(item, 'reason', '')}" for item in whole})
        flags = sorted({f"{bool(getattr(i, 'lost', 0))}{getattr(i, 'off', ())}" for i in whole})
        return _plain(" ".join(kinds)) + " ".join(flags)[:80]

    return answer


def _characteristic(decode: Callable[[bytes], Any]) -> Answer:
    def answer(data: bytes) -> str:
        try:
            value = decode(data)
        except UnreadableInputError as error:
            return _plain(error.cause)
        shape = [f"{key}{value is None}" for key, value in vars(value).items()] if hasattr(value, "__dict__") else []
        return type(value).__name__ + "".join(shape)

    return answer


def _file(folder: Path, name: str) -> Answer:
    path = folder / name

    def answer(data: bytes) -> str:
        path.write_bytes(data)
        try:
            if name.endswith(".aidcap"):
                capture = open_capture(path)
                return "raw" if capture is None else f"{len(list(capture.chunks())) > 0} {capture.complete}"
            if name.endswith((".jpg", ".png")) or name.startswith("photo"):
                return read_photo_file(path, at=AT).media_type
            recording = read_ecg_file(path, at=AT)
            return f"{len(recording.leads)} {bool(recording.missing)} {bool(recording.lead_off)}"
        except UnreadableInputError as error:
            return _plain(error.cause)

    return answer


def _seed_files(folder: Path) -> dict[str, bytes]:
    """A small valid file of each form, made by this project's own writers."""
    recording = open_source("sim:ecg?fs=250", clock=Clock()).read_ecg(0.2)
    for name in ("r.hea", "r.edf", "r.dcm"):
        write_ecg(recording, folder / name)
    (folder / "r.csv").write_text("time_s,I_mV\n0,1\n0.004,2\n0.008,nan\n")
    photo = open_source("sim:fundus?size=64&eye=left", clock=Clock()).read_photo(Eye.LEFT)
    write_photo(photo, folder / "photo.dcm")
    (folder / "p.jpg").write_bytes(photo.encoded)
    (folder / "p.png").write_bytes(encode_fundus(render_fundus(size=64), png=True))
    with CaptureWriter(folder / "c.aidcap", CaptureHeader("cyton")) as writer:
        writer.write(Chunk(5, b"abc"))
    names = ("r.hea", "r.edf", "r.dcm", "r.csv", "photo.dcm", "p.jpg", "p.png", "c.aidcap")
    return {name: (folder / name).read_bytes() for name in names}


def _sent_by_sensors() -> dict[str, list[bytes]]:
    out: dict[str, list[bytes]] = {}
    for make in SENSORS.values():
        for characteristics in make().services.values():
            for one in characteristics:
                out.setdefault(one.uuid.upper(), []).extend([one.value, *one.sends[:3]])
    return out


def targets(folder: Path) -> dict[str, tuple[Answer, list[bytes]]]:
    """Every decoder and reader by name, with inputs to begin with."""
    out: dict[str, tuple[Answer, list[bytes]]] = {}
    for board in ENCODERS:
        sent = list(frames(board, [n * 37 % 1000 for n in range(300)]))
        out[board] = (_board(board), [sent[0], b"".join(sent[:3]), b"".join(sent[7:12]), b"".join(sent[249:252])])
    known = _sent_by_sensors()
    for key, (_, decode) in CHARACTERISTICS.items():
        out[key] = (_characteristic(decode), [*known.get(key, []), bytes(20), bytes(range(1, 21))])
    for name, data in _seed_files(folder).items():
        out[name] = (_file(folder, name), [data])
    return out


def load_corpus(name: str, corpus: Path = CORPUS) -> list[bytes]:
    """The kept inputs of a target."""
    path = corpus / f"{name}.hex"
    return [bytes.fromhex(line) for line in path.read_text().split()] if path.is_file() else []


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A relative of `data`: bytes changed, cut, doubled, filled in, or joined to another input."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(7)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at % len(out)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del out[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 4:
            out[at:at] = out[at : at + rng.randrange(1, 40)]
        elif kind == 5:
            del out[at:]
        else:
            out[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(out)


def try_input(name: str, answer: Answer, data: bytes) -> str:
    """The kind of answer.

    Raises
    ------
    AssertionError
        It hung, or raised what is not documented; the message has the bytes.
    """
    try:
        with _watched():
            return answer(data)
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}: {data.hex()}") from error


def resident_mb() -> float:
    """Memory of this process that is in use now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def fuzz(seconds: float, rounds: int, seed: int, keep: Path | None) -> dict[str, int]:
    """Mutations of every target's inputs until the time or the rounds are over; gives how many each took.

    With `keep`, inputs that got an answer of a new kind are written there.

    Raises
    ------
    AssertionError
        An exception, a hang, or memory that grows.
    """
    rng, until, tried = random.Random(seed), time.monotonic() + seconds, {}
    with tempfile.TemporaryDirectory() as folder:
        every = targets(Path(folder))
        seen: dict[str, set[str]] = {}
        for name, (answer, inputs) in every.items():
            inputs += load_corpus(name)
            seen[name] = {try_input(name, answer, data) for data in inputs}
            tried[name] = len(inputs)
        settled: float | None = None
        for turn in range(rounds):
            for name, (answer, inputs) in every.items():
                for _ in range(20):
                    data = mutate(rng.choice(inputs), rng.choice(inputs), rng)[:4096]
                    kind = try_input(name, answer, data)
                    tried[name] += 1
                    if kind not in seen[name]:
                        seen[name].add(kind)
                        if len(inputs) < MAX_KEPT and len(data) <= MAX_LENGTH:
                            inputs.append(data)
            if turn == 4:
                settled = resident_mb()
            if time.monotonic() > until:
                break
        grown = resident_mb() - settled if settled is not None else 0.0
        assert grown < GROWTH_MB, f"memory grew by {grown:.0f} MB"
        if keep is not None:
            keep.mkdir(exist_ok=True)
            for name, (_, inputs) in every.items():
                kept = sorted({data.hex() for data in inputs if 0 < len(data) <= MAX_LENGTH})
                (keep / f"{name}.hex").write_text("\n".join(kept) + "\n")
            print(f"memory {resident_mb():.0f} MB, grown by {grown:.1f} MB since the fifth round")
    return tried


def main() -> None:
    """The command line of `scripts/fuzz`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    warnings.simplefilter("error")  # as in the tests
    print(f"seed {arguments.seed}")
    tried = fuzz(arguments.seconds, sys.maxsize, arguments.seed, CORPUS)
    for name, count in sorted(tried.items(), key=lambda item: item[1]):
        print(f"{name:<40} {count:>9}")
    print(f"{len(tried)} decoders and readers, {sum(tried.values())} inputs, nothing found")


if __name__ == "__main__":
    main()
