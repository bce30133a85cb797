"""What other systems are to have of each exam."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds `exports`."""
    op.create_table(
        "exports",
        sa.Column("exam", sa.Uuid, primary_key=True),
        sa.Column("target", sa.String(16), primary_key=True),
        sa.Column("patient", sa.Uuid, nullable=False),
        sa.Column("change", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_ms", sa.BigInteger),
        sa.Column("sent_ms", sa.BigInteger),
        sa.Column("error", sa.String(500), nullable=False),
    )
    op.create_index("ix_exports_patient", "exports", ["patient"])
    op.create_index("exports_due", "exports", ["target", "next_ms"])
