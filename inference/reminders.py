"""What the patient takes home in writing: by when to be seen, medicines, what to measure again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

from aidpost.inference.wording import Translate, word
from aidpost.records import ExamReport, Finding

__all__ = ["MESSAGES", "due", "reminders"]

TODAY = "Be seen today, before you go home: {reason}"
DATED = "Be seen within {days} days, by {date}: {reason}"
UNDATED = "Be seen within {days} days of today (this device's date is not confirmed): {reason}"
MEDICINES = "Your medicines: {medicines}. Take them as they were prescribed, and bring them to every visit."
AGAIN = "Measure your blood pressure again: one reading is not enough to tell."
MESSAGES = (TODAY, DATED, UNDATED, MEDICINES, AGAIN)
"""What may be said, for a catalogue."""


def due(report: ExamReport) -> tuple[int, Finding] | None:
    """In how many days the patient should be seen at the latest, and the finding that says so; None where none does."""
    dated = [(one.within_days, -one.severity.rank, one) for one in report.findings if one.within_days is not None]
    found = min(dated, key=lambda entry: entry[:2], default=None)
    return (found[0], found[2]) if found else None


def reminders(report: ExamReport, translate: Translate = str) -> tuple[str, ...]:
    """The lines, in another language where `translate` has it. Texts that the patient or worker gave stay as they
    are."""
    return tuple(_lines(report, translate))


def _lines(report: ExamReport, translate: Translate) -> Iterator[str]:
    if found := due(report):
        days, finding = found
        reason = word(finding, translate)
        started = report.exam.started
        if days == 0:
            yield translate(TODAY).format(reason=reason)
        elif started.synced:
            zone = timezone(timedelta(minutes=started.utc_offset_min or 0))
            day = datetime.fromtimestamp(started.wall_ms / 1000, zone).date() + timedelta(days=days)
            yield translate(DATED).format(days=days, date=day.isoformat(), reason=reason)
        else:
            yield translate(UNDATED).format(days=days, reason=reason)
    if any(one.values.get("bp_repeat") for one in report.findings):
        yield translate(AGAIN)
    medicines = [one.answer.strip() for one in report.answers if one.question == "medicines" and one.answer.strip()]
    if medicines and medicines[-1].casefold() not in ("no", "none"):
        yield translate(MEDICINES).format(medicines=medicines[-1].rstrip("."))
