"""Recordings that a PACS has."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds `dicom_objects`."""
    op.create_table(
        "dicom_objects",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("exam", sa.Uuid, nullable=False),
        sa.Column("patient", sa.Uuid, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("fault", sa.String(500), nullable=False),
    )
    for column in ("exam", "patient"):
        op.create_index(f"ix_dicom_objects_{column}", "dicom_objects", [column])
