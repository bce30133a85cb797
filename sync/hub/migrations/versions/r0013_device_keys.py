"""The key that a device had before its present one, and until when what it signed with that is taken."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Adds two columns."""
    op.add_column("devices", sa.Column("previous_key", sa.LargeBinary(32)))
    op.add_column("devices", sa.Column("previous_until_ms", sa.BigInteger))
