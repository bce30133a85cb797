"""Who logs in, and who is who among patients."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, String, Table, Uuid

from aidpost.sync.hub.schema.base import ROW_ID, metadata

audit = Table(
    "audit",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=False),
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
