"""Ingest: committed once, receipted after the commit, whatever the order."""

from __future__ import annotations

import hashlib
import os
import random
import uuid

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Table, func, select

from aidpost.records import BlobRef, ExamReport, Origin, Referral, ReferralStatus, encode
from aidpost.sync.bodies import BlobManifest, Erasure
from aidpost.sync.envelope import (
    CHUNK,
    Chunk,
    Chunks,
    Dropped,
    Envelope,
    Held,
    Hello,
    Receipt,
    Records,
    pack_message,
    unpack_message,
)
from aidpost.sync.hub import identity, operations, outgoing, schema
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms

from .conftest import FakeDevice, Hub, at, held_of, make_report, make_vital

pytestmark = pytest.mark.both_databases


def count(hub: Hub, table: Table) -> int:
    with hub.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def audited(hub: Hub) -> list[str]:
    with hub.database.read() as connection:
        return list(connection.execute(select(schema.audit.c.action).order_by(schema.audit.c.id)).scalars())


def test_report_is_committed_listed_and_receipted(hub: Hub, device: FakeDevice) -> None:
    report = make_report()
    receipts = hub.take(device, device.message(device.envelope(report)))
    assert held_of(receipts, "report") == {1}
    with hub.database.read() as connection:
        exam = connection.execute(select(schema.exams)).one()
        kept = connection.execute(select(schema.envelopes.c.body)).scalar_one()
    assert (exam.id, exam.report, exam.patient_name) == (report.exam.id, report.id, "Amina Yusuf")
    assert (exam.triage, exam.origin, exam.state) == (1, "live", "open")
    assert kept == encode(report)


def test_same_record_again_is_receipted_again_and_counted_once(hub: Hub, device: FakeDevice) -> None:
    message = device.message(device.envelope(make_report()))
    first = hub.take(device, message, message)
    again = hub.take(device, message)
    assert held_of(first, "report") == held_of(again, "report") == {1}
    assert count(hub, schema.envelopes) == count(hub, schema.exams) == 1


def test_same_key_with_another_hash_is_a_conflict(hub: Hub, device: FakeDevice) -> None:
    first, second = make_report(), make_report()
    hub.take(device, device.message(device.envelope(first, seq=1)))
    for _ in range(2):
        (receipt,) = hub.take(device, device.message(device.envelope(second, seq=1)))
        assert [(r.seq, r.code) for r in receipt.rejected] == [(1, "conflict")]
        assert not receipt.held
    assert count(hub, schema.conflicts) == 1
    assert audited(hub).count("conflict") == 1
    with hub.database.read() as connection:
        assert connection.execute(select(schema.exams.c.id)).scalar_one() == first.exam.id


def test_forged_message_is_refused_and_audited_once_a_minute(hub: Hub, device: FakeDevice) -> None:
    forged = pack_message(
        Records((device.envelope(make_report()),)), sender=device.name, key=Ed25519PrivateKey.generate()
    )
    assert hub.take(device, forged, forged) == []
    assert count(hub, schema.envelopes) == 0
    assert audited(hub).count("refused-message") == 1


def test_device_that_is_not_enrolled_is_refused(hub: Hub) -> None:
    stranger = FakeDevice("stranger")
    assert hub.take(stranger, stranger.message(stranger.envelope(make_report()))) == []
    assert audited(hub) == ["refused-message"]


def test_message_on_another_devices_topic_is_refused(hub: Hub, config: HubConfig, device: FakeDevice) -> None:
    other = FakeDevice("unit-2")
    operations.enroll(config, other.name, other.public_key)
    assert hub.take(other, device.message(device.envelope(make_report()))) == []


def test_revoked_device_is_refused(hub: Hub, config: HubConfig, device: FakeDevice) -> None:
    operations.revoke(config, device.name)
    assert hub.take(device, device.message(device.envelope(make_report()))) == []


@pytest.mark.parametrize("body", [b"", b"\xff\x00garbage", msgspec.msgpack.encode({"id": 7})])
def test_record_that_cannot_be_parsed_is_rejected_and_the_rest_flows(hub: Hub, device: FakeDevice, body: bytes) -> None:
    good, bad, later = (
        device.envelope(make_report()),
        device.envelope(body, kind="ExamReport"),
        device.envelope(make_report()),
    )
    receipts = hub.take(device, device.message(good, bad, later))
    assert held_of(receipts, "report") == {1, 3}
    assert [(r.seq, r.code) for receipt in receipts for r in receipt.rejected] == [(2, "invalid")]


def test_unknown_class_and_kind_are_stored(hub: Hub, device: FakeDevice) -> None:
    receipts = hub.take(device, device.message(device.envelope(b"\x01\x02", "gait-video", kind="GaitVideo")))
    assert held_of(receipts, "gait-video") == {1}
    with hub.database.read() as connection:
        assert connection.execute(select(schema.envelopes.c.body)).scalar_one() == b"\x01\x02"


def test_production_hub_refuses_simulated_data(hub: Hub, device: FakeDevice) -> None:
    simulated = make_report(vitals=(make_vital(origin=Origin.SIMULATED),))
    (receipt,) = hub.take(device, device.message(device.envelope(simulated), device.envelope(make_report())))
    assert [(r.seq, r.code) for r in receipt.rejected] == [(1, "origin")]
    assert held_of([receipt], "report") == {2}


def test_practice_device_may_send_simulated_data(hub: Hub, config: HubConfig) -> None:
    practice = FakeDevice("practice")
    operations.enroll(config, practice.name, practice.public_key, accept_simulated=True)
    receipts = hub.take(practice, practice.message(practice.envelope(make_report(origin=Origin.SIMULATED))))
    assert held_of(receipts, "report") == {1}


def test_dead_letter_sent_again_is_taken_once_the_policy_allows(
    hub: Hub, config: HubConfig, device: FakeDevice
) -> None:
    message = device.message(device.envelope(make_report(origin=Origin.SIMULATED)))
    (receipt,) = hub.take(device, message)
    assert receipt.rejected
    operations.enroll(config, device.name, device.public_key, accept_simulated=True)
    receipts = hub.take(device, message)
    assert held_of(receipts, "report") == {1}
    assert not any(receipt.rejected for receipt in receipts)


def test_envelope_that_names_another_patient_is_rejected(hub: Hub, device: FakeDevice) -> None:
    envelope = device.envelope(make_report())
    wrong = msgspec.structs.replace(envelope, patient=uuid.uuid4())
    (receipt,) = hub.take(device, device.message(wrong))
    assert receipt.rejected[0].code == "invalid"


def test_exam_of_another_device_cannot_be_replaced(hub: Hub, config: HubConfig, device: FakeDevice) -> None:
    thief = FakeDevice("unit-2")
    operations.enroll(config, thief.name, thief.public_key)
    report = make_report()
    hub.take(device, device.message(device.envelope(report)))
    stolen = msgspec.structs.replace(report, id=uuid.uuid4(), supersedes=report.id)
    (receipt,) = hub.take(thief, thief.message(thief.envelope(stolen)))
    assert receipt.rejected[0].code == "foreign"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_later_report_of_an_exam_counts_in_any_order(hub: Hub, device: FakeDevice, order: tuple[int, ...]) -> None:
    first = make_report()
    second = msgspec.structs.replace(first, id=uuid.uuid4(), supersedes=first.id)
    third = msgspec.structs.replace(first, id=uuid.uuid4(), supersedes=second.id)
    messages = [device.message(device.envelope(report)) for report in (first, second, third)]
    for index in order:
        hub.take(device, messages[index])
    with hub.database.read() as connection:
        assert connection.execute(select(schema.exams.c.report)).scalar_one() == third.id


def test_vitals_of_an_exam_are_listed_whether_in_the_report_or_by_themselves(hub: Hub, device: FakeDevice) -> None:
    inside, alone = make_vital(), make_vital()
    report = make_report(vitals=(inside,))
    single = device.envelope(alone, "vitals", patient=report.patient.id, exam=report.exam.id)
    hub.take(device, device.message(single), device.message(device.envelope(report)))
    with hub.database.read() as connection:
        listed = set(connection.execute(select(schema.vitals.c.id)).scalars())
    assert listed == {inside.id, alone.id}


# hello, full receipts, dropped


def hello(device: FakeDevice, **changes: object) -> Hello:
    fields = {"nonce": os.urandom(16), "at": at(), "epoch": device.epoch, "last": device.last}
    return Hello(**(fields | changes))  # type: ignore[arg-type]


def test_hello_is_answered_with_all_that_is_held_and_what_is_wanted(hub: Hub, device: FakeDevice) -> None:
    envelopes = [device.envelope(make_vital(), "vitals") for _ in range(6)]
    hub.take(device, device.message(*envelopes[1:3]), device.message(envelopes[4]))
    greeting = hello(device)
    (receipt,) = hub.take(device, device.sign(greeting))
    assert receipt.answers == greeting.nonce
    assert held_of([receipt], "vitals") == {2, 3, 5}
    assert receipt.wanted == (Held(device.epoch, "vitals", ((1, 2), (4, 5), (6, 7))),)


def test_hello_of_a_rebuilt_store_hears_of_both_epochs(hub: Hub, device: FakeDevice) -> None:
    hub.take(device, device.message(device.envelope(make_report())))
    before, device.epoch = device.epoch, os.urandom(8)
    (receipt,) = hub.take(device, device.sign(hello(device, last={"report": 0})))
    assert [held.epoch for held in receipt.held] == [before]
    assert not receipt.wanted


def test_dropped_sequences_are_receipted_and_no_longer_wanted(hub: Hub, device: FakeDevice) -> None:
    envelopes = [device.envelope(make_vital(), "vitals") for _ in range(4)]
    hub.take(device, device.message(envelopes[0]))
    gone = Held(device.epoch, "vitals", ((1, 4),))
    (receipt,) = hub.take(device, device.sign(Dropped((gone,), "patient erased")))
    assert held_of([receipt], "vitals") == {1, 2, 3}
    (full,) = hub.take(device, device.sign(hello(device)))
    assert full.wanted == (Held(device.epoch, "vitals", ((4, 5),)),)
    hub.take(device, device.message(envelopes[1]))  # from a stick, after all
    assert count(hub, schema.envelopes) == 2


def test_full_receipt_with_thousands_of_gaps_comes_in_pages_with_one_nonce(hub: Hub, device: FakeDevice) -> None:
    odd = tuple((n, n + 1) for n in range(1, 18_000, 2))
    hub.take(device, device.sign(Dropped((Held(device.epoch, "vitals", odd),), "test")))
    receipts = hub.take(device, device.sign(hello(device, last={"vitals": 18_000})))
    assert len(receipts) == 2
    assert len({receipt.answers for receipt in receipts}) == 1
    assert held_of(receipts, "vitals") == {start for start, _ in odd}
    assert not receipts[0].wanted
    assert receipts[1].wanted


# clocks


def test_time_of_an_unset_clock_is_corrected_by_the_anchor_of_its_boot(hub: Hub, device: FakeDevice) -> None:
    unset = at(5_000, synced=False, monotonic_ms=100_000, boot=4)
    report = make_report()
    report = msgspec.structs.replace(report, exam=msgspec.structs.replace(report.exam, started=unset))
    hub.take(device, device.message(device.envelope(report)), received_ms=1_771_000_000_000)
    with hub.database.read() as connection:
        row = connection.execute(select(schema.exams)).one()
    assert (row.time_basis, row.started_ms) == ("unconfirmed", 1_771_000_000_000), "no later than it was received"
    now = 1_770_000_000_000
    for monotonic, received in ((400_000, now + 60_000), (400_000, now), (500_000, now + 900_000)):
        clock = at(6_000, synced=False, monotonic_ms=monotonic, boot=4)
        hub.take(device, device.sign(hello(device, at=clock)), received_ms=received)
    with hub.database.read() as connection:
        row = connection.execute(select(schema.exams)).one()
    assert (row.time_basis, row.started_ms) == ("anchored", now - 300_000)
    assert row.device_wall_ms == 5_000


# erasure


def test_erased_patient_does_not_come_back(hub: Hub, device: FakeDevice) -> None:
    report = make_report(vitals=(make_vital(),))
    message = device.message(device.envelope(report))
    hub.take(device, message)
    tombstone = device.envelope(Erasure(patient=report.patient.id, at=at()), "alert", patient=report.patient.id)
    hub.take(device, device.message(tombstone))
    for table in (schema.exams, schema.reports, schema.vitals):
        assert count(hub, table) == 0
    with hub.database.read() as connection:
        bodies = connection.execute(select(schema.envelopes.c.body).where(schema.envelopes.c.kind == "ExamReport"))
        assert bodies.scalar_one() == b""
    assert held_of(hub.take(device, message), "report") == {1}, "the same record is receipted again"
    second = msgspec.structs.replace(report, id=uuid.uuid4())
    (receipt,) = hub.take(device, device.message(device.envelope(second)))
    assert receipt.rejected[0].code == "erased"
    assert count(hub, schema.exams) == 0


# blobs


def chunks_of(data: bytes) -> list[Chunk]:
    digest = hashlib.sha256(data).digest()
    return [Chunk(digest, len(data), i, data[i : i + CHUNK]) for i in range(0, len(data), CHUNK)]


def manifest(device: FakeDevice, data: bytes, **changes: object) -> Envelope:
    blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data), media_type="image/jpeg")
    record = BlobManifest(blob=blob, origin=changes.pop("origin", Origin.LIVE), at=at())  # type: ignore[arg-type]
    return device.envelope(record, "image", **changes)  # type: ignore[arg-type]


def test_erasure_never_frees_a_number_that_went_down(hub: Hub, device: FakeDevice) -> None:
    erased, other = make_report(), make_report()

    def put(report: ExamReport) -> None:
        referral = Referral(
            id=uuid.uuid4(),
            exam=report.exam.id,
            patient=report.patient.id,
            to="eye clinic",
            due="2026-01-01",
            reason="raised pressure",
            status=ReferralStatus.DUE,
            at=at(),
        )
        with hub.database.write() as connection:
            epoch = hub.database.epoch
            ids = {"patient": report.patient.id, "exam": report.exam.id, "now_ms": now_ms()}
            outgoing.put(connection, epoch, device.name, "referral", referral, **ids)

    put(erased)
    erasure = Erasure(patient=erased.patient.id, at=at())
    hub.take(device, device.message(device.envelope(erasure, patient=erased.patient.id)))
    put(other)
    with hub.database.write() as connection:
        (waiting,) = outgoing.take_due(connection, now_ms(), device.name)
        bodies = connection.execute(select(schema.outgoing.c.seq, schema.outgoing.c.body)).all()
    assert [(one.seq, one.patient) for one in waiting.envelopes] == [(2, other.patient.id)]
    assert [seq for seq, body in bodies if not body] == [1]


def test_blob_is_assembled_from_chunks_in_any_order(hub: Hub, device: FakeDevice) -> None:
    data = random.Random(1).randbytes(5 * CHUNK + 77)
    pieces = chunks_of(data)
    random.Random(2).shuffle(pieces)
    held = ()
    for number, piece in enumerate(pieces):
        (receipt,) = hub.take(device, device.sign(Chunks((piece,))))
        (held,) = (receipt.blobs,)
        assert held[0].complete == (number == len(pieces) - 1)
    assert held[0].ranges == ((0, len(data)),)
    assert hub.files.path(hashlib.sha256(data).hexdigest()).read_bytes() == data
    (receipt,) = hub.take(device, device.sign(Chunks((pieces[0],))))
    assert receipt.blobs[0].complete


def test_manifest_is_answered_with_the_ranges_held_after_a_restart(
    hub: Hub, config: HubConfig, device: FakeDevice
) -> None:
    data = random.Random(3).randbytes(4 * CHUNK)
    hub.take(device, device.sign(Chunks(tuple(chunks_of(data)[1:3]))))
    hub.close()
    later = Hub(config)
    (receipt,) = later.take(device, device.message(manifest(device, data)))
    assert receipt.blobs[0].ranges == ((CHUNK, 3 * CHUNK),)
    (full,) = later.take(device, device.sign(hello(device)))
    assert full.blobs == receipt.blobs
    (receipt,) = later.take(device, device.sign(Chunks((chunks_of(data)[0], chunks_of(data)[3]))))
    assert receipt.blobs[0].complete
    (full,) = later.take(device, device.sign(hello(device)))
    assert full.blobs == ()
    later.close()


def test_blob_with_a_wrong_hash_starts_again(hub: Hub, device: FakeDevice) -> None:
    data = random.Random(4).randbytes(2 * CHUNK)
    good = chunks_of(data)
    bad = msgspec.structs.replace(good[1], data=bytes(CHUNK))
    (receipt,) = hub.take(device, device.sign(Chunks((good[0], bad))))
    assert (receipt.blobs[0].ranges, receipt.blobs[0].complete, receipt.blobs[0].refused) == ((), False, "")
    (receipt,) = hub.take(device, device.sign(Chunks(tuple(good))))
    assert receipt.blobs[0].complete


def test_chunks_are_lost_with_their_file_and_asked_for_again(hub: Hub, device: FakeDevice) -> None:
    data = random.Random(5).randbytes(3 * CHUNK)
    sha256 = hashlib.sha256(data).hexdigest()
    hub.take(device, device.sign(Chunks(tuple(chunks_of(data)[:2]))))
    hub.files.discard(device.name, sha256)
    (receipt,) = hub.take(device, device.sign(Chunks((chunks_of(data)[2],))))
    assert receipt.blobs[0].ranges == ((2 * CHUNK, 3 * CHUNK),)


def test_kill_between_rename_and_commit_leaves_a_whole_blob(hub: Hub, device: FakeDevice) -> None:
    data = random.Random(6).randbytes(2 * CHUNK)
    sha256 = hashlib.sha256(data).hexdigest()
    hub.take(device, device.sign(Chunks((chunks_of(data)[0],))))
    hub.files.write_chunks(device.name, sha256, chunks_of(data)[1:])
    assert hub.files.finish(device.name, sha256)
    (receipt,) = hub.take(device, device.message(manifest(device, data)))
    assert receipt.blobs[0].complete


def test_simulated_photograph_is_refused_and_its_chunks_with_it(hub: Hub, device: FakeDevice) -> None:
    data = random.Random(7).randbytes(3 * CHUNK)
    hub.take(device, device.sign(Chunks((chunks_of(data)[0],))))
    (receipt,) = hub.take(device, device.message(manifest(device, data, origin=Origin.SIMULATED)))
    assert receipt.rejected[0].code == "origin"
    assert receipt.blobs[0].refused
    (receipt,) = hub.take(device, device.sign(Chunks((chunks_of(data)[1],))))
    assert receipt.blobs[0].refused
    assert not hub.files.has_partial(device.name, hashlib.sha256(data).hexdigest())


def test_photograph_that_is_too_large_is_rejected_and_so_are_its_chunks(hub: Hub, device: FakeDevice) -> None:
    record = BlobManifest(
        blob=BlobRef(sha256="ab" * 32, size=1 << 40, media_type="image/jpeg"), origin=Origin.LIVE, at=at()
    )
    (receipt,) = hub.take(device, device.message(device.envelope(record, "image")))
    assert [r.code for r in receipt.rejected] == ["too-large"]
    size = hub.config.max_blob_bytes + CHUNK
    (receipt,) = hub.take(device, device.sign(Chunks((Chunk(bytes(32), size, 0, bytes(CHUNK)),))))
    assert "larger than" in receipt.blobs[0].refused


def test_messages_from_a_stick_count_once_and_bring_receipts(hub: Hub, config: HubConfig, device: FakeDevice) -> None:
    messages = [device.message(device.envelope(make_report())) for _ in range(3)]
    hub.take(device, messages[0])
    public = identity.signing_key(config.state).public_key()
    carried = operations.take_messages(config, messages)
    receipts = [unpack_message(data, lambda _name: public, recipient=device.name).content for data in carried]
    assert held_of([r for r in receipts if isinstance(r, Receipt)], "report") == {1, 2, 3}
    assert count(hub, schema.envelopes) == 3


def test_erasure_takes_the_photograph_unless_another_patients_record_names_it(hub: Hub, device: FakeDevice) -> None:
    data, shared = random.Random(8).randbytes(CHUNK), random.Random(9).randbytes(CHUNK)
    gone, stays = uuid.uuid4(), uuid.uuid4()
    hub.take(
        device,
        device.message(
            manifest(device, data, patient=gone),
            manifest(device, shared, patient=gone),
            manifest(device, shared, patient=stays),
        ),
        device.sign(Chunks((*chunks_of(data), *chunks_of(shared)))),
    )
    hub.take(device, device.message(device.envelope(Erasure(patient=gone, at=at()), "alert", patient=gone)))
    assert not hub.files.is_complete(hashlib.sha256(data).hexdigest())
    assert hub.files.is_complete(hashlib.sha256(shared).hexdigest())
