"""Consents that were withdrawn at the hub; the audit log by time."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds `withdrawn_consents` and an index."""
    op.create_table(
        "withdrawn_consents",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("patient", sa.Uuid, nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
    )
    op.create_index("ix_withdrawn_consents_patient", "withdrawn_consents", ["patient"])
    op.create_index("audit_time", "audit", ["at_ms"])
