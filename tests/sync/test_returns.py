"""What the hub signed comes back to it from the devices once, as it was signed, and nothing else is taken for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from device_records import KEY, FakeClock, make_item
from hub_end import HubEnd, sign_review
from sqlalchemy import select
from stick_ends import Ends

from aidpost.errors import EnvelopeError
from aidpost.records import ExamReport, Referral, ReferralStatus, Review, ReviewDecision, TriageLevel, encode
from aidpost.sync import keys, outbox, proofs, returns
from aidpost.sync.bodies import Acknowledgement, Returned
from aidpost.sync.envelope import Envelope, Receipt, RecordClass
from aidpost.sync.hub import (
    alerts,
    audit,
    identity,
    operations,
    outgoing,
    patients,
    referrals,
    reviews,
    schema,
)
from aidpost.sync.hub.clocks import hub_time
from aidpost.sync.hub.database import Database, now_ms, unpack_ranges
from aidpost.sync.store import Item, Store


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    hub = HubEnd(tmp_path / "hub", 1)
    with Store.open(tmp_path / "device", KEY, clock=FakeClock(), name="unit-1") as store:
        hub.enroll(store)
        yield Ends(store, hub, tmp_path)


def lost_review(ends: Ends, report: ExamReport) -> Review:
    """A review that the device has, of a hub that was restored from before it."""
    kept = ends.keep()
    review = ends.sign(report)
    ends.carry()
    ends.restore(kept)
    return review


def given_back(ends: Ends, review: Review, **changes: object) -> Returned:
    """What a device makes of a review that it has."""
    ((*key, _, proof),) = ends.store.read(
        "SELECT epoch, cls, seq, body, proof FROM received WHERE exam = ? AND kind = 'Review'", (review.exam.bytes,)
    )
    made = Returned(
        id=uuid.uuid4(),
        epoch=key[0],
        cls=key[1],
        seq=key[2],
        kind="Review",
        body=encode(review),
        proof=proof,
        at=ends.store.now(),
    )
    return msgspec.structs.replace(made, **changes)


# -- the way back


def test_by_sticks_alone_a_restored_hub_gets_back_its_exams_and_what_it_signed_of_them(ends: Ends) -> None:
    first = ends.exam()
    kept = ends.keep()
    second = ends.exam()
    told = [ends.sign(first, "of the backup's exam"), ends.sign(second, "of a lost exam")]
    ends.carry()
    assert {one.id for one in ends.store.inbox.records(Review, None)} == {one.id for one in told}
    ends.restore(kept)
    assert ends.signed() == []
    for _ in range(3):
        ends.carry()
    assert sorted(ends.signed()) == sorted(one.id for one in told)
    assert [row[0] for row in ends.rows(select(schema.exams.c.state))] == ["reviewed", "reviewed"]
    bodies = ends.rows(select(schema.reviews.c.body))
    assert {bytes(row[0]) for row in bodies} == {encode(one) for one in told}, "as signed: reader, time and words"
    assert len(ends.audited("returned-review")) == 2
    waiting = [one for one in outbox.status(ends.store) if one.queued or one.dead]
    assert waiting == [], "nothing is left on the device, and nothing was refused"
    ends.carry()
    assert len(ends.audited("returned-review")) == 2, "asked for once"


def test_twice_restored_it_comes_back_twice(ends: Ends) -> None:
    report = ends.exam()
    kept = ends.keep()
    review = ends.sign(report)
    ends.carry()
    for _ in range(2):
        ends.restore(kept)
        for _ in range(3):
            ends.carry()
        assert ends.signed() == [review.id]


def test_a_recall_comes_back_open_and_one_that_was_answered_does_not_wake_anybody(ends: Ends) -> None:
    open_, answered = ends.exam(), ends.exam()
    kept = ends.keep()
    recalls = [ends.sign(one, "fibrillation", TriageLevel.URGENT) for one in (open_, answered)]
    ends.carry()
    database = Database(ends.hub.config.url)
    with database.write() as connection:
        [(alert,)] = connection.execute(select(schema.alerts.c.id).where(schema.alerts.c.about == recalls[1].id)).all()
        alerts.acknowledge(connection, database.epoch, alert, "okoro", "dr.okoro", "telephoned", now_ms())
    database.close()
    ends.carry()
    assert len(ends.store.acknowledgements()) == 1
    ends.restore(kept)
    for _ in range(3):
        ends.carry()
    table = schema.alerts
    rows = dict(ends.rows(select(table.c.about, table.c.acknowledged_by)))
    assert rows == {recalls[0].id: "", recalls[1].id: "dr.okoro"}


def test_the_answer_that_a_worker_gave_at_the_device_counts_for_the_recall_that_came_back(ends: Ends) -> None:
    report = ends.exam()
    kept = ends.keep()
    recall = ends.sign(report, "fibrillation", TriageLevel.URGENT)
    ends.carry()
    said = Acknowledgement(
        about=recall.id, exam=recall.exam, patient=recall.patient, by="R. Banda", at=ends.store.now(), text="went there"
    )
    ends.store.append(Item(RecordClass.REVIEW_ACK, said, recall.patient, recall.exam))
    ends.carry()
    ends.restore(kept)
    for _ in range(3):
        ends.carry()
    assert ends.rows(select(schema.alerts.c.about, schema.alerts.c.acknowledged_by)) == [(recall.id, "R. Banda")]


def test_an_urgent_finding_that_was_read_does_not_wake_anybody_again(ends: Ends) -> None:
    report = ends.exam(TriageLevel.URGENT)
    lost_review(ends, report)
    for _ in range(3):
        ends.carry()
    database = Database(ends.hub.config.url)
    with database.write() as connection:
        assert alerts.open_findings(connection, now_ms()) == 0
        due = connection.execute(select(schema.alerts.c.id).where(schema.alerts.c.next_ms.is_not(None))).all()
    database.close()
    assert due == []


def test_referrals_and_withdrawals_come_back(ends: Ends) -> None:
    report = ends.exam()
    about = {"patient": report.patient.id, "exam": report.exam.id}
    kept = ends.keep()
    referral = Referral(
        id=uuid.uuid4(), to="Kisumu", due="2026-12-01", reason="dr", status=ReferralStatus.DUE, at=hub_time(5), **about
    )
    told = Review(
        id=uuid.uuid4(),
        report=report.id,
        reviewer="dr.okoro",
        decision=ReviewDecision.CORRECTED,
        at=hub_time(now_ms()),
        text=f"{patients.WITHDRAWN} The sister sat down first.",
        **about,
    )
    database = Database(ends.hub.config.url)
    with database.write() as connection:
        referrals.add(connection, referral, "okoro")
        for cls, record in (("referral", referral), (reviews.CLASS, told)):
            outgoing.put(connection, database.epoch, "unit-1", cls, record, **about, now_ms=now_ms())
    database.close()
    ends.carry()
    ends.restore(kept)
    for _ in range(3):
        ends.carry()
    assert ends.rows(select(schema.referrals.c.id, schema.referrals.c.status)) == [(referral.id, "due")]
    [(reason, at_ms)] = ends.rows(select(schema.withdrawals.c.reason, schema.withdrawals.c.at_ms))
    assert (reason, at_ms) == ("The sister sat down first.", told.at.wall_ms)
    assert ends.signed() == [], "a word to the device is no review"


def test_who_was_erased_at_the_hub_is_erased_again(ends: Ends) -> None:
    report = ends.exam()
    ends.exam()
    kept = ends.keep()
    operations.erase_patient(ends.hub.config, report.patient.id)
    ends.carry()
    assert report.patient.id in ends.store.erased()
    ends.restore(kept)
    known = select(schema.exams.c.id).where(schema.exams.c.patient == report.patient.id)
    assert len(ends.rows(known)) == 1
    for _ in range(3):
        ends.carry()
    assert ends.rows(select(schema.tombstones.c.patient)) == [(report.patient.id,)]
    assert ends.audited("returned-erasure") == [("returned-erasure",)]
    assert ends.rows(known) == []


def test_a_review_that_comes_before_its_report_waits_for_it(ends: Ends) -> None:
    kept = ends.keep()
    report = ends.exam()
    review = ends.sign(report)
    ends.carry()
    ends.restore(kept)
    receipt = ends.send(given_back(ends, review), report)
    assert receipt.held
    assert ends.signed() == []
    ends.carry()
    ends.carry()
    assert ends.signed() == [review.id]


def test_a_review_that_a_later_one_has_overtaken_is_history_and_is_audited(ends: Ends) -> None:
    report = ends.exam()
    kept = ends.keep()
    lost = ends.sign(report, "fibrillation", TriageLevel.EMERGENCY)
    ends.carry()
    ends.restore(kept)
    later = ends.sign(report, "none, after all")
    assert later.at.wall_ms >= lost.at.wall_ms
    for _ in range(3):
        ends.carry()
    assert ends.signed() == [later.id]
    assert ends.rows(select(schema.alerts.c.id)) == [], "no recall by what no longer counts"
    assert ends.audited("returned-overtaken") == [("returned-overtaken",)]
    database = Database(ends.hub.config.url)
    with database.read() as connection:
        assert [one.id for one in reviews.of_report(connection, report.id)] == [lost.id, later.id]
        assert audit.verify(connection).broken_at is None
    database.close()


# -- what is not taken


def test_nothing_is_taken_but_what_this_hub_signed_for_that_device(ends: Ends) -> None:
    report = ends.exam()
    review = lost_review(ends, report)
    good = given_back(ends, review)
    other = Ed25519PrivateKey.generate()
    sent = Envelope(good.epoch, good.cls, good.seq, "Review", review.patient, review.exam, good.body)
    altered = encode(msgspec.structs.replace(review, text="no finding"))
    bad = {
        "forged": msgspec.structs.replace(good, proof=bytes(64)),
        "of another hub": msgspec.structs.replace(good, proof=other.sign(proofs._signed("unit-1", sent))),
        "for another device": msgspec.structs.replace(
            good, proof=proofs.prove(identity.signing_key(ends.hub.config.state), "unit-2", [sent])[0]
        ),
        "altered": msgspec.structs.replace(good, body=altered),
        "under another number": msgspec.structs.replace(good, seq=good.seq + 1),
        "of another class": msgspec.structs.replace(good, cls="config"),
        "unreadable": msgspec.structs.replace(good, body=b"\xc1"),
        "of a kind that is not signed": msgspec.structs.replace(good, kind="Delivery"),
    }
    for number, (what, one) in enumerate(bad.items()):
        receipt = ends.send(one, report, seq=900 + number)
        assert next(reject.code for reject in receipt.rejected) in ("foreign", "invalid"), what
        assert not receipt.held, what
    assert ends.signed() == []
    assert len(ends.audited("rejected")) == len(bad)
    another = msgspec.structs.replace(report, patient=msgspec.structs.replace(report.patient, id=uuid.uuid4()))
    assert ends.send(good, another, seq=950).rejected[0].code == "invalid", "under another patient's name"
    assert ends.send(good, report, seq=951).held
    assert ends.signed() == [review.id]


def test_the_same_review_under_another_number_counts_once(ends: Ends) -> None:
    report = ends.exam()
    review = lost_review(ends, report)
    good = given_back(ends, review)
    for seq in (900, 901):
        ends.send(good, report, seq=seq)
    assert ends.signed() == [review.id]
    assert len(ends.audited("returned-review")) == 1


def test_what_an_older_hub_sent_without_proof_is_not_given_back(ends: Ends) -> None:
    report = ends.exam()
    kept = ends.keep()
    sign_review(Database(ends.hub.config.url), report, ReviewDecision.CONFIRMED)
    ends.carry()
    ends.store.write(lambda db: db.execute("UPDATE received SET proof = NULL"))
    ends.restore(kept)
    for _ in range(3):
        ends.carry()
    assert ends.signed() == []
    assert ends.store.read("SELECT 1 FROM record WHERE kind = 'Returned'") == []


def test_a_new_hub_in_the_place_of_the_old_one_is_given_nothing(ends: Ends) -> None:
    report = ends.exam()
    ends.sign(report)
    ends.carry()
    wanted = Receipt(b"new-hub!", wanted=ends.store.inbox.held())
    other = Ed25519PrivateKey.generate().public_key()
    assert returns.give_back(ends.store, [wanted], other) == 0
    assert returns.give_back(ends.store, [wanted], keys.public_key(ends.hub_key)) == 1
    assert returns.give_back(ends.store, [wanted], keys.public_key(ends.hub_key)) == 0, "once"


# -- sticks and lives of the hub


def test_a_stick_from_before_the_restoration_is_not_believed_after_one_from_since(ends: Ends) -> None:
    ends.exam()
    kept = ends.keep()
    ends.exam()
    old = ends.carry(back=False)
    ends.restore(kept)
    ends.carry()
    with pytest.raises(EnvelopeError, match="another life of the hub"):
        ends.take(old)


def test_what_the_device_no_longer_has_is_said_on_a_stick_too(ends: Ends) -> None:
    ends.store.append(make_item(patient=uuid.uuid4()))
    [(patient,)] = ends.store.read("SELECT patient FROM record")
    ends.store.erase_patient(uuid.UUID(bytes=patient))  # before anything of them was carried
    ends.exam()
    table = schema.streams
    for _ in range(2):
        ends.carry()
    [row] = ends.rows(select(table.c.held, table.c.dropped).where(table.c.cls == "report"))
    assert [unpack_ranges(one) for one in row] == [((1, 3),), ((1, 2),)]  # type: ignore[arg-type]
    assert len(ends.audited("dropped")) == 1
    ends.carry()
    assert len(ends.audited("dropped")) == 1, "said once"


def test_a_stick_tells_the_hub_no_time(ends: Ends) -> None:
    ends.exam()
    assert ends.rows(select(schema.anchors.c.device)) == []


def test_returns_of_an_erased_patient_go_with_them(ends: Ends) -> None:
    report = ends.exam()
    lost_review(ends, report)
    ends.carry()
    assert ends.store.read("SELECT count(*) FROM record WHERE kind = 'Returned'") == [(1,)]
    ends.store.erase_patient(report.patient.id)
    assert ends.store.read("SELECT count(*) FROM record WHERE kind = 'Returned'") == [(0,)]
