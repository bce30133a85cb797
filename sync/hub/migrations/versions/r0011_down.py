"""What goes down to devices besides reviews: deliveries, settings, the patient index, clinical rules."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Adds seven tables."""
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("device", sa.String(64), sa.ForeignKey("devices.name"), nullable=False),
        sa.Column("subject", sa.String(32), nullable=False),
        sa.Column("epoch", sa.LargeBinary(8), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("held_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("by", sa.String(100), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("state_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("deliveries_device", "deliveries", ["device", "subject", "serial"])
    op.create_index("deliveries_body", "deliveries", ["sha256"])
    op.create_table(
        "delivery_bodies",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "device_settings",
        sa.Column("scope", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("key", sa.String(100), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "index_entries",
        sa.Column("device", sa.String(64), sa.ForeignKey("devices.name"), primary_key=True),
        sa.Column("patient", sa.Uuid, primary_key=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
    )
    op.create_index("ix_index_entries_patient", "index_entries", ["patient"])
    op.create_table("index_due", sa.Column("patient", sa.Uuid, primary_key=True))
    _rules()


def _rules() -> None:
    op.create_table(
        "rule_changes",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("proposed_ms", sa.BigInteger, nullable=False),
        sa.Column("proposed_by", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
    )
    op.create_table(
        "rule_signatures",
        sa.Column("change", sa.Uuid, sa.ForeignKey("rule_changes.id"), primary_key=True),
        sa.Column("role", sa.String(16), primary_key=True),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("full_name", sa.String(200), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
