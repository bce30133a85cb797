"""The words under which patients are found."""

import sqlalchemy as sa
from alembic import op

from aidpost.sync.hub.search import words_of

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds `patient_words`, and fills it from the exams."""
    op.create_table(
        "patient_words",
        sa.Column("word", sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql"), primary_key=True),
        sa.Column("patient", sa.Uuid, primary_key=True),
    )
    op.create_index("ix_patient_words_patient", "patient_words", ["patient"])
    connection = op.get_bind()
    exams = sa.table("exams", sa.column("patient", sa.Uuid), sa.column("patient_name", sa.String))
    names = connection.execute(sa.select(exams.c.patient, exams.c.patient_name).distinct()).all()
    found = {(word, row.patient) for row in names for word in words_of(row.patient_name)}
    if found:
        table = sa.table("patient_words", sa.column("word", sa.String), sa.column("patient", sa.Uuid))
        connection.execute(sa.insert(table), [{"word": word, "patient": patient} for word, patient in found])
