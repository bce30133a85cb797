"""What goes down to devices, and how they are let in."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, Uuid

from aidpost.sync.hub.schema.base import metadata

outgoing = Table(
    "outgoing",
    metadata,
    # what goes down, kept until the device's receipt; sequences run per (device, epoch, class)
    Column("device", String(64), ForeignKey("devices.name"), primary_key=True),
    Column("cls", String(32), primary_key=True),
    Column("epoch", LargeBinary(8), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(64), nullable=False),
    Column("patient", Uuid, index=True),
    Column("exam", Uuid),
    Column("body", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("sent_ms", BigInteger),
    Column("attempts", Integer, nullable=False, default=0),
    Column("received_ms", BigInteger),  # the device's receipt
    Column("refused", String(500), nullable=False, default=""),
    Index("outgoing_waiting", "received_ms", "sent_ms"),
)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    # only the hash: who reads the database, or a backup of it, cannot enrol
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("clinic", String(200), nullable=False, default=""),
    Column("created_by", String(100), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    # the key that used it: the same device may repeat a call whose answer was lost on the way
    Column("used_by", LargeBinary(32)),
    Column("used_ms", BigInteger),
)

certificates = Table(
    "certificates",
    metadata,
    # serial numbers have up to 20 bytes
    Column("serial", String(40), primary_key=True),
    Column("device", String(64), ForeignKey("devices.name"), nullable=False, index=True),
    Column("key_hash", LargeBinary(32), nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)

device_updates = Table(
    "device_updates",
    metadata,
    Column("device", String(64), ForeignKey("devices.name"), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("why", String(300), nullable=False, default=""),
    Column("since_ms", BigInteger, nullable=False),
    Index("device_updates_version", "name", "version"),
)

workers = Table(
    "workers",
    metadata,
    # ingest workers that share the devices among themselves (shares.py)
    Column("name", String(64), primary_key=True),
    Column("beat", BigInteger, nullable=False),
)

update_halts = Table(
    "update_halts",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("halted_ms", BigInteger, nullable=False),
    Column("why", String(300), nullable=False),
    Column("by", String(100), nullable=False),
    # set: a person let it go on, and the hub does not halt it by itself again
    Column("lifted_ms", BigInteger),
)

deliveries = Table(
    "deliveries",
    metadata,
    # what was sent down for a device to take up, and what came of it there
    Column("id", Uuid, primary_key=True),
    Column("device", String(64), ForeignKey("devices.name"), nullable=False),
    Column("subject", String(32), nullable=False),  # also the class of its envelope
    Column("epoch", LargeBinary(8), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("serial", BigInteger, nullable=False),  # rises per (device, subject), over restores from a backup too
    Column("version", String(64), nullable=False),
    Column("sha256", String(64)),  # NULL: its body stands in the record
    Column("size", BigInteger, nullable=False),
    Column("held_bytes", BigInteger, nullable=False, default=0),
    Column("state", String(16), nullable=False),  # waiting, held, applied, refused, superseded, rolled-back, withdrawn
    Column("why", String(500), nullable=False, default=""),
    Column("by", String(100), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("state_ms", BigInteger, nullable=False),
    Index("deliveries_device", "device", "subject", "serial"),
    Index("deliveries_body", "sha256"),
)

delivery_bodies = Table(
    "delivery_bodies",
    metadata,
    # in pieces, so that a chunk of a large one is read without the rest; kept while a device lacks it
    Column("sha256", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

device_settings = Table(
    "device_settings",
    metadata,
    # what devices are to be set to: of a clinic, and over it of one device
    Column("scope", String(16), primary_key=True),  # clinic, device
    Column("name", String(200), primary_key=True),
    Column("key", String(100), primary_key=True),
    Column("value", Text, nullable=False),  # JSON
    Column("by", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

index_entries = Table(
    "index_entries",
    metadata,
    # what of the clinic's patient index each device was sent last
    Column("device", String(64), ForeignKey("devices.name"), primary_key=True),
    Column("patient", Uuid, primary_key=True, index=True),
    Column("digest", LargeBinary(32), nullable=False),
)

index_due = Table(
    "index_due",
    metadata,
    # patients of whom something changed since the index was made
    Column("patient", Uuid, primary_key=True),
)

rule_changes = Table(
    "rule_changes",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("why", String(500), nullable=False),
    Column("proposed_ms", BigInteger, nullable=False),
    Column("proposed_by", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # proposed, sent, withdrawn
)

rule_signatures = Table(
    "rule_signatures",
    metadata,
    Column("change", Uuid, ForeignKey("rule_changes.id"), primary_key=True),
    Column("role", String(16), primary_key=True),  # one of each
    Column("user", String(64), nullable=False),
    Column("full_name", String(200), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
