"""CHA2DS2-VASc, the stroke risk in atrial fibrillation (Lip et al. 2010; ESC 2020), as far as the answers go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aidpost.inference._rules import Fact

__all__ = ["QUESTIONS", "StrokeRisk", "cha2ds2_vasc"]

QUESTIONS: dict[str, tuple[str, int]] = {
    "heart-failure": ("heart failure", 1),
    "hypertension": ("high blood pressure", 1),
    "diabetes": ("diabetes", 1),
    "stroke": ("earlier stroke, TIA or clot", 2),
    "vascular-disease": ("heart attack or artery disease", 1),
}
"""Question (answered yes or no) -> its words and its points; age and sex give the others."""

_AGE_1, _AGE_2 = 65.0, 75.0


@dataclass(frozen=True)
class StrokeRisk:
    """`points` are the known ones; the score is at least that. `missing` are the questions still to be asked."""

    points: int
    missing: tuple[str, ...]

    @property
    def text(self) -> str:
        """In words: "4", or "at least 2, ask: diabetes"."""
        if not self.missing:
            return str(self.points)
        return f"at least {self.points}, ask: {', '.join(self.missing)}"


def cha2ds2_vasc(facts: Mapping[str, Fact]) -> StrokeRisk:
    """The score from the facts of `aidpost.inference.vitals.observe`: answers, `age_years` and `sex`."""
    points, missing = 0, []
    for question, (words, value) in QUESTIONS.items():
        answer = facts.get(f"answer.{question}")
        if not isinstance(answer, bool):
            missing.append(words)
        points += value * (answer is True)
    age, sex = facts.get("age_years"), facts.get("sex")
    if isinstance(age, float):
        points += (age >= _AGE_1) + (age >= _AGE_2)
    else:
        missing.append("age")
    if sex not in ("female", "male"):
        missing.append("sex")
    return StrokeRisk(points + (sex == "female"), tuple(missing))
