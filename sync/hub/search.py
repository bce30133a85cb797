"""Patients by the beginnings of the words of their name, in a table of words: no search reads all exams.

Words are compared without accents and case. In scripts that write no spaces, a search may begin at any character.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, func, select

from aidpost.sync.hub import schema
from aidpost.sync.hub._rows import insert_new
from aidpost.sync.hub.users import Session

_LONGEST = 64
_FEW = 500
"""Up to so many patients are looked up each; of a more common word, the exams are walked from the newest."""
_LAST = "\U0010ffff"


def words_of(name: str) -> set[str]:
    """The words under which a name is found."""
    found: set[str] = set()
    for word in _plain(name).split():
        # above the alphabets: ideographs, kana, and others that write no spaces
        starts = range(len(word)) if any(ord(letter) >= 0x0E00 for letter in word) else range(1)
        found.update(word[start : start + _LONGEST] for start in starts)
    return found


def note(connection: Connection, names: Iterable[tuple[uuid.UUID, str]]) -> None:
    """Lets patients be found by their names, in the caller's transaction."""
    rows = [{"word": word, "patient": patient} for patient, name in set(names) for word in words_of(name)]
    insert_new(connection, schema.patient_words, rows)


def find(connection: Connection, session: Session, text: str, most: int = 50) -> list[Any]:
    """Patients whom the user may see and in whose name each word of `text` begins a word, those seen last first."""
    wanted = [word[:_LONGEST] for word in _plain(text).split()][:8]
    if not wanted:
        return []
    exams, first, others = schema.exams, schema.patient_words, schema.patient_words.alias()
    wanted.sort(key=len, reverse=True)  # the longest says most
    named = select(first.c.patient).where(_begins(first, wanted[0]))
    for word in wanted[1:]:
        also = select(others.c.word).where(others.c.patient == first.c.patient, _begins(others, word))
        named = named.where(also.exists())
    few = list(dict.fromkeys(connection.execute(named.limit(_FEW + 1)).scalars()))
    query = select(exams.c.patient).where(session.sees(exams.c.clinic)).order_by(exams.c.started_ms.desc())
    if len(few) <= _FEW:
        query = query.where(exams.c.patient.in_(few))
    else:
        query = query.where(named.where(first.c.patient == exams.c.patient).correlate(exams).exists())
    found: dict[uuid.UUID, None] = {}
    with connection.execution_options(yield_per=200).execute(query) as walked:
        for (patient,) in walked:
            found[patient] = None
            if len(found) == most:
                break
    return _rows(connection, session, list(found))


def _begins(table: FromClause, word: str) -> ColumnElement[bool]:
    return table.c.word.between(word, word + _LAST)


def _rows(connection: Connection, session: Session, patients: Sequence[uuid.UUID]) -> list[Any]:
    exams = schema.exams
    seen = func.max(exams.c.started_ms)
    query = select(
        exams.c.patient, func.max(exams.c.patient_name).label("name"), func.max(exams.c.birth_date).label("birth_date"),
        func.max(exams.c.sex).label("sex"), seen.label("seen_ms"), func.count().label("exams"),
    )  # fmt: skip
    query = query.where(exams.c.patient.in_(patients), session.sees(exams.c.clinic))
    return list(connection.execute(query.group_by(exams.c.patient).order_by(seen.desc())).all())


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.replace("\0", ""))
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold()
