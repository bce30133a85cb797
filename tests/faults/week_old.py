"""The hub is lost and comes back from a backup that is a week old: what the devices bring back, and what nobody has.

    python tests/faults/week_old.py [--times 3] [--seed 1]

A week passes day by day by the device's clock: exams with photographs are accepted and receipted, reviews are signed at
the hub and go down, a patient is erased. Then the hub's folder is gone and the backup of the first day restored. In
the second line the device's disk was full on the last day, and it let the oldest of what was receipted go.

`old` is what the backup has, `week` what was accepted since. `lost` are records and photographs that are neither at the
hub nor gone by the policy of a full disk (`let go`); of those the hub must know that they will not come. `back` are
records of the erased patient at the hub. `reviews` are those that the device has, each once, a new one after the
restore among them, and `signed` those by which exams stand signed at the hub: where the device's disk was full, some
reviews are of exams that it let go.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import storm
from device_records import KEY, make_item
from hub_end import sign_review
from sqlalchemy import select

from aidpost.records import ExamReport, Review, ReviewDecision, decode
from aidpost.sync import publisher, ranges
from aidpost.sync._space import Budget
from aidpost.sync.envelope import RecordClass
from aidpost.sync.hub import backup, readings, schema
from aidpost.sync.hub._streams import stream_ranges
from aidpost.sync.hub.database import Database
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

DAY_MS = 86_400_000
DAYS = 7
EXAMS_A_DAY = 8
WAIT_S = 120.0


class Week(storm.Scene):
    """A device and a hub over a week; `told` is what the device was told is kept, by the record's id."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__(folder, chance)
        self.patients: dict[str, uuid.UUID] = {}
        self.reviewed: list[uuid.UUID] = []

    def accept(self, store: Store, chance: random.Random, photographs: float = 0.3) -> None:
        """An exam, every third with a photograph."""
        photos = [chance.randbytes(20_000)] if chance.random() < photographs else []
        item = make_item(RecordClass.REPORT, *photos)
        store.append(item)
        assert isinstance(item.record, ExamReport)
        assert item.patient is not None
        self.patients[str(item.record.id)] = item.patient
        said = {"id": str(item.record.id), "blob": item.blobs[0].ref.sha256 if photos else None}
        with self.acks.open("a") as file:
            file.write(json.dumps(said) + "\n")

    def day(self, number: int, *, exams: int = EXAMS_A_DAY, erase: str = "") -> None:
        """A day at the device; in the evening all is at the hub, and a clinician has signed one."""
        with self.store(off_ms=number * DAY_MS) as store:
            for _ in range(exams):
                self.accept(store, self.chance)
            if erase:
                store.erase_patient(self.patients[erase])
            self.evening(store)

    def evening(self, store: Store) -> None:
        """Everything up, a review down."""
        with Publisher(store, self.link) as sender:
            if not sender.wait_until_empty(WAIT_S):
                raise RuntimeError(f"not everything is at the hub: {sender.last_error}")
            database = Database(self.end.config.url)
            [report] = store.reports(1)
            sign_review(database, report, ReviewDecision.CONFIRMED, f"review {len(self.reviewed)}")
            database.close()
            self.reviewed.append(report.patient.id)
            wanted = sum(patient not in store.erased() for patient in self.reviewed)
            deadline = time.monotonic() + WAIT_S
            while len(store.inbox.records(Review, None)) < wanted:
                if time.monotonic() > deadline:
                    raise RuntimeError("the review does not come down")
                time.sleep(0.05)

    def fill_disk(self) -> None:
        """The device's disk was full: photographs that the hub has go first, then the longest settled records."""
        with self.store(off_ms=DAYS * DAY_MS) as store:
            ((blobs,),) = store.read("SELECT coalesce(sum(size), 0) FROM blob")
            budget = Budget(bytes=store.space.used() - blobs - 12_000, reserve=0)
        clock = storm.Jumping(DAYS * DAY_MS, "full")
        with Store.open(self.folder / "device", KEY, clock=clock, budget=budget) as store:
            self.accept(store, self.chance, photographs=0)

    def restore(self, kept: bytes) -> None:
        """Nothing of the hub is left but its backup."""
        shutil.rmtree(self.folder / "hub")
        backup.restore(self.end.config, io.BytesIO(kept))

    def at_device(self) -> set[str]:
        """Records that the device still has, by id."""
        with self.store(off_ms=DAYS * DAY_MS) as store:
            rows = store.read("SELECT id FROM record WHERE kind = 'ExamReport'")
        return {str(uuid.UUID(bytes=row[0])) for row in rows}

    def at_hub(self) -> list[str]:
        """Records that the hub has, by id; and that of each class it has, or knows not to come, all up to the last."""
        database = Database(self.end.config.url)
        with database.read() as connection:
            query = select(schema.envelopes.c.body).where(schema.envelopes.c.kind == "ExamReport")
            # of an erased patient's record nothing but its number is left
            bodies = [bytes(row.body) for row in connection.execute(query) if row.body]
            found = [str(decode(ExamReport, body).id) for body in bodies]
            for row in connection.execute(select(schema.streams)):
                held = stream_ranges(row)[0]
                if ranges.missing(held, 1, held[-1][1]):
                    raise RuntimeError(f"the hub waits for {ranges.missing(held, 1, held[-1][1])} of {row.cls}")
        database.close()
        return found

    def signed(self, wanted: set[uuid.UUID]) -> list[uuid.UUID]:
        """The reviews by which parts of exams stand signed at the hub, once it has those; all after a while."""
        database = Database(self.end.config.url)
        deadline = time.monotonic() + WAIT_S
        table = schema.readings
        query = select(table.c.review).where(table.c.state.in_(readings.DONE))
        while True:
            with database.read() as connection:
                found = list(connection.execute(query).scalars())
            if wanted <= set(found) or time.monotonic() > deadline:
                database.close()
                return found
            time.sleep(0.1)


def week(scene: Week, *, full: bool) -> tuple[int, ...]:
    """One line of the table."""
    scene.start_broker()
    scene.start_hub()
    scene.day(0)
    old = list(scene.patients)
    scene.kill_hub()
    kept = io.BytesIO()
    backup.back_up(scene.end.config, kept)
    scene.start_hub()
    erased = old[0]
    for number in range(1, DAYS + 1):
        scene.day(number, erase=erased if number == 4 else "")
    scene.kill_hub()
    if full:
        scene.fill_disk()
    left = scene.at_device()
    let_go = {one for one in scene.patients if one not in left and one not in old}
    scene.restore(kept.getvalue())
    scene.start_hub()
    with scene.store(off_ms=DAYS * DAY_MS) as store:
        # read today, so that no review of the lost week is overtaken by this one
        scene.accept(store, scene.chance, photographs=0)
        scene.evening(store)
        reviews = store.inbox.records(Review, None)
        here = {review.id for review in reviews if str(review.report) in scene.at_hub()}
        with Publisher(store, scene.link) as sender:
            signed = scene.signed(here)
            if not sender.wait_until_empty(WAIT_S):
                raise RuntimeError(f"not everything is at the hub: {sender.last_error}")
    found = scene.at_hub()
    photos = [json.loads(line) for line in scene.acks.read_text().splitlines()]
    wanted = set(scene.patients) - let_go - {erased}
    lost = len(wanted - set(found))
    lost += sum(not has_blob(scene, one["blob"]) for one in photos if one["id"] in wanted and one["blob"] and not full)
    lost += len(here - set(signed))
    doubled = len(found) - len(set(found)) + len(signed) - len(set(signed))
    doubled += len(reviews) - len({review.text for review in reviews})
    since = len(scene.patients) - len(old)
    counts = (len(old), since, len(found), len(let_go), len(reviews), len(signed))
    return *counts, lost, doubled, found.count(erased)


def has_blob(scene: Week, sha256: str) -> bool:
    """Whether the hub has the whole photograph."""
    try:
        scene.end.blob(sha256)
    except (OSError, AssertionError):
        return False
    return True


def main() -> int:
    """Print the table; 1 where anything is lost, doubled or back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    publisher._RESEND_S, publisher._HELLO_AGAIN_S = (1.0, 2.0, 4.0), (0.5, 1.0, 2.0)
    publisher._RECONNECT_S = (0.1, 0.2, 0.5)
    print(f"{'hub restored, a week old':28} {'old':>5} {'week':>5} {'at the hub':>11} {'let go':>7}", end="")
    print(f" {'reviews':>8} {'signed':>7} {'lost':>5} {'doubled':>8} {'back':>5}", flush=True)
    wrong = 0
    for title, full in (("all kept", False), ("device's disk was full", True)):
        total = [0] * 9
        for number in range(arguments.times):
            with tempfile.TemporaryDirectory() as name:
                scene = Week(Path(name) / "scene", random.Random(arguments.seed * 100 + number))
                try:
                    row = week(scene, full=full)
                finally:
                    scene.stop()
            total = [a + b for a, b in zip(total, row, strict=True)]
        old, since, found, let_go, reviews, signed, lost, doubled, back = total
        print(f"{title:28} {old:5} {since:5} {found:11} {let_go:7} {reviews:8} {signed:7}", end="")
        print(f" {lost:5} {doubled:8} {back:5}", flush=True)
        wrong += lost + doubled + back
    print("nothing lost, nothing doubled, nobody back" if not wrong else "BROKEN", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
