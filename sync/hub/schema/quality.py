"""Counts of what the models called and the readers signed, kept as exams come and change."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, Uuid

from aidpost.sync.hub.schema.base import ROW_ID, metadata

quality_due = Table(
    "quality_due",
    metadata,
    # of what something changed since it was counted; a row for each change, so that none that comes meanwhile is missed
    Column("id", ROW_ID, primary_key=True),
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
