"""Counts of the quality page that are kept; an index of photographs that wait; sessions that a provider may end."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Adds four tables and three columns; every exam is to be counted, which the hub does beside its work."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("hub", sa.Column("tally", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("hub", sa.Column("tallied_ms", sa.BigInteger))
    due = op.create_table(
        "quality_due",
        sa.Column("id", number, primary_key=True),
        sa.Column("exam", sa.Uuid),
        sa.Column("patient", sa.Uuid),
    )
    op.create_table(
        "quality_facts",
        sa.Column("subject", sa.Uuid, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "quality_counts",
        sa.Column("clinic", sa.String(201), primary_key=True),
        sa.Column("what", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    exams = sa.table("exams", sa.column("id"), sa.column("patient"))
    op.execute(sa.insert(due).from_select(["exam", "patient"], sa.select(exams.c.id, exams.c.patient)))
    op.add_column("sessions", sa.Column("sid", sa.String(255)))
    op.create_table(
        "logout_tokens",
        sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
    waiting = sa.text("waiting")
    op.drop_index("manifests_waiting", "manifests")
    op.create_index("manifests_waiting", "manifests", ["device"], sqlite_where=waiting, postgresql_where=waiting)
