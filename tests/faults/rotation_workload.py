"""What a device does while it is traced: makes a store, a TLS key and a worker, and changes its device key twice.

Run as a process of its own with the shim: `python rotation_workload.py FOLDER`. What was done is written to FOLDER's
`acknowledged` after the call has returned.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import msgspec

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "tests/support"))

from device_records import make_item  # noqa: E402

from aidpost.board import rekey  # noqa: E402
from aidpost.board.console.database import ConsoleDatabase  # noqa: E402
from aidpost.board.console.people import Worker  # noqa: E402
from aidpost.sync import enrolment, keys, seal  # noqa: E402
from aidpost.sync._durable import make_folder  # noqa: E402
from aidpost.sync.clock import SystemClock  # noqa: E402
from aidpost.sync.envelope import RecordClass  # noqa: E402
from aidpost.sync.store import Store  # noqa: E402

RECORDS = 6
PHOTO = b"photograph" * 3_000


def main(folder: Path) -> None:
    descriptor = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(**said: object) -> None:
        os.write(descriptor, json.dumps(said).encode() + b"\n")

    state = folder / "state"
    key = keys.from_file(state / rekey.KEY_FILE, create=True)
    with Store.open(state, key, clock=SystemClock(), name="unit-1") as store:
        for number in range(RECORDS):
            store.append(make_item(RecordClass.REPORT, *([PHOTO] if number == 0 else [])))
    make_folder(state / enrolment.FOLDER)
    enrolment._tls_key(state / enrolment.FOLDER, key, create=True)
    screen = ConsoleDatabase(state)
    worker = msgspec.msgpack.encode(Worker(id="amina", name="amina", supervisor=True, pin="a hash"))
    sealed = seal.seal(key.secret, worker, b"worker amina")
    screen.write(lambda db: db.execute("INSERT INTO worker VALUES ('amina', ?, 0)", (sealed,)))
    screen.close()
    acknowledge(key=key.secret.hex())
    for _ in range(2):
        key = rekey.rotate(state, key, "file", lambda: "")
        acknowledge(key=key.secret.hex())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
