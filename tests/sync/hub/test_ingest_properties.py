"""Whatever the order, the batches and the repeats: the hub ends in the same state, and tells exactly what it has."""

from __future__ import annotations

import atexit
import functools
import hashlib
import itertools
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from aidpost.records import BlobRef, Origin
from aidpost.sync.bodies import BlobManifest
from aidpost.sync.envelope import CHUNK, Chunk, Chunks, Envelope, Records
from aidpost.sync.hub import operations, schema
from aidpost.sync.hub.config import HubConfig

from .conftest import FakeDevice, Hub, at, held_of, make_report, make_vital

PHOTO = bytes(range(256)) * 200  # three chunks and a bit


class Story:
    """Everything that one device will ever say: reports and their corrections, vitals, a photograph, a bad record."""

    def __init__(self) -> None:
        self.device = FakeDevice()
        device, first = self.device, make_report(vitals=(make_vital(),))
        second = msgspec.structs.replace(first, id=uuid.uuid4(), supersedes=first.id)
        rival = msgspec.structs.replace(first, id=uuid.uuid4(), supersedes=first.id)
        other = make_report()
        blob = BlobRef(sha256=hashlib.sha256(PHOTO).hexdigest(), size=len(PHOTO), media_type="image/jpeg")
        manifest = BlobManifest(blob=blob, origin=Origin.LIVE, at=at())
        about = {"patient": first.patient.id, "exam": first.exam.id}
        self.envelopes: list[Envelope] = [
            *(device.envelope(report) for report in (first, second, rival, other)),
            *(device.envelope(make_vital(), "vitals", **about) for _ in range(3)),
            device.envelope(manifest, "image", **about),
            device.envelope(b"broken", "report", kind="ExamReport"),
            device.envelope(make_report(origin=Origin.SIMULATED)),
            device.envelope(b"\x00", "unheard-of", kind="Unheard"),
        ]
        digest = hashlib.sha256(PHOTO).digest()
        self.chunks = [Chunk(digest, len(PHOTO), i, PHOTO[i : i + CHUNK]) for i in range(0, len(PHOTO), CHUNK)]
        self.messages = [device.message(envelope) for envelope in self.envelopes]
        self.messages += [device.sign(Chunks((chunk,))) for chunk in self.chunks]
        self.messages += [device.sign(Records(tuple(e for e in self.envelopes if e.cls == "vitals")))]


STORY = Story()


def state_of(hub: Hub) -> dict[str, Any]:
    columns = {
        schema.envelopes: ("seq", "hash", "kind", "origin", "body"),
        schema.exams: ("id", "report", "triage", "patient_name", "origin", "state"),
        schema.reports: ("id", "exam", "supersedes"),
        schema.vitals: ("id", "exam", "kind", "value"),
        schema.manifests: ("sha256", "waiting"),
        schema.blobs: ("sha256", "size"),
        schema.partials: ("sha256",),
        schema.rejects: ("seq", "code"),
        schema.streams: ("cls", "held", "rejected"),
        schema.conflicts: ("seq",),
    }
    with hub.database.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(*(table.c[name] for name in names)))))
            for table, names in columns.items()
        }


@functools.cache
def fresh_hub() -> Path:
    """A hub that knows the device and nothing else, made once and copied for each example."""
    config = HubConfig(state_dir=tempfile.mkdtemp(), name="hub-1", broker_host="")
    atexit.register(shutil.rmtree, config.state, ignore_errors=True)
    operations.enroll(config, STORY.device.name, STORY.device.public_key)
    return config.state


def run(batches: list[list[bytes]]) -> tuple[dict[str, Any], dict[str, set[int]]]:
    with tempfile.TemporaryDirectory() as folder:
        config = HubConfig(state_dir=str(Path(folder) / "hub"), name="hub-1", broker_host="")
        shutil.copytree(fresh_hub(), config.state)
        hub = Hub(config)
        told: dict[str, set[int]] = {}
        for batch in batches:
            receipts = hub.take(STORY.device, *batch)
            for cls in ("report", "vitals", "image", "unheard-of"):
                told.setdefault(cls, set()).update(held_of(receipts, cls))
                with hub.database.read() as connection:
                    table = schema.envelopes
                    query = select(table.c.seq).join(schema.streams, schema.streams.c.id == table.c.stream)
                    committed = set(connection.execute(query.where(schema.streams.c.cls == cls)).scalars())
                assert told[cls] == committed, "receipts name exactly what is committed"
        state = state_of(hub)
        hub.close()
        return state, told


@pytest.fixture(scope="module")
def in_order() -> tuple[dict[str, Any], dict[str, set[int]]]:
    return run([STORY.messages])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_order_repeats_and_batches_do_not_matter(
    in_order: tuple[dict[str, Any], dict[str, set[int]]], data: st.DataObject
) -> None:
    indices = list(range(len(STORY.messages)))
    order = data.draw(st.permutations(indices + data.draw(st.lists(st.sampled_from(indices), max_size=12))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1), max_size=5)))
    edges = [0, *cuts, len(order)]
    batches = [[STORY.messages[i] for i in order[a:b]] for a, b in itertools.pairwise(edges)]
    assert run(batches) == in_order


def test_story_has_what_it_tells(in_order: tuple[dict[str, Any], dict[str, set[int]]]) -> None:
    state, told = in_order
    assert len(state["exams"]) == 2
    assert len(state["vitals"]) == 4
    assert len(state["rejects"]) == 2
    assert state["partials"] == []
    assert told["report"] == {1, 2, 3, 4}
