"""The parts of exams that wait; reports by patient; workers that share devices."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Adds `workers`, an index and `exams.waits`, which it fills."""
    op.create_table(
        "workers",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_reports_patient", "reports", ["patient"])
    op.add_column("exams", sa.Column("waits", sa.String(32), nullable=False, server_default=""))
    _fill()
    op.drop_index("exams_worklist", "exams")
    triage = sa.text("triage DESC")
    op.create_index("exams_worklist", "exams", ["state", triage, "started_ms", "id", "waits", "clinic"])


def _fill() -> None:
    """Only of open exams: what waits in them is not kept, but follows from the readings."""
    exams = sa.table("exams", *(sa.column(name) for name in ("id", "report", "modalities", "state", "waits")))
    readings = sa.table("readings", *(sa.column(name) for name in ("report", "part", "number", "state")))
    connection = op.get_bind()
    is_open = exams.c.state == "open"
    last: dict[tuple[object, str], str] = {}
    query = sa.select(readings).join(exams, exams.c.report == readings.c.report).where(is_open)
    for row in connection.execute(query.order_by(readings.c.number)):
        last[row.report, row.part] = row.state
    changes: dict[str, list[object]] = {}
    for row in connection.execute(sa.select(exams).where(is_open)):
        present = row.modalities.split()
        parts = [part for part, kind in (("eyes", "eyes"), ("heart", "ecg")) if kind in present] or ["general"]
        waits = [part for part in parts if last.get((row.report, part)) not in ("signed", "retake")]
        changes.setdefault(" ".join(waits), []).append(row.id)
    for text, ids in changes.items():
        for start in range(0, len(ids), 500):
            some = exams.c.id.in_(ids[start : start + 500])
            connection.execute(sa.update(exams).where(some).values(waits=text))
