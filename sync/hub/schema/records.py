"""What devices sent, and the listings that are made of it."""

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
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    desc,
    text,
)

from aidpost.sync.hub.schema.base import ROW_ID, metadata

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
    Column("id", ROW_ID, primary_key=True),
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
    Column("stream", ROW_ID, ForeignKey("streams.id"), primary_key=True),
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
    Column("stream", ROW_ID, ForeignKey("streams.id"), primary_key=True),
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
    Column("stream", ROW_ID, ForeignKey("streams.id"), primary_key=True),
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
    Column("stream", ROW_ID, nullable=False),
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
    Column("stream", ROW_ID, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Index("vitals_patient", "patient", "kind", "at_ms"),
)

manifests = Table(
    "manifests",
    metadata,
    Column("stream", ROW_ID, ForeignKey("streams.id"), primary_key=True),
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
