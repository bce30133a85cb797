"""The message: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import hashlib
import uuid

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st

from aidpost.errors import EnvelopeError
from aidpost.records import Timestamp
from aidpost.sync import envelope, topics
from aidpost.sync.envelope import (
    CHUNK,
    BlobHeld,
    Chunk,
    Chunks,
    Content,
    Dropped,
    Envelope,
    Held,
    Hello,
    Receipt,
    Records,
    Reject,
    Status,
    pack_message,
    unpack_message,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
EPOCH = b"epoch-01"
AT = Timestamp(wall_ms=1, monotonic_ms=2, boot=3, synced=False)


def enrolled(name: str) -> Ed25519PublicKey | None:
    return KEY.public_key() if name == "unit-1" else None


def signed(payload: bytes, codec: int = 0, *, version: int = 1, sender: str = "unit-1") -> bytes:
    """A message that is rightly signed, whatever its payload is."""
    head = (version, sender, "", codec, payload)
    signature = KEY.sign(b"aidpost message 1\x00" + msgspec.msgpack.encode(head))
    return msgspec.msgpack.encode((*head, signature))


names = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
keys = {"epoch": st.binary(min_size=8, max_size=8), "cls": names, "seq": st.integers(1, 2**63 - 1)}
ids = st.none() | st.uuids()
envelopes = st.builds(
    Envelope, **keys, kind=st.text(min_size=1, max_size=64), patient=ids, exam=ids, body=st.binary(max_size=2_000)
)
spans = st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=5).map(tuple)
held = st.builds(Held, keys["epoch"], keys["cls"], spans)
blob_held = st.builds(BlobHeld, st.binary(min_size=32, max_size=32), spans, st.booleans(), st.text(max_size=100))
rejects = st.builds(Reject, **keys, code=st.text(max_size=32), reason=st.text(max_size=100))


def some(strategy: st.SearchStrategy[object], least: int = 0) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(strategy, min_size=least, max_size=4).map(tuple)


contents = st.one_of(
    st.builds(Records, some(envelopes, 1)),
    st.builds(Dropped, some(held), st.text(max_size=100)),
    st.builds(Receipt, keys["epoch"], some(held), some(rejects), some(blob_held), some(held), st.binary(max_size=16)),
    st.builds(
        Hello,
        st.binary(min_size=16, max_size=16),
        st.just(AT),
        keys["epoch"],
        st.dictionaries(names, st.integers(0, 99)),
    ),
    st.builds(Status, st.booleans(), st.just(AT), st.dictionaries(names, st.integers(0, 99))),
)


@given(contents, st.booleans())
def test_every_content_comes_back_as_it_was(content: Content, compress: bool) -> None:
    data = pack_message(content, sender="unit-1", recipient="hub", key=KEY, compress=compress)
    assert unpack_message(data, enrolled, sender="unit-1", recipient="hub") == ("unit-1", "hub", content)


@given(st.binary(max_size=300))
@example(b"\x96\x00\xa1\x80")  # a sender that is not UTF-8
def test_any_bytes_are_refused_and_never_raise_anything_else(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        unpack_message(data, enrolled)


@given(st.binary(max_size=300), st.integers(0, 3))
def test_any_payload_of_an_enrolled_sender_is_refused_and_never_raises_anything_else(data: bytes, codec: int) -> None:
    with pytest.raises(EnvelopeError):
        unpack_message(signed(data, codec), enrolled)


MESSAGE = pack_message(
    Records(tuple(Envelope(EPOCH, "vitals", n, "VitalSign", uuid.UUID(int=n), None, b"x" * 40) for n in range(1, 11))),
    sender="unit-1",
    key=KEY,
)


def test_every_cut_off_message_is_refused() -> None:
    for length in range(len(MESSAGE)):
        with pytest.raises(EnvelopeError):
            unpack_message(MESSAGE[:length], enrolled)


def test_every_altered_byte_is_refused() -> None:
    for place in range(len(MESSAGE)):
        altered = bytearray(MESSAGE)
        altered[place] ^= 0x21
        with pytest.raises(EnvelopeError):
            unpack_message(bytes(altered), enrolled)


@pytest.mark.parametrize(
    ("data", "because"),
    [
        (pack_message(Dropped((), ""), sender="unit-1", key=OTHER), "forged"),
        (pack_message(Dropped((), ""), sender="unit-2", key=KEY), "not enrolled"),
        (signed(b"", version=2), "version 2"),
        (signed(b"", sender="a/b"), "name"),
        (signed(b"", sender="+"), "name"),
        (signed(b"", codec=9), "codec 9"),
        (bytes(envelope.MAX_MESSAGE + 1), "the most is"),
        (signed(zstandard.compress(bytes(3 << 20)), 1), "the most is"),
        (signed(zstandard.ZstdCompressor(write_content_size=False).compress(b"x"), 1), "would have"),
        (signed(b"\x91" * 100_000), "array"),
        (signed(msgspec.msgpack.encode(["records", []])), "length >= 1"),
        (signed(msgspec.msgpack.encode(["surprise", 1])), "surprise"),
        (signed(msgspec.msgpack.encode(["records", [[b"short", "vitals", 1, "K", None, None, b""]]])), "length >= 8"),
        (signed(msgspec.msgpack.encode(["records", [[EPOCH, "up/+", 1, "K", None, None, b""]]])), "regex"),
        (signed(msgspec.msgpack.encode(["records", [[EPOCH, "vitals", 0, "K", None, None, b""]]])), ">= 1"),
    ],
)
def test_what_is_forged_foreign_newer_huge_or_misshapen_is_refused(data: bytes, because: str) -> None:
    with pytest.raises(EnvelopeError, match=because):
        unpack_message(data, enrolled)


def test_a_message_is_for_its_recipient_and_from_its_topic_only() -> None:
    receipt = pack_message(Receipt(EPOCH), sender="unit-1", recipient="unit-7", key=KEY)
    assert unpack_message(receipt, enrolled, sender="unit-1", recipient="unit-7").recipient == "unit-7"
    with pytest.raises(EnvelopeError, match="not for 'unit-8'"):
        unpack_message(receipt, enrolled, recipient="unit-8")
    with pytest.raises(EnvelopeError, match="topic of unit-2"):
        unpack_message(receipt, enrolled, sender="unit-2")


@pytest.mark.parametrize(
    ("size", "offset", "length"), [(CHUNK, 0, CHUNK - 1), (CHUNK + 5, CHUNK, 6), (10, 0, 9), (10, CHUNK, 10)]
)
def test_a_chunk_has_the_length_that_its_place_demands(size: int, offset: int, length: int) -> None:
    with pytest.raises(EnvelopeError, match="chunk"):
        pack_message(Chunks((Chunk(bytes(32), size, offset, bytes(length)),)), sender="unit-1", key=KEY)


def test_a_later_version_s_added_fields_are_ignored() -> None:
    body = [EPOCH, "vitals", 1, "K", None, None, b"body", "a field of tomorrow"]
    content = unpack_message(signed(msgspec.msgpack.encode(["records", [body], [], "and one more"])), enrolled).content
    assert content == Records((Envelope(EPOCH, "vitals", 1, "K", None, None, b"body"),))


def test_hash_is_of_the_content_and_not_of_the_key() -> None:
    one = Envelope(EPOCH, "report", 1, "Patient", uuid.UUID(int=5), None, b"body")
    same = Envelope(b"epoch-02", "alert", 9, "Patient", uuid.UUID(int=5), None, b"body")
    assert one.hash == same.hash
    for changed in (
        Envelope(EPOCH, "report", 1, "Review", uuid.UUID(int=5), None, b"body"),
        Envelope(EPOCH, "report", 1, "Patient", None, uuid.UUID(int=5), b"body"),
        Envelope(EPOCH, "report", 1, "Patient", uuid.UUID(int=5), None, b"bodY"),
    ):
        assert changed.hash != one.hash
    # written out by hand from docs/wire.md: array of 4, str "Patient", bin 16, nil, bin 4
    by_hand = b"\x94\xa7Patient\xc4\x10" + uuid.UUID(int=5).bytes + b"\xc0\xc4\x04body"
    assert one.hash == hashlib.sha256(by_hand).digest()


@pytest.mark.parametrize(
    "topic", ["aidpost/1/unit-1/up", "aidpost/2/unit-1/up/report", "aidpost/1//up/report", "x", ""]
)
def test_topics_of_others_are_refused(topic: str) -> None:
    with pytest.raises(EnvelopeError):
        topics.parse(topic)


def test_topics_come_apart_as_they_were_put_together() -> None:
    assert topics.parse(topics.up("unit-1", "report")) == ("unit-1", "up", "report")
    assert topics.parse(topics.down("unit-1", "review")) == ("unit-1", "down", "review")
    assert topics.parse(topics.receipt("unit-1")) == ("unit-1", "receipt", "")
    assert topics.parse(topics.status("unit-1")) == ("unit-1", "status", "")
