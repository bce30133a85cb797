"""Readings by part and reader, models' calls, leases, scopes of users, alerts."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Six tables; what was leased for minutes is in `leases` now."""
    op.create_table(
        "readings",
        sa.Column("report", sa.Uuid, primary_key=True),
        sa.Column("part", sa.String(16), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("exam", sa.Uuid, nullable=False),
        sa.Column("patient", sa.Uuid, nullable=False),
        sa.Column("review", sa.Uuid, nullable=False),
        sa.Column("reader", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("call", sa.Boolean),
        sa.Column("triage", sa.Integer),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("opened_ms", sa.BigInteger),
    )
    op.create_index("ix_readings_patient", "readings", ["patient"])
    op.create_index("readings_time", "readings", ["at_ms"])
    op.create_table(
        "calls",
        sa.Column("report", sa.Uuid, primary_key=True),
        sa.Column("task", sa.String(16), primary_key=True),
        sa.Column("exam", sa.Uuid, nullable=False),
        sa.Column("patient", sa.Uuid, nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("camera", sa.String(200), nullable=False),
        sa.Column("call", sa.Boolean),
        sa.Column("score", sa.Float),
        sa.Column("quality", sa.Float),
        sa.Column("usable", sa.Boolean, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_calls_patient", "calls", ["patient"])
    op.create_index("calls_time", "calls", ["task", "at_ms"])
    op.create_table(
        "leases",
        sa.Column("exam", sa.Uuid, primary_key=True),
        sa.Column("part", sa.String(16), primary_key=True),
        sa.Column("reader", sa.String(64), nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "user_scopes",
        sa.Column("user", sa.String(64), sa.ForeignKey("users.name"), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("value", sa.String(200), primary_key=True),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("about", sa.Uuid, nullable=False, unique=True),
        sa.Column("exam", sa.Uuid, nullable=False),
        sa.Column("patient", sa.Uuid, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("clinic", sa.String(200), nullable=False),
        sa.Column("triage", sa.Integer, nullable=False),
        sa.Column("opened_ms", sa.BigInteger, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("next_ms", sa.BigInteger),
        sa.Column("acknowledged_ms", sa.BigInteger),
        sa.Column("acknowledged_by", sa.String(200), nullable=False),
    )
    op.create_index("ix_alerts_exam", "alerts", ["exam"])
    op.create_index("ix_alerts_patient", "alerts", ["patient"])
    op.create_index("alerts_due", "alerts", ["next_ms"])
    op.create_table(
        "alert_steps",
        sa.Column("alert", sa.Uuid, sa.ForeignKey("alerts.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("target", sa.String(300), nullable=False),
        sa.Column("detail", sa.String(500), nullable=False),
    )
    op.drop_column("exams", "leased_by")
    op.drop_column("exams", "leased_until_ms")
