"""The outbox on a USB stick and the receipts back: each record once, whatever else happens to stick, hub or network."""

from __future__ import annotations

import random
import stat
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from device_records import NAME, make_item
from hub_end import HubEnd, sign_review

from aidpost.errors import EnvelopeError, StoreError, UnreadableInputError
from aidpost.records import ExamReport, Review, ReviewDecision
from aidpost.sync import _stick_file, keys, outbox
from aidpost.sync.blobs import BlobFiles
from aidpost.sync.envelope import CHUNK, BlobHeld, Dropped, Held, Receipt, RecordClass, pack_message
from aidpost.sync.hub import identity, operations, outgoing
from aidpost.sync.hub._batch import Batch
from aidpost.sync.hub.blobs import BlobFiles as HubFiles
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.service import HubService
from aidpost.sync.hub.stick import Imported, import_stick
from aidpost.sync.publisher import Publisher
from aidpost.sync.stick import Applied, export_stick, import_receipts
from aidpost.sync.store import Store

PHOTO = random.Random(1).randbytes(300_000)


class Ends:
    """A device, a hub that knows it, and the stick between them."""

    def __init__(self, store: Store, folder: Path, port: int = 1) -> None:
        self.store, self.end = store, HubEnd(folder / "hub", port)
        self.link = self.end.enroll(store)
        (folder / "usb").mkdir()
        self.stick = folder / "usb/unit-1.aidpost"
        self.receipts = folder / "usb/unit-1.aidpost.receipts"
        self.addressed: dict[str, Any] = {"hub_name": self.link.hub_name, "hub_key": self.link.hub_key}

    def carry(self) -> None:
        export_stick(self.store, self.stick, **self.addressed)

    def take(self) -> Imported:
        return import_stick(self.end.config, self.stick)

    def back(self) -> Applied:
        return import_receipts(self.store, self.receipts, **self.addressed)

    def queued(self) -> int:
        return sum(one.queued for one in outbox.status(self.store))

    def sign(self, report: ExamReport) -> Review:
        database = Database(self.end.config.url)
        review = sign_review(database, report, ReviewDecision.CONFIRMED)
        database.close()
        return review

    def anything_waits(self) -> bool:
        database = Database(self.end.config.url)
        with database.read() as connection:
            found = outgoing.anything(connection)
        database.close()
        return found


@pytest.fixture
def ends(store: Store, tmp_path: Path) -> Ends:
    return Ends(store, tmp_path)


def test_stick_brings_records_and_photographs_and_the_receipts_empty_the_outbox(ends: Ends) -> None:
    items = [make_item(RecordClass.REPORT, PHOTO), make_item(RecordClass.ALERT), make_item()]
    ends.store.append_many(items)
    done = export_stick(ends.store, ends.stick, **ends.addressed)
    assert (done.records, done.blobs, done.unreadable) == (4, 1, 0)
    assert ends.queued() == 4
    taken = ends.take()
    assert (taken.device, taken.held, taken.refused, taken.receipts) == ("unit-1", 4, 0, ends.receipts)
    assert set(ends.end.committed().values()) == {1}
    assert {one.id for one in ends.end.reports()} == {item.record.id for item in items}  # type: ignore[attr-defined]
    assert ends.end.blob(items[0].blobs[0].ref.sha256) == PHOTO
    ends.back()
    assert ends.queued() == 0
    assert outbox.blob_status(ends.store).queued == 0
    assert export_stick(ends.store, ends.stick, **ends.addressed).records == 0


def test_stick_holds_no_plaintext_and_no_temporary_file(ends: Ends) -> None:
    ends.store.append(make_item(RecordClass.REPORT, PHOTO))
    ends.carry()
    ends.take()
    for file in (ends.stick, ends.receipts):
        content = file.read_bytes()
        assert NAME.encode() not in content
        assert PHOTO[1000:1032] not in content
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(ends.stick.parent.iterdir()) == [ends.stick, ends.receipts]


def test_same_stick_again_counts_once_and_is_receipted_again(ends: Ends) -> None:
    ends.store.append_many([make_item(), make_item()])
    ends.carry()
    assert ends.take() == ends.take()
    assert ends.end.committed() == Counter({("report", 1): 1, ("report", 2): 1})
    assert ends.back() == ends.back()
    assert ends.queued() == 0


def test_review_comes_back_on_the_stick_and_its_receipt_goes_with_the_next(ends: Ends) -> None:
    item = make_item()
    assert isinstance(item.record, ExamReport)
    ends.store.append(item)
    ends.carry()
    review = ends.sign(item.record)
    assert ends.take().down == 1
    assert ends.back().received == 1
    assert ends.store.reviews(item.record.exam.id) == [review]
    assert ends.anything_waits()
    ends.carry()
    assert ends.take().down == 0
    assert not ends.anything_waits()
    ends.back()
    assert ends.store.reviews(item.record.exam.id) == [review]


def test_record_that_also_came_by_mqtt_counts_once(store: Store, tmp_path: Path, mosquitto: Any) -> None:
    ends = Ends(store, tmp_path, mosquitto.port)
    store.append_many([make_item(RecordClass.REPORT, PHOTO), make_item()])
    ends.carry()
    database = Database(ends.end.config.url)
    service = HubService(ends.end.config, database, HubFiles(ends.end.config.blobs))
    service.start()
    try:
        with Publisher(store, ends.link) as publisher:
            assert publisher.wait_until_empty(30), publisher.last_error
        assert ends.take().held == 3
    finally:
        service.stop()
        database.close()
    assert len(ends.end.committed()) == 3
    assert set(ends.end.committed().values()) == {1}
    ends.back()
    assert ends.queued() == 0


def test_refused_record_becomes_a_dead_letter_by_the_stick_too(ends: Ends) -> None:
    ends.end.config = msgspec.structs.replace(ends.end.config, accept_simulated=False)
    item, good = make_item(), make_item()
    simulated = msgspec.structs.replace(item.record, origin=type(item.record.origin).SIMULATED)  # type: ignore[attr-defined]
    ends.store.append_many([item._replace(record=simulated), good])
    ends.carry()
    taken = ends.take()
    assert (taken.held, taken.refused) == (1, 1)
    ends.back()
    (letter,) = outbox.dead_letters(ends.store)
    assert letter.code == "origin"
    assert ends.queued() == 0


def test_record_that_makes_a_batch_fail_is_refused_and_the_rest_is_taken(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.store.append_many([make_item(), make_item(), make_item()])
    ends.carry()
    record, bad = Batch._record, 2

    def fragile(self: Batch, device: Any, stream: Any, envelope: Any, received_ms: int) -> None:
        if envelope.seq == bad:
            raise ValueError("a value that the database does not take")
        record(self, device, stream, envelope, received_ms)

    monkeypatch.setattr(Batch, "_record", fragile)
    taken = ends.take()
    assert (taken.held, taken.refused) == (2, 1)
    ends.back()
    assert [letter.seq for letter in outbox.dead_letters(ends.store)] == [bad]


def test_erased_patient_does_not_come_back_with_an_old_stick(ends: Ends) -> None:
    item = make_item()
    assert item.patient is not None
    ends.store.append(item)
    ends.carry()
    old = ends.stick.read_bytes()
    ends.store.erase_patient(item.patient)
    ends.carry()
    assert ends.take().held == 1
    ends.stick.write_bytes(old)
    taken = ends.take()
    assert (taken.held, taken.refused) == (0, 1)
    assert ends.end.reports() == []


def test_photograph_that_is_half_at_the_hub_goes_on_where_it_stopped(ends: Ends) -> None:
    item = make_item(RecordClass.REPORT, PHOTO)
    ends.store.append(item)
    sha256 = bytes.fromhex(item.blobs[0].ref.sha256)
    believed = BlobHeld(sha256, ((0, 2 * CHUNK),), complete=False)
    outbox.Outbox(ends.store).receive(Receipt(b"hub-then", blobs=(believed,)))
    ends.carry()
    assert len(PHOTO) - 2 * CHUNK < ends.stick.stat().st_size < len(PHOTO)
    ends.take()
    ends.back()
    assert outbox.blob_status(ends.store).bytes == 2 * CHUNK, "this hub has told what it really lacks"
    ends.carry()
    assert ends.stick.stat().st_size < 3 * CHUNK
    ends.take()
    ends.back()
    assert ends.end.blob(item.blobs[0].ref.sha256) == PHOTO
    assert outbox.blob_status(ends.store).queued == 0


# -- sticks that cannot be read


@pytest.mark.parametrize("keep", [0, 5, 9, 60, 200, 65_000, -17, -1])
def test_stick_that_is_cut_off_is_refused_whole(ends: Ends, keep: int) -> None:
    ends.store.append(make_item(RecordClass.REPORT, PHOTO))
    ends.carry()
    ends.stick.write_bytes(ends.stick.read_bytes()[:keep])
    with pytest.raises((UnreadableInputError, EnvelopeError), match="stick"):
        ends.take()
    assert ends.end.committed() == Counter()
    assert not ends.receipts.exists()
    assert ends.queued() == 2


def test_stick_cut_off_between_two_parts_is_refused_whole(ends: Ends) -> None:
    ends.store.append(make_item(RecordClass.REPORT, PHOTO))
    ends.carry()
    content = ends.stick.read_bytes()
    start = 8 + 2 + int.from_bytes(content[8:10], "big") + 64
    ends.stick.write_bytes(content[: start + 2 * (_stick_file.SEGMENT + 16)])
    with pytest.raises(UnreadableInputError, match="cut off"):
        ends.take()
    assert ends.end.committed() == Counter()


@pytest.mark.parametrize("seed", range(12))
def test_stick_with_one_wrong_bit_is_refused_whole(ends: Ends, seed: int) -> None:
    ends.store.append(make_item(RecordClass.REPORT, PHOTO[:90_000]))
    ends.carry()
    content = bytearray(ends.stick.read_bytes())
    chance = random.Random(seed)
    place = chance.randrange(160) if seed % 2 else chance.randrange(len(content))
    content[place] ^= 1 << chance.randrange(8)
    ends.stick.write_bytes(content)
    with pytest.raises((UnreadableInputError, EnvelopeError)):
        ends.take()
    assert ends.end.committed() == Counter()
    assert not ends.receipts.exists()


def test_file_of_another_kind_is_named_as_such(ends: Ends) -> None:
    ends.stick.write_bytes(random.Random(2).randbytes(1000))
    with pytest.raises(UnreadableInputError, match="outbox export"):
        ends.take()
    ends.stick.unlink()
    with pytest.raises(UnreadableInputError, match="No such file"):
        ends.take()


def test_stick_for_another_hub_is_refused_there_and_good_at_its_own(ends: Ends, tmp_path: Path) -> None:
    ends.store.append(make_item())
    ends.carry()
    other = HubEnd(tmp_path / "other", 1)
    other.enroll(ends.store)
    with pytest.raises(EnvelopeError, match="another key"):
        import_stick(other.config, ends.stick)
    assert other.committed() == Counter()
    assert ends.take().held == 1


@pytest.mark.parametrize("how", ["unknown", "revoked"])
def test_stick_of_a_device_that_is_not_enrolled_is_refused(
    ends: Ends, open_store: Callable[..., Store], how: str
) -> None:
    if how == "revoked":
        ends.store.append(make_item())
        ends.carry()
        operations.revoke(ends.end.config, "unit-1")
    else:
        stranger = keys.Identity.create("unit-9")
        _stick_file.write(
            ends.stick, [], sender="unit-9", key=stranger.private, recipient="hub", recipient_key=ends.link.hub_key
        )
    with pytest.raises(EnvelopeError, match="not known here"):
        ends.take()
    assert ends.end.committed() == Counter()


def test_stick_signed_by_another_under_the_devices_name_is_refused(ends: Ends) -> None:
    forger = Ed25519PrivateKey.generate()
    _stick_file.write(ends.stick, [], sender="unit-1", key=forger, recipient="hub", recipient_key=ends.link.hub_key)
    with pytest.raises(EnvelopeError, match="signature"):
        ends.take()


def test_message_in_the_stick_that_is_forged_is_left_out_and_the_rest_is_taken(ends: Ends) -> None:
    store, forger = ends.store, Ed25519PrivateKey.generate()
    store.append(make_item())
    forged = Dropped((Held(store.epoch, "report", ((1, 2),)),), "forged")
    good = Dropped((Held(store.epoch, "vitals", ((1, 1 << 60),)),), "a range too long to count one by one")
    messages = [pack_message(forged, sender="unit-1", key=forger)]
    messages.append(pack_message(good, sender="unit-1", key=store.identity.private))
    _stick_file.write(
        ends.stick, messages, sender="unit-1", key=store.identity.private, recipient="hub",
        recipient_key=ends.link.hub_key,
    )  # fmt: skip
    assert ends.take().held == (1 << 60) - 1
    ends.back()
    assert ends.queued() == 1


# -- the way back


def test_receipts_for_another_device_are_refused(ends: Ends, open_store: Callable[..., Store]) -> None:
    ends.store.append(make_item())
    ends.carry()
    ends.take()
    other = open_store("other")
    other.append(make_item())
    with pytest.raises(EnvelopeError, match="unit-1"):
        import_receipts(other, ends.receipts, **ends.addressed)
    assert sum(one.queued for one in outbox.status(other)) == 1


def test_receipts_of_another_hub_are_refused(ends: Ends) -> None:
    ends.store.append(make_item())
    ends.carry()
    ends.take()
    stranger: Ed25519PublicKey = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(EnvelopeError, match="signature"):
        import_receipts(ends.store, ends.receipts, hub_name="hub", hub_key=stranger)
    assert ends.queued() == 1


def test_receipts_cut_off_settle_nothing(ends: Ends) -> None:
    ends.store.append(make_item())
    ends.carry()
    ends.take()
    ends.receipts.write_bytes(ends.receipts.read_bytes()[:-3])
    with pytest.raises(UnreadableInputError):
        ends.back()
    assert ends.queued() == 1


def test_receipts_from_before_the_hub_was_restored_settle_nothing(ends: Ends) -> None:
    ends.store.append(make_item())
    ends.carry()
    ends.take()
    outbox.Outbox(ends.store).receive(Receipt(b"restored", answers=bytes(16)))
    with pytest.raises(EnvelopeError, match="backup"):
        ends.back()
    assert ends.queued() == 1


# -- disks


def test_stick_that_cannot_be_written_is_an_error_and_keeps_what_it_had(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.store.append(make_item())
    ends.carry()
    before = ends.stick.read_bytes()

    def full(path: Path, pieces: object, mode: int = 0o600) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(_stick_file, "write_file", full)
        with pytest.raises(StoreError, match="No space left"):
            ends.carry()
    assert ends.stick.read_bytes() == before
    assert list(ends.stick.parent.iterdir()) == [ends.stick]
    with pytest.raises(StoreError, match="No such file"):
        export_stick(ends.store, ends.stick.parent / "gone/x", **ends.addressed)


def test_photograph_that_does_not_open_is_left_out_and_counted(ends: Ends) -> None:
    damaged, good = make_item(RecordClass.REPORT, PHOTO), make_item(RecordClass.REPORT, PHOTO[:1000])
    ends.store.append_many([damaged, good])
    assert damaged.patient is not None
    file = BlobFiles(ends.store.folder / "blobs").path(bytes.fromhex(damaged.blobs[0].ref.sha256), damaged.patient)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    done = export_stick(ends.store, ends.stick, **ends.addressed)
    assert (done.records, done.blobs, done.unreadable) == (4, 1, 1)
    assert ends.take().held == 4
    assert ends.end.blob(good.blobs[0].ref.sha256) == PHOTO[:1000]


def test_memory_does_not_grow_with_the_stick(ends: Ends) -> None:
    patient = uuid.uuid4()
    photos = [random.Random(seed).randbytes(2_000_000) for seed in range(12)]
    for photo in photos:
        ends.store.append(make_item(RecordClass.REPORT, photo, patient=patient))
    del photos, photo
    tracemalloc.start()
    try:
        ends.carry()
        _, exporting = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        _, messages = _stick_file.read(
            ends.stick, name="hub", key=_hub_private(ends), key_of={"unit-1": ends.store.identity.public}.get
        )
        assert sum(len(one) for one in messages) > 24_000_000
        _, reading = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert exporting < 8_000_000, f"{exporting} bytes for a file of {ends.stick.stat().st_size}"
    assert reading < 4_000_000, f"{reading} bytes for a file of {ends.stick.stat().st_size}"


def _hub_private(ends: Ends) -> Ed25519PrivateKey:
    return identity.signing_key(ends.end.config.state)


def test_sealing_key_is_the_one_of_rfc_7748(ends: Ends) -> None:
    """The vector of libsodium's `test/default/ed25519_convert.c`."""
    seed = bytes.fromhex("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee")
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = keys.agreement_public(key.public_key()).public_bytes_raw()
    assert public.hex() == "f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50"
    assert keys.agreement_private(key).public_key().public_bytes_raw() == public
