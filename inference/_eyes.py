"""Both eyes of one exam from all their photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aidpost.inference._photo_quality import ADVICE
from aidpost.inference._rules import Conclusion, Fact, RuleBook
from aidpost.records import Eye, FundusResult


@dataclass(frozen=True)
class EyeReading:
    """One eye: the photograph that counts (None where none is usable), and the facts of `rules/eyes.toml`."""

    eye: Eye | None
    photograph: FundusResult | None
    facts: dict[str, Fact]
    about: tuple[FundusResult, ...]


def read_eyes(results: Sequence[FundusResult]) -> list[EyeReading]:
    """The left and the right eye, where photographed, and each photograph whose eye nobody has told by itself."""
    readings = []
    for eye in Eye:
        of_eye = [one for one in results if one.eye is eye]
        if of_eye:
            readings.append(_read(eye, of_eye))
    return [*readings, *(_read(None, [one]) for one in results if one.eye is None)]


def conclude(reading: EyeReading, book: RuleBook) -> list[Conclusion]:
    """What the rules say of one eye."""
    return book.conclusions(reading.facts)


def _read(eye: Eye | None, results: Sequence[FundusResult]) -> EyeReading:
    usable = [one for one in results if one.quality.usable and one.dr is not None]
    decided = [one for one in usable if one.dr is not None and not one.dr.abstained]
    # the best photograph counts; one on which the model abstains only where there is no other
    best = max(decided or usable, key=lambda one: (one.quality.score, one.id), default=None)
    name = "unknown" if eye is None else eye.value
    facts: dict[str, Fact] = {"eye": name, "Eye": name.capitalize()}
    facts["attempts"] = float(max(len(results), *(one.attempt for one in results)))
    if best is None or best.dr is None:
        reasons = dict.fromkeys(ADVICE.get(reason, reason) for one in results for reason in one.quality.reasons)
        facts |= {"state": "ungradable", "reasons": "; ".join(sorted(reasons)) or "the quality is too low"}
        return EyeReading(eye, None, facts, tuple(results))
    facts |= {
        "state": "abstained" if best.dr.abstained else "graded",
        "grade": best.dr.grade,
        "referable": best.dr.referable,
        "camera_validated": all(finding.code != "fundus-awaiting-review" for finding in best.findings),
        "oedema_suspected": any(finding.code == "dme-suspected" for finding in best.findings),
    }
    return EyeReading(eye, best, facts, (best,))
