"""People who log in by OpenID Connect."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Adds who a user is at a login provider, and by which provider a session was begun."""
    op.add_column("users", sa.Column("issuer", sa.String(500)))
    op.add_column("users", sa.Column("subject", sa.String(255)))
    op.create_index("users_subject", "users", ["issuer", "subject"], unique=True)
    op.add_column("sessions", sa.Column("issuer", sa.String(500)))
