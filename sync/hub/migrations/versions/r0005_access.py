"""Second factors, records of one person, and exams withdrawn from the wrong one."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds `second_factors`, `patient_links` and `withdrawals`."""
    op.create_table(
        "second_factors",
        sa.Column("user", sa.String(64), sa.ForeignKey("users.name"), primary_key=True),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("confirmed_ms", sa.BigInteger),
        sa.Column("last_step", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "patient_links",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("patient", sa.Uuid, nullable=False),
        sa.Column("same_as", sa.Uuid, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("parted_ms", sa.BigInteger),
        sa.Column("parted_by", sa.String(64), nullable=False),
    )
    op.create_index("ix_patient_links_patient", "patient_links", ["patient"])
    op.create_index("ix_patient_links_same_as", "patient_links", ["same_as"])
    op.create_table(
        "withdrawals",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("exam", sa.Uuid, nullable=False),
        sa.Column("patient", sa.Uuid, nullable=False),
        sa.Column("right_patient", sa.Uuid),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("undone_ms", sa.BigInteger),
        sa.Column("undone_by", sa.String(64), nullable=False),
    )
    for column in ("exam", "patient", "right_patient"):
        op.create_index(f"ix_withdrawals_{column}", "withdrawals", [column])
