"""What crosses the wire: envelopes, and the signed message that carries them. Pure functions, no I/O.

A message is one MessagePack array [version, sender, recipient, codec, payload, signature]. The payload is one of the
contents below, the signature Ed25519 over all that stands before it. Structures are written as arrays, without field
names; later fields are added at the end, and an older reader ignores them. The layout, byte by byte: docs/wire.md.
"""

from __future__ import annotations

import enum
import hashlib
import uuid
from collections.abc import Callable, Iterable
from typing import Annotated, Literal, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aidpost.errors import EnvelopeError
from aidpost.records import Timestamp
from aidpost.sync import _compression
from aidpost.sync.topics import is_device_name

VERSION = 1
MAX_MESSAGE = 1 << 20
"""Bytes of a message, and of its payload once unpacked."""
MAX_BODY = 512 * 1024
"""Bytes of one record's body; what is larger is a blob."""
MAX_ENVELOPES = 1000
CHUNK = 16 * 1024
"""Bytes of a blob's chunk; offsets are multiples of it, and only a blob's last chunk is shorter."""
MAX_BLOB = 1 << 31
MAX_INSTALLED = 64
"""Releases and models of which a status tells."""

_CONTEXT = b"aidpost message 1\x00"
_INT64_MAX = (1 << 63) - 1

Epoch = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
Sha256 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
ClassName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Sequence = Annotated[int, msgspec.Meta(ge=1, le=_INT64_MAX)]
_Natural = Annotated[int, msgspec.Meta(ge=0, le=_INT64_MAX)]
_Range = tuple[_Natural, _Natural]
_Reason = Annotated[str, msgspec.Meta(max_length=500)]
_Few = msgspec.Meta(max_length=MAX_ENVELOPES)


class RecordClass(enum.Enum):
    """What a device sends, in the order in which it is sent."""

    ALERT = "alert"
    REPORT = "report"
    VITALS = "vitals"
    REVIEW_ACK = "review-ack"
    RETURNED = "returned"
    WAVEFORM = "waveform"
    IMAGE = "image"
    ROUND = "round"

    @property
    def rank(self) -> int:
        """0 for what goes first."""
        return list(RecordClass).index(self)


class RecordKey(NamedTuple):
    """Names one record for ever. With the device's name before it, the hub's primary key."""

    epoch: bytes
    cls: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch.hex()}/{self.cls}/{self.seq}"


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    pass


class Envelope(_Wire, frozen=True):
    """One record. Sequences start at 1 and run per (device, epoch, class). `kind` is the body's record type
    (`ExamReport`, `VitalSign`, `BlobManifest`), `body` its MessagePack."""

    epoch: Epoch
    cls: ClassName
    seq: Sequence
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    patient: uuid.UUID | None
    exam: uuid.UUID | None
    body: Annotated[bytes, msgspec.Meta(max_length=MAX_BODY)]

    @property
    def key(self) -> RecordKey:
        """(epoch, class, sequence)."""
        return RecordKey(self.epoch, self.cls, self.seq)

    @property
    def hash(self) -> bytes:
        """SHA-256 of all but the key: what tells the same record sent again from another one with its key."""
        return content_hash(self.kind, self.patient, self.exam, self.body)


class Chunk(_Wire, frozen=True):
    """A piece of a blob, outside the sequence; the manifest that names the blob goes before it."""

    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOB)]
    offset: Annotated[int, msgspec.Meta(ge=0, multiple_of=CHUNK)]
    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=CHUNK)]


class Held(_Wire, frozen=True):
    """Sequences of one (epoch, class), as sorted half-open ranges. `check` is `records_check` of the records meant: a
    copied store has other records under the same keys, and must not take them for receipted."""

    epoch: Epoch
    cls: ClassName
    ranges: Annotated[tuple[_Range, ...], msgspec.Meta(max_length=10_000)]
    check: Annotated[bytes, msgspec.Meta(max_length=8)] = b""


class Reject(_Wire, frozen=True):
    """A record that the receiver will not take. `code` is stable: `invalid`, `conflict`, `erased`, `origin`, `foreign`,
    `too-large`; `reason` is for people and names no patient."""

    epoch: Epoch
    cls: ClassName
    seq: Sequence
    code: Annotated[str, msgspec.Meta(max_length=32)]
    reason: _Reason = ""


class BlobHeld(_Wire, frozen=True):
    """How much of a blob the hub has on disk, as byte ranges; `complete` once its hash was checked and committed.
    `refused` is why the hub will never take it. Of a blob that comes down, a device says the same, and asks for what it
    lacks: `room` is how many bytes of it the device would take now."""

    sha256: Sha256
    ranges: Annotated[tuple[_Range, ...], msgspec.Meta(max_length=10_000)]
    complete: bool
    refused: _Reason = ""
    room: _Natural = 0


class Records(_Wire, frozen=True, tag="records"):
    """Envelopes; on `up/<class>` all of that class. `proofs`, on `down`: the hub's signature over each of them by
    itself (`aidpost.sync.returns`), empty where it needs none; or none at all."""

    envelopes: Annotated[tuple[Envelope, ...], msgspec.Meta(min_length=1, max_length=MAX_ENVELOPES)]
    proofs: Annotated[tuple[Annotated[bytes, msgspec.Meta(max_length=64)], ...], _Few] = ()


class Chunks(_Wire, frozen=True, tag="chunks"):
    """Pieces of blobs, on `up/blob` and `down/blob`."""

    chunks: Annotated[tuple[Chunk, ...], msgspec.Meta(min_length=1, max_length=64)]


class Life(_Wire, frozen=True):
    """What a store has of one (epoch, class): sequences `first` to `last`, `waiting` the first un-receipted or 0."""

    epoch: Epoch
    cls: ClassName
    first: Sequence
    last: _Natural
    waiting: _Natural = 0


class Hello(_Wire, frozen=True, tag="hello"):
    """The first message after each connection, on `up/hello`: who is there, its clock now (the anchor by which the hub
    corrects times), and the last sequence of each class. The hub answers with a full receipt that repeats `nonce`.
    `lives` says the same of every epoch that the store has had, and what waits; without it `last` counts. `carried`: it
    comes on a stick, so its clock says nothing of now."""

    nonce: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    at: Timestamp
    epoch: Epoch
    last: dict[ClassName, int]
    hub_epoch: Annotated[bytes, msgspec.Meta(max_length=8)] = b""
    software: Annotated[str, msgspec.Meta(max_length=64)] = ""
    lives: Annotated[tuple[Life, ...], _Few] = ()
    carried: bool = False


class Dropped(_Wire, frozen=True, tag="dropped"):
    """Sequences that will never come, on `up/dropped`: their patient was erased, or policy gave them up. The hub notes
    those it lacks, keeps those it has, and receipts all of them."""

    dropped: Annotated[tuple[Held, ...], _Few]
    reason: _Reason


class Receipt(_Wire, frozen=True, tag="receipt"):
    """What the receiver has committed. `answers` repeats the Hello's nonce and makes the receipt full: whatever the
    device ever sent and `held` lacks, this hub does not have. `wanted` asks for records again."""

    hub_epoch: Epoch
    held: Annotated[tuple[Held, ...], _Few] = ()
    rejected: Annotated[tuple[Reject, ...], _Few] = ()
    blobs: Annotated[tuple[BlobHeld, ...], _Few] = ()
    wanted: Annotated[tuple[Held, ...], _Few] = ()
    answers: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class Installed(_Wire, frozen=True):
    """A release (`aidpost`) or model on the device, and what became of it there: it serves, is on trial, or was taken
    back, and then why."""

    name: ClassName
    version: Annotated[str, msgspec.Meta(max_length=32)]
    state: Literal["serves", "trial", "failed"]
    why: Annotated[str, msgspec.Meta(max_length=300)] = ""


class Status(_Wire, frozen=True, tag="status"):
    """Retained on `status`; the last will says `online` false. Counts per class, the age of the oldest in seconds;
    nothing of patients. `installed` is what the device's updates came to, by which a hub halts a bad one."""

    online: bool
    at: Timestamp
    queued: dict[str, int] = {}
    oldest_s: int = 0
    dead_letters: int = 0
    software: Annotated[str, msgspec.Meta(max_length=64)] = ""
    installed: Annotated[tuple[Installed, ...], msgspec.Meta(max_length=MAX_INSTALLED)] = ()


Content = Records | Chunks | Hello | Dropped | Receipt | Status


class Message(NamedTuple):
    """A message whose signature was good. `recipient` is a device's name, or empty for the hub."""

    sender: str
    recipient: str
    content: Content


class _Frame(_Wire, frozen=True):
    version: int
    sender: Annotated[str, msgspec.Meta(max_length=64)]
    recipient: Annotated[str, msgspec.Meta(max_length=64)]
    codec: int
    payload: bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes", order="deterministic")
_frame_decoder = msgspec.msgpack.Decoder(_Frame)
_content_decoder = msgspec.msgpack.Decoder(Content)


def content_hash(kind: str, patient: uuid.UUID | None, exam: uuid.UUID | None, body: bytes) -> bytes:
    """SHA-256 of the MessagePack array [kind, patient, exam, body], the UUIDs as 16 bytes or nil."""
    return hashlib.sha256(_encoder.encode((kind, patient, exam, body))).digest()


def records_check(hashes: Iterable[bytes]) -> bytes:
    """The first 8 bytes of SHA-256 over the hashes of records, by rising sequence."""
    return hashlib.sha256(b"".join(hashes)).digest()[:8]


def pack_message(
    content: Content, *, sender: str, key: Ed25519PrivateKey, recipient: str = "", compress: bool = True
) -> bytes:
    """One signed message.

    Parameters
    ----------
    sender, recipient
        The device's name; the hub's name, or empty for "whichever hub". Both are signed, so that a receipt for one
        device is no use to another.
    compress
        Compress the payload with zstd where that makes it smaller. Chunks never are: photographs do not shrink.

    Raises
    ------
    EnvelopeError
        The content is larger than a message may be, or breaks a bound above.
    """
    plain = _encoder.encode(content)
    _check_content(plain, sender)
    codec, payload = _compression.PLAIN, plain
    if compress and not isinstance(content, Chunks):
        codec, payload = _compression.compress(plain)
    signature = key.sign(_signed(VERSION, sender, recipient, codec, payload))
    return _encoder.encode(_Frame(VERSION, sender, recipient, codec, payload, signature))


def unpack_message(
    data: bytes,
    key_of: Callable[[str], Ed25519PublicKey | None],
    *,
    sender: str | None = None,
    recipient: str | None = None,
) -> Message:
    """The message in `data`, once its form, its addresses and its signature are found good, in that order; nothing is
    decompressed or decoded for a sender that is not known.

    Parameters
    ----------
    key_of
        The public key of an enrolled sender, or None.
    sender, recipient
        Where given, what the message must say: the device of the topic it came on, one's own name.

    Raises
    ------
    EnvelopeError
        Malformed, too large, of a newer version, forged, from nobody known, or for somebody else.
    """
    if len(data) > MAX_MESSAGE:
        raise _refused("(unread)", f"it has {len(data)} bytes, the most is {MAX_MESSAGE}")
    try:
        frame = _frame_decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: a text that is not UTF-8
        raise _refused("(unread)", str(error)) from None
    _check_address(frame, sender, recipient)
    public = key_of(frame.sender)
    if public is None:
        raise _refused(frame.sender, "the sender is not enrolled here")
    try:
        public.verify(
            frame.signature, _signed(frame.version, frame.sender, frame.recipient, frame.codec, frame.payload)
        )
    except InvalidSignature:
        raise _refused(frame.sender, "the signature is wrong: altered on the way, or forged") from None
    plain = _compression.decompress(frame.codec, frame.payload, MAX_MESSAGE, frame.sender)
    return Message(frame.sender, frame.recipient, _check_content(plain, frame.sender))


def _signed(version: int, sender: str, recipient: str, codec: int, payload: bytes) -> bytes:
    return _CONTEXT + _encoder.encode((version, sender, recipient, codec, payload))


def _check_address(frame: _Frame, sender: str | None, recipient: str | None) -> None:
    if frame.version != VERSION:
        raise _refused(frame.sender, f"version {frame.version} is not version {VERSION}", "Update this side.")
    if not is_device_name(frame.sender):
        raise _refused(repr(frame.sender), "the sender's name is not one")
    if sender is not None and frame.sender != sender:
        raise _refused(frame.sender, f"it came on the topic of {sender}")
    if recipient is not None and frame.recipient not in ("", recipient):
        raise _refused(frame.sender, f"it is for {frame.recipient!r}, not for {recipient!r}")


def _check_content(plain: bytes, sender: str) -> Content:
    if len(plain) > MAX_MESSAGE:
        raise _refused(sender, f"its content has {len(plain)} bytes, the most is {MAX_MESSAGE}")
    try:
        content: Content = _content_decoder.decode(plain)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _refused(sender, str(error)) from None
    if isinstance(content, Chunks):
        for chunk in content.chunks:
            expected = min(CHUNK, chunk.size - chunk.offset)
            if len(chunk.data) != expected:
                raise _refused(sender, f"a chunk at {chunk.offset} has {len(chunk.data)} bytes, expected {expected}")
    return content


def _refused(sender: str, cause: str, remedy: str = "") -> EnvelopeError:
    return EnvelopeError(operation="reading a message", target=f"message of {sender}", cause=cause, remedy=remedy)
