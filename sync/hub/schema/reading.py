"""What readers made of exams, what follows from it, and who else is told."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, String, Table, Uuid

from aidpost.sync.hub.schema.base import metadata

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

leases = Table(
    "leases",
    metadata,
    Column("exam", Uuid, primary_key=True),
    Column("part", String(16), primary_key=True),
    Column("reader", String(64), nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
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
