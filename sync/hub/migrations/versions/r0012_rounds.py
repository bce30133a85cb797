"""Federated rounds: what was asked, of whom, and what came."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Adds `rounds`, `round_devices` and `round_records`."""
    op.create_table(
        "rounds",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("base", sa.String(64), nullable=False),
        sa.Column("previous", sa.Uuid),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("phase_ms", sa.BigInteger, nullable=False),
        sa.Column("call", sa.LargeBinary, nullable=False),
        sa.Column("opened_ms", sa.BigInteger, nullable=False),
        sa.Column("opened_by", sa.String(64), nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("answers", sa.Integer, nullable=False),
        sa.Column("head", sa.LargeBinary),
        sa.Column("memory", sa.LargeBinary),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("candidate", sa.String(16), nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
    )
    op.create_index("rounds_model", "rounds", ["model", "number"])
    op.create_table(
        "round_devices",
        sa.Column("round", sa.Uuid, sa.ForeignKey("rounds.id"), primary_key=True),
        sa.Column("device", sa.String(64), sa.ForeignKey("devices.name"), primary_key=True),
    )
    op.create_table(
        "round_records",
        sa.Column("round", sa.Uuid, sa.ForeignKey("rounds.id"), primary_key=True),
        sa.Column("device", sa.String(64), sa.ForeignKey("devices.name"), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.String(300), nullable=False),
        sa.Column("counted", sa.Uuid),
    )
