"""The tables of hubs made before there were migrations: tests/sync/hub/schemas/0001.*.sql."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing: they are there."""
