"""From a photograph of the retina to what the device says about it.

    decode -> field of view -> quality -> grade -> rules -> findings, triage

A photograph that cannot be graded has no grade and says why; one from a camera that the grading model was not validated
on awaits review and is never called normal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from aidpost.errors import UnreadableInputError
from aidpost.inference._grading import Grading, grade_photo, model_side, read_quality
from aidpost.inference._heatmap import draw_heatmap
from aidpost.inference._photo_quality import ADVICE
from aidpost.inference._rules import Fact, RuleBook, rule_book
from aidpost.inference.model import Model, Models
from aidpost.kernels.fundus import DecodedPhoto, decode
from aidpost.records import Device, Finding, FundusPhoto, FundusResult, Quality, TriageLevel

__all__ = ["NOT_ASSESSED", "FundusAnalysis", "analyze"]

OEDEMA = "macular oedema"
NOT_ASSESSED = (OEDEMA, "other eye disease")
"""What a photograph is not assessed for; macular oedema is, by a model whose card has a threshold for it, on a
photograph from a camera that the card lists."""


@dataclass(frozen=True)
class FundusAnalysis:
    """The result, the heatmap as a PNG where the model gives one, and milliseconds a step."""

    result: FundusResult
    heatmap_png: bytes | None
    elapsed_ms: dict[str, float]


def analyze(
    photo: FundusPhoto,
    models: Models,
    *,
    force: bool = False,
    attempt: int = 1,
    limits: Mapping[str, float] | None = None,
) -> FundusAnalysis:
    """Read one photograph.

    Parameters
    ----------
    models
        Where the quality and the grading model are.
    force
        Grade a rejected photograph too; it stays rejected.
    attempt
        How often this eye has been photographed in this exam, this one included.
    limits
        A site's own values for limits of `rules/fundus.toml`, by name.

    Returns
    -------
    FundusAnalysis
        Its result's `id` is the photograph's; `dr` is None where it was rejected and not forced.

    Raises
    ------
    UnreadableInputError
        The bytes are not a whole photograph.
    ModelError
        A model is missing, damaged or refused for this site.
    """
    start = time.perf_counter()
    book = rule_book("fundus", limits)
    quality_model, dr_model = models.get("fundus-quality"), models.get("fundus-dr")
    loaded = time.perf_counter()
    decoded = _decode(photo, max(model_side(quality_model), model_side(dr_model)))
    seen = time.perf_counter()
    quality = read_quality(quality_model, decoded)
    grading = grade_photo(dr_model, decoded) if quality.usable or force else None
    findings = _findings(book, quality, grading, photo, dr_model)
    graded = time.perf_counter()
    heatmap = _heatmap(decoded, grading)
    end = time.perf_counter()
    used = (quality_model,) if grading is None else (quality_model, dr_model)
    oedema_assessed = grading is not None and grading.oedema is not None and camera_is_validated(photo.camera, dr_model)
    not_assessed = tuple(what for what in NOT_ASSESSED if what != OEDEMA or not oedema_assessed)
    result = _result(photo, decoded, quality, grading, findings, used, attempt, not_assessed)
    spans = {"models": loaded - start, "decode": seen - loaded, "analyze": graded - seen, "heatmap": end - graded}
    return FundusAnalysis(result, heatmap, {name: 1000 * s for name, s in {**spans, "total": end - start}.items()})


def _result(
    photo: FundusPhoto,
    decoded: DecodedPhoto,
    quality: Quality,
    grading: Grading | None,
    findings: tuple[Finding, ...],
    used: tuple[Model, ...],
    attempt: int,
    not_assessed: tuple[str, ...],
) -> FundusResult:
    return FundusResult(
        id=photo.id,
        eye=photo.eye,
        width=decoded.width,
        height=decoded.height,
        at=photo.at,
        origin=photo.origin,
        camera=photo.camera,
        quality=quality,
        dr=None if grading is None else grading.dr,
        not_assessed=not_assessed,
        findings=findings,
        # what no rule concluded upon is not normal: somebody must look
        triage=max((finding.severity for finding in findings), default=TriageLevel.SOON),
        models=tuple(model.ref for model in used),
        attempt=attempt,
        source=photo.source,
    )


def camera_is_validated(camera: Device, model: Model) -> bool:
    """Whether the model's card lists this camera, by its model or by maker and model."""
    names = {camera.model.casefold().strip(), f"{camera.manufacturer} {camera.model}".casefold().strip()}
    return bool(camera.model.strip()) and any(name.casefold() in names for name in model.card.cameras.validated)


def _decode(photo: FundusPhoto, side: int) -> DecodedPhoto:
    try:
        return decode(photo.encoded, side)
    except UnreadableInputError as error:
        target = photo.source or str(photo.id)
        raise type(error)(operation=error.operation, target=target, cause=error.cause, remedy=error.remedy) from error


def _facts(quality: Quality, grading: Grading | None, camera: Device, model: Model) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "gradable": quality.usable,
        "reasons": "; ".join(ADVICE.get(reason, reason) for reason in quality.reasons),
        "camera_validated": camera_is_validated(camera, model),
        "camera": " ".join(part for part in (camera.manufacturer, camera.model) if part) or "an unknown camera",
    }
    if grading is None:
        return facts
    return facts | {
        "grade": grading.dr.grade,
        "referable": grading.dr.referable,
        "referable_probability": grading.dr.referable_probability,
        "abstained": grading.dr.abstained,
        "oedema_probability": grading.oedema,
        "oedema_suspected": grading.oedema is not None and grading.oedema >= model.card.thresholds["oedema"],
    }


def _findings(
    book: RuleBook, quality: Quality, grading: Grading | None, photo: FundusPhoto, model: Model
) -> tuple[Finding, ...]:
    referable = None if grading is None else grading.dr.referable_probability
    oedema = None if grading is None else grading.oedema
    name = "" if grading is None else model.card.name
    conclusions = book.conclusions(_facts(quality, grading, photo.camera, model))
    found = [
        one.finding(about=(photo.id,), probability=oedema if one.rule.group == "dme" else referable, model=name)
        for one in conclusions
    ]
    return tuple(sorted(found, key=lambda finding: -finding.severity.rank))


def _heatmap(photo: DecodedPhoto, grading: Grading | None) -> bytes | None:
    if grading is None or grading.activation is None or photo.field is None:
        return None
    return draw_heatmap(photo, photo.field, grading.activation)
