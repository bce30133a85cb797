"""The records that sync adds to those of `aidpost.records`: what names a blob, what says that a patient is gone, what a
hub wants a device to take up, and what came of that."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

import msgspec

from aidpost._record import require
from aidpost.records import WIRE_RECORDS, BlobRef, Origin, Patient, Record, Timestamp, TriageLevel
from aidpost.sync import rounds

MAX_PREVIEW = 12 * 1024
"""Bytes of a preview: small enough to arrive over 2G while the patient is still there."""


class BlobManifest(Record, frozen=True, kw_only=True):
    """A large body that will follow in chunks: a photograph, a waveform, a heatmap. The record that it belongs to names
    the same SHA-256. `preview` is a small JPEG, so that the hub can show something at once."""

    blob: BlobRef
    origin: Origin
    at: Timestamp
    preview: bytes = b""


class Erasure(Record, frozen=True, kw_only=True):
    """The patient asked to be erased: a tombstone, so that no stick and no backup brings them back."""

    patient: uuid.UUID
    at: Timestamp
    operator: str = ""


class Acknowledgement(Record, frozen=True, kw_only=True):
    """Somebody answers for an alert, at the hub or at the device: `about` is the report, or the review that raised its
    triage. `text` says what they did, such as "telephoned the family"."""

    about: uuid.UUID
    exam: uuid.UUID
    patient: uuid.UUID
    by: str
    at: Timestamp
    text: str = ""


class Shadow(Record, frozen=True, kw_only=True):
    """The hub's word on which models' answers the devices of a clinic do not show yet: their tasks, "dr" or "af". The
    newest counts."""

    clinic: str
    tasks: tuple[str, ...]
    at: Timestamp


class Delivery(Record, frozen=True, kw_only=True):
    """Something that a device is to take up: settings, clinical rules, a release, a round of learning. `subject` says
    which, and is the class of its envelope. The content is `body`, or, where it is larger, `blob`, which the device
    then asks for in chunks. `serial` rises with each delivery of a subject to a device, over restores of the hub too:
    where only the last one counts, an older one is not taken up after it."""

    id: uuid.UUID
    subject: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    version: Annotated[str, msgspec.Meta(max_length=64)]
    serial: Annotated[int, msgspec.Meta(ge=1, le=(1 << 62))]
    at: Timestamp
    body: bytes = b""
    blob: BlobRef | None = None

    def _check(self) -> None:
        require(self.blob is None or not self.body, self, "it has a body and a blob")
        require(self.blob is None or self.blob.size > 0, self, "its blob is empty")


class Outcome(Record, frozen=True, kw_only=True):
    """What came of a delivery on the device. A later outcome of the same delivery replaces the one before: settings
    that were applied may be rolled back. `why` is for people and names no patient."""

    id: uuid.UUID
    delivery: uuid.UUID
    subject: str
    version: str
    state: Literal["applied", "refused", "superseded", "rolled-back"]
    at: Timestamp
    why: Annotated[str, msgspec.Meta(max_length=500)] = ""


class Returned(Record, frozen=True, kw_only=True):
    """What the hub sent down in a life from which it was restored since, as it came: the hub's epoch, class and
    sequence, the record and the hub's `proof` of it. `at` is when the device gave it back."""

    id: uuid.UUID
    epoch: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    cls: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    seq: Annotated[int, msgspec.Meta(ge=1, le=(1 << 62))]
    kind: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    body: bytes
    proof: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
    at: Timestamp


class LastVisit(Record, frozen=True, kw_only=True):
    """A patient's last exam as the hub has it: the day (YYYY-MM-DD), how urgent, and what was found, in short.
    `confirmed`: a clinician signed it; otherwise it is preliminary."""

    exam: uuid.UUID
    day: str
    triage: TriageLevel
    result: str = ""
    confirmed: bool = False


class OverdueReferral(Record, frozen=True, kw_only=True):
    """Where the patient should have been seen, and by when (YYYY-MM-DD)."""

    to: str
    due: str
    reason: str = ""


class IndexEntry(Record, frozen=True, kw_only=True):
    """One person of the clinic's patient index, as of `at` by the hub's clock. `same_as` are the person's other
    numbers. `removed`: not to be shown any longer (moved, merged into another, or no longer agreed to)."""

    patient: Patient
    at: Timestamp
    last: LastVisit | None = None
    overdue: tuple[OverdueReferral, ...] = ()
    same_as: tuple[uuid.UUID, ...] = ()
    removed: bool = False


_KINDS: tuple[type[Record], ...] = (
    *WIRE_RECORDS,
    BlobManifest,
    Erasure,
    Acknowledgement,
    Delivery,
    Outcome,
    *rounds.UP,
    IndexEntry,
    Shadow,
    Returned,
)

BODY_KINDS: dict[str, type[Record]] = {kind.__name__: kind for kind in _KINDS}
"""An envelope's `kind` and the record that its body decodes to. Kinds that are not here are kept as bytes."""
