"""What a device does with what its hub sends while it is traced: settings, one after another, and a large body between.

Run as a process of its own with the shim: `python down_workload.py FOLDER`. What was taken up is written to FOLDER's
`acknowledged` after the call has returned.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
from pathlib import Path

from aidpost.board import remote
from aidpost.board.configuration import Configuration
from aidpost.records import BlobRef, Timestamp, encode
from aidpost.sync import settings
from aidpost.sync.applier import Applier, Subject, Taken
from aidpost.sync.bodies import Delivery
from aidpost.sync.clock import SystemClock
from aidpost.sync.deliveries import Ready
from aidpost.sync.envelope import CHUNK, Chunk, Envelope
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Store

KEY = DeviceKey(bytes(range(32)), "test")
LARGE = hashlib.shake_128(b"release").digest(5 * CHUNK + 100)
SETTINGS = ["101", "102", "103"]
AT = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1, boot=0, synced=True)


def envelope(subject: str, serial: int, body: bytes = b"", blob: BlobRef | None = None) -> Envelope:
    record = Delivery(
        id=uuid.UUID(int=serial), subject=subject, version=f"v{serial}", serial=serial, at=AT, body=body, blob=blob
    )
    return Envelope(b"hub-epoc", subject, serial, "Delivery", None, None, encode(record))


def large() -> Envelope:
    ref = BlobRef(sha256=hashlib.sha256(LARGE).hexdigest(), size=len(LARGE), media_type="x/y")
    return envelope("round", 9, blob=ref)


def chunks() -> list[Chunk]:
    sha256 = hashlib.sha256(LARGE).digest()
    return [Chunk(sha256, len(LARGE), at, LARGE[at : at + CHUNK]) for at in range(0, len(LARGE), CHUNK)]


def number(at: int) -> Envelope:
    return envelope("config", at + 1, settings.pack({"clinic.emergency_telephone": SETTINGS[at]}))


def opened(state: Path) -> tuple[Store, Applier]:
    """The device's store, and who takes up what comes."""
    store = Store.open(state, KEY, clock=SystemClock(), name="unit-1")
    taker = remote.RemoteSettings(Configuration(), state, store, lambda _: None)

    def take_round(one: Ready) -> Taken:
        assert one.read() == LARGE
        return Taken()

    return store, Applier(store, {"config": Subject(taker.take_up), "round": Subject(take_round, latest=False)})


def main(folder: Path) -> None:
    descriptor = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store, applier = opened(folder / "state")
    store.inbox.keep([large()], 1)
    for at in range(len(SETTINGS)):
        store.inbox.keep([number(at)], 1)
        applier.turn()
        os.write(descriptor, json.dumps({"settings": at}).encode() + b"\n")
        store.deliveries.keep_chunks(chunks()[2 * at : 2 * at + 2])
        os.write(descriptor, json.dumps({"chunks": 2 * at + 2}).encode() + b"\n")
    applier.turn()
    os.write(descriptor, json.dumps({"round": True}).encode() + b"\n")
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
