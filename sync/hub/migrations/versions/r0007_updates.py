"""What updates came to on devices, and those that are halted."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds `device_updates` and `update_halts`."""
    op.create_table(
        "device_updates",
        sa.Column("device", sa.String(64), sa.ForeignKey("devices.name"), primary_key=True),
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("version", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("why", sa.String(300), nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("device_updates_version", "device_updates", ["name", "version"])
    op.create_table(
        "update_halts",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("version", sa.String(32), primary_key=True),
        sa.Column("halted_ms", sa.BigInteger, nullable=False),
        sa.Column("why", sa.String(300), nullable=False),
        sa.Column("by", sa.String(100), nullable=False),
        sa.Column("lifted_ms", sa.BigInteger),
    )
