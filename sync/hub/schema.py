"""The hub's tables, as SQLAlchemy Core.

`streams` and `envelopes` are what devices sent, kept for ever as it came. `exams`, `reports` and `vitals` are views of
them for listing, made in the same transaction; they can be made again from the envelopes. Times are milliseconds of
Unix time by the hub's clock unless the name says `device`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    desc,
    text,
)

SCHEMA_VERSION = 15
"""Raised with each migration (migrations/README.md); a hub refuses a database with a higher one."""
REVISION = f"{SCHEMA_VERSION:04d}"
"""The same as Alembic names it."""

metadata = MetaData()

# SQLite gives rowids only to INTEGER, PostgreSQL counts in BIGINT
_Id = BigInteger().with_variant(Integer, "sqlite")

hub = Table(
    "hub",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("epoch", LargeBinary(8), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("tally", BigInteger, nullable=False, server_default="0"),  # rises with each turn of counting
    Column("tallied_ms", BigInteger),
)

devices = Table(
    "devices",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("public_key", LargeBinary(32), nullable=False),
    Column("clinic", String(200), nullable=False, default=""),
    Column("accept_simulated", Boolean),  # NULL: what the hub's configuration says
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("seen_ms", BigInteger),
    Column("software", String(64), nullable=False, default=""),
    Column("online", Boolean, nullable=False, default=False),
    Column("queued", Integer, nullable=False, default=0),
    Column("oldest_s", BigInteger, nullable=False, default=0),
    Column("dead_letters", Integer, nullable=False, default=0),
    Column("clock_synced", Boolean),
    Column("clock_error_ms", BigInteger),  # device's wall clock minus the hub's, at its last hello
    Column("previous_key", LargeBinary(32)),  # before `public_key`; what it signed is taken until then
    Column("previous_until_ms", BigInteger),
)

streams = Table(
    "streams",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("device", String(64), ForeignKey("devices.name"), nullable=False),
    Column("epoch", LargeBinary(8), nullable=False),
    Column("cls", String(32), nullable=False),
    # MessagePack of half-open ranges: committed or dropped; of those dropped; rejected
    Column("held", LargeBinary, nullable=False),
    Column("dropped", LargeBinary, nullable=False),
    Column("rejected", LargeBinary, nullable=False),
    UniqueConstraint("device", "epoch", "cls"),
)

envelopes = Table(
    "envelopes",
    metadata,
    Column("stream", _Id, ForeignKey("streams.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("patient", Uuid),
    Column("exam", Uuid),
    Column("origin", String(16)),  # NULL where the kind is not known here
    Column("body", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Index("envelopes_patient", "patient"),
    Index("envelopes_exam", "exam"),
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("stream", _Id, ForeignKey("streams.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("patient", Uuid, index=True),
    Column("exam", Uuid),
    Column("body", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
)

rejects = Table(
    "rejects",
    metadata,
    Column("stream", _Id, ForeignKey("streams.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), primary_key=True),
    Column("code", String(32), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("received_ms", BigInteger, nullable=False),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("patient", Uuid, primary_key=True),
    Column("device", String(64), nullable=False),
    Column("received_ms", BigInteger, nullable=False),
)

reports = Table(
    "reports",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("exam", Uuid, nullable=False, index=True),
    Column("patient", Uuid, nullable=False, index=True),
    Column("device", String(64), nullable=False),
    Column("stream", _Id, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("supersedes", Uuid, index=True),
)

exams = Table(
    "exams",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("report", Uuid, nullable=False),
    Column("patient", Uuid, nullable=False),
    Column("device", String(64), nullable=False),
    Column("clinic", String(200), nullable=False),
    Column("operator", String(200), nullable=False),
    Column("patient_name", String(500), nullable=False),
    Column("birth_date", String(10)),
    Column("sex", String(16), nullable=False),
    Column("triage", Integer, nullable=False),  # rank, 0 routine to 3 emergency
    Column("computed_triage", Integer),
    Column("origin", String(16), nullable=False),
    Column("summary", Text, nullable=False),
    Column("dr_grade", Integer),
    # the device's calls, NULL where it made none: what its performance is measured on
    Column("dr_referable", Boolean),
    Column("af", Boolean),
    Column("sampled", Boolean, nullable=False, default=False),  # to be read whatever the device says
    Column("abstained", Boolean, nullable=False, default=False),
    Column("ungradable", Boolean, nullable=False, default=False),
    Column("modalities", String(64), nullable=False),
    Column("started_ms", BigInteger, nullable=False),  # best estimate, see clocks.py
    Column("time_basis", String(16), nullable=False),
    Column("device_wall_ms", BigInteger, nullable=False),
    Column("device_monotonic_ms", BigInteger, nullable=False),
    Column("device_boot", BigInteger, nullable=False),
    Column("device_synced", Boolean, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # open, reviewed, retake
    # the parts that nobody has settled, so that no worklist looks at the readings of each exam
    Column("waits", String(32), nullable=False, default=""),
    # one for each order in which the pages list exams, so that no page sorts a hundred thousand of them
    # the last two only spare a look at the exam itself
    Index("exams_worklist", "state", desc("triage"), "started_ms", "id", "waits", "clinic"),
    Index("exams_done", "state", desc("started_ms"), "id"),
    Index("exams_newest", desc("started_ms"), "id"),
    Index("exams_patient", "patient", "started_ms"),
    Index("exams_boot", "device", "device_boot"),
)

vitals = Table(
    "vitals",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("exam", Uuid, index=True),
    Column("patient", Uuid),
    Column("kind", String(32), nullable=False),
    Column("value", Float),
    Column("unit", String(32), nullable=False),
    Column("origin", String(16), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("stream", _Id, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Index("vitals_patient", "patient", "kind", "at_ms"),
)

manifests = Table(
    "manifests",
    metadata,
    Column("stream", _Id, ForeignKey("streams.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("device", String(64), nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("media_type", String(100), nullable=False),
    Column("patient", Uuid, index=True),
    Column("exam", Uuid),
    Column("preview", LargeBinary, nullable=False),
    Column("waiting", Boolean, nullable=False),  # until the blob is complete
    # waiting ones only: of millions of photographs, the few that have not come
    Index("manifests_waiting", "device", sqlite_where=text("waiting"), postgresql_where=text("waiting")),
)

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("completed_ms", BigInteger, nullable=False),
)

partials = Table(
    "partials",
    metadata,
    # one a device: what one device sends cannot spoil what another sends under the same name
    Column("device", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("ranges", LargeBinary, nullable=False),
    Column("refused", String(500), nullable=False, default=""),
    Column("updated_ms", BigInteger, nullable=False),
)

anchors = Table(
    "anchors",
    metadata,
    # of all hellos of one boot, the one that travelled fastest tells best when that boot began
    Column("device", String(64), primary_key=True),
    Column("boot", BigInteger, primary_key=True, autoincrement=False),
    Column("boot_began_ms", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(200), nullable=False),
    Column("detail", String(1000), nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Index("audit_time", "at_ms"),
)

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("full_name", String(200), nullable=False, default=""),
    Column("role", String(16), nullable=False),
    Column("password", String(200), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("disabled_ms", BigInteger),
    # who this is at a login provider; NULL: they have a password only
    Column("issuer", String(500)),
    Column("subject", String(255)),
    Index("users_subject", "issuer", "subject", unique=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("user", String(64), ForeignKey("users.name"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("used_ms", BigInteger, nullable=False),
    Column("issuer", String(500)),  # the login provider; NULL: by password
    Column("sid", String(255)),  # the provider's name for it
)

logout_tokens = Table(
    "logout_tokens",
    metadata,
    # by which a login provider ended sessions: each counts once
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("until_ms", BigInteger, nullable=False),  # after which it has ended itself
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("exam", Uuid, nullable=False, index=True),
    Column("report", Uuid, nullable=False),
    Column("patient", Uuid, nullable=False),
    Column("reviewer", String(64), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("triage", Integer),
    Column("dr_referable", Boolean),  # the reader's calls, NULL where none was made
    Column("af", Boolean),
    Column("at_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

referrals = Table(
    "referrals",
    metadata,
    # append-only like all results: a change of status is a new row that supersedes
    Column("id", Uuid, primary_key=True),
    Column("exam", Uuid, nullable=False, index=True),
    Column("patient", Uuid, nullable=False),
    Column("status", String(16), nullable=False),
    Column("due", String(10), nullable=False),
    Column("supersedes", Uuid),
    Column("current", Boolean, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("entered_by", String(100), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("referrals_due", "current", "status", "due"),
)

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

readings = Table(
    "readings",
    metadata,
    # what each reader made of each part of a report, in the order of reading; the last says how the part stands
    Column("report", Uuid, primary_key=True),
    Column("part", String(16), primary_key=True),  # eyes, heart, general
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("exam", Uuid, nullable=False),
    Column("patient", Uuid, nullable=False, index=True),
    Column("review", Uuid, nullable=False),
    Column("reader", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # waiting, disputed, signed, retake
    Column("call", Boolean),  # referable retinopathy, or atrial fibrillation; NULL where none was made
    Column("triage", Integer),
    Column("at_ms", BigInteger, nullable=False),
    Column("opened_ms", BigInteger),  # when this reader opened the exam to read it
    Index("readings_time", "at_ms"),
)

calls = Table(
    "calls",
    metadata,
    # what each model said of each report, and of what: performance and drift are measured on it
    Column("report", Uuid, primary_key=True),
    Column("task", String(16), primary_key=True),  # dr, af
    Column("exam", Uuid, nullable=False),
    Column("patient", Uuid, nullable=False, index=True),
    Column("model", String(200), nullable=False),
    Column("camera", String(200), nullable=False),  # or the ECG device
    Column("call", Boolean),  # NULL: the model abstained, or nothing usable was recorded
    Column("score", Float),  # probability of what is called
    Column("quality", Float),  # the best recording's
    Column("usable", Boolean, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index("calls_time", "task", "at_ms"),
)

quality_due = Table(
    "quality_due",
    metadata,
    # of what something changed since it was counted; a row for each change, so that none that comes meanwhile is missed
    Column("id", _Id, primary_key=True),
    Column("exam", Uuid),
    Column("patient", Uuid),
)

quality_facts = Table(
    "quality_facts",
    metadata,
    # what each exam and patient adds to the counts, to be taken off again when it changes
    Column("subject", Uuid, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

quality_counts = Table(
    "quality_counts",
    metadata,
    # how many there are of what the quality page shows, of each clinic and of all ("")
    Column("clinic", String(201), primary_key=True),
    Column("what", String(32), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("bucket", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)

exports = Table(
    "exports",
    metadata,
    # exams that other systems are to have: one row for each, due again whenever something of the exam changes
    Column("exam", Uuid, primary_key=True),
    Column("target", String(16), primary_key=True),  # fhir, dicom
    Column("patient", Uuid, nullable=False, index=True),
    Column("change", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_ms", BigInteger),  # NULL: done
    Column("sent_ms", BigInteger),
    Column("error", String(500), nullable=False),
    Index("exports_due", "target", "next_ms"),
)

dicom_objects = Table(
    "dicom_objects",
    metadata,
    # recordings that a PACS has, or that DICOM has no form for
    Column("id", Uuid, primary_key=True),
    Column("exam", Uuid, nullable=False, index=True),
    Column("patient", Uuid, nullable=False, index=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("fault", String(500), nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("exam", Uuid, primary_key=True),
    Column("part", String(16), primary_key=True),
    Column("reader", String(64), nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)

user_scopes = Table(
    "user_scopes",
    metadata,
    # what a user is limited to, without rows of a kind: to nothing
    Column("user", String(64), ForeignKey("users.name"), primary_key=True),
    Column("kind", String(16), primary_key=True),  # part, clinic
    Column("value", String(200), primary_key=True),
)

second_factors = Table(
    "second_factors",
    metadata,
    Column("user", String(64), ForeignKey("users.name"), primary_key=True),
    Column("secret", LargeBinary, nullable=False),  # sealed under the hub's key
    Column("confirmed_ms", BigInteger),  # NULL: offered, and no code was given yet
    Column("last_step", BigInteger, nullable=False),  # each code counts once
)

patient_words = Table(
    "patient_words",
    metadata,
    # compared by code point on either database: a search is a range of it
    Column("word", String(64).with_variant(String(64, collation="C"), "postgresql"), primary_key=True),
    Column("patient", Uuid, primary_key=True, index=True),
)

withdrawn_consents = Table(
    "withdrawn_consents",
    metadata,
    # what people took back at the hub; what they gave stands in the exams
    Column("id", Uuid, primary_key=True),
    Column("patient", Uuid, nullable=False, index=True),
    Column("purpose", String(32), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(64), nullable=False),
)

patient_links = Table(
    "patient_links",
    metadata,
    # two records of one person, read as one until somebody parts them again
    Column("id", Uuid, primary_key=True),
    Column("patient", Uuid, nullable=False, index=True),
    Column("same_as", Uuid, nullable=False, index=True),
    Column("reason", String(500), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(64), nullable=False),
    Column("parted_ms", BigInteger),
    Column("parted_by", String(64), nullable=False, default=""),
)

withdrawals = Table(
    "withdrawals",
    metadata,
    # exams that were filed under the wrong patient: withdrawn from that one, and shown under the right one where known
    Column("id", Uuid, primary_key=True),
    Column("exam", Uuid, nullable=False, index=True),
    Column("patient", Uuid, nullable=False, index=True),
    Column("right_patient", Uuid, index=True),
    Column("reason", String(500), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", String(64), nullable=False),
    Column("undone_ms", BigInteger),
    Column("undone_by", String(64), nullable=False, default=""),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", String(16), nullable=False),  # finding, recall
    Column("about", Uuid, nullable=False, unique=True),  # the report, or the review that raised its triage
    Column("exam", Uuid, nullable=False, index=True),
    Column("patient", Uuid, nullable=False, index=True),
    Column("device", String(64), nullable=False),
    Column("clinic", String(200), nullable=False),
    Column("triage", Integer, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("level", Integer, nullable=False),  # how often it was passed on: 0 not yet
    Column("next_ms", BigInteger),  # when it is passed on to the next; NULL once somebody answered for it
    Column("acknowledged_ms", BigInteger),
    Column("acknowledged_by", String(200), nullable=False, default=""),
    Index("alerts_due", "next_ms"),
)

alert_steps = Table(
    "alert_steps",
    metadata,
    Column("alert", Uuid, ForeignKey("alerts.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("step", String(16), nullable=False),  # opened, sent, failed, acknowledged
    Column("target", String(300), nullable=False),
    Column("detail", String(500), nullable=False),
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

rounds = Table(
    "rounds",
    metadata,
    # of one model, each goes on from the one before
    Column("id", Uuid, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("model", String(64), nullable=False),
    Column("base", String(64), nullable=False),
    Column("previous", Uuid),
    Column("state", String(16), nullable=False),  # open, closed, void
    Column("phase", String(16), nullable=False),  # keys, shares, answer, reveal
    Column("until_ms", BigInteger, nullable=False),  # when the phase ends, whoever is missing
    Column("phase_ms", BigInteger, nullable=False),
    Column("call", LargeBinary, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("opened_by", String(64), nullable=False),
    Column("ended_ms", BigInteger),
    Column("answers", Integer, nullable=False, default=0),
    Column("head", LargeBinary),  # what it made
    Column("memory", LargeBinary),  # what the strategy remembers
    Column("reason", String(500), nullable=False, default=""),
    # of the head as a candidate: none, passed, failed, shadowed, exported
    Column("candidate", String(16), nullable=False, default="none"),
    Column("verdict", Text, nullable=False, default=""),
    Index("rounds_model", "model", "number"),
)

round_devices = Table(
    "round_devices",
    metadata,
    Column("round", Uuid, ForeignKey("rounds.id"), primary_key=True),
    Column("device", String(64), ForeignKey("devices.name"), primary_key=True),
)

round_records = Table(
    "round_records",
    metadata,
    # what came up, the first of each kind
    Column("round", Uuid, ForeignKey("rounds.id"), primary_key=True),
    Column("device", String(64), ForeignKey("devices.name"), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("refused", String(300), nullable=False, default=""),
    Column("counted", Uuid),  # the round whose head it is in
)
