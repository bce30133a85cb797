"""The records that sync adds to those of `aidpost.records`: what names a blob, and what says that a patient is gone."""

from __future__ import annotations

import uuid

from aidpost.records import WIRE_RECORDS, BlobRef, Origin, Record, Timestamp
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


_KINDS: tuple[type[Record], ...] = (*WIRE_RECORDS, BlobManifest, Erasure, Acknowledgement, *rounds.UP)

BODY_KINDS: dict[str, type[Record]] = {kind.__name__: kind for kind in _KINDS}
"""An envelope's `kind` and the record that its body decodes to. Kinds that are not here are kept as bytes."""
