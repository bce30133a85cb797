"""The JSON objects of `aidpost analyze`: what a program reads. Fields are only ever added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aidpost.records import EcgResult, Finding, FundusResult, ModelRef, Quality

__all__ = ["ECG_SCHEMA", "FUNDUS_SCHEMA", "ecg_json", "fundus_json"]

ECG_SCHEMA = "aidpost.ecg/1"
FUNDUS_SCHEMA = "aidpost.fundus/1"


def ecg_json(result: EcgResult, elapsed_ms: Mapping[str, float]) -> dict[str, Any]:
    """One recording's object of `aidpost analyze ecg`; `elapsed_ms` are the steps that were timed, "total" among
    them."""
    measured = result.measurements
    return {
        "schema": ECG_SCHEMA,
        "source": result.source,
        "origin": result.origin.value,
        "fs_hz": _whole(result.fs_hz),
        "duration_s": round(result.duration_s, 3),
        "lead": result.lead,
        "quality": {
            "usable": result.quality.usable,
            "score": round(result.quality.score, 4),
            "reasons": list(result.quality.reasons),
            "unusable_spans_s": [[round(start, 3), round(stop, 3)] for start, stop in result.quality.unusable_spans_s],
        },
        "beats": {"sample": list(result.beats.sample), "class": list(result.beats.label)},
        "rhythm": {
            "label": result.rhythm.label,
            "probability": _rounded(result.rhythm.probability),
            "abstained": result.rhythm.abstained,
        },
        "measurements": {
            "heart_rate_bpm": _one(measured.heart_rate_bpm),
            "pr_ms": _one(measured.pr_ms),
            "qrs_ms": _one(measured.qrs_ms),
            "qt_ms": _one(measured.qt_ms),
            "qtcf_ms": _one(measured.qtcf_ms),
            "st_mv": {lead: None if mv is None else round(mv, 3) for lead, mv in measured.st_mv.items()},
            "uncertainty": {name: round(one, 3) for name, one in measured.uncertainty.items()},
        },
        **_conclusion(result.findings, result.triage.value, result.models, elapsed_ms),
    }


def fundus_json(result: FundusResult, elapsed_ms: Mapping[str, float], heatmap: str | None = None) -> dict[str, Any]:
    """One photograph's object of `aidpost analyze fundus`; `heatmap` is the file it was written to."""
    dr = result.dr
    return {
        "schema": FUNDUS_SCHEMA,
        "source": result.source,
        "origin": result.origin.value,
        "eye": None if result.eye is None else result.eye.value,
        "width": result.width,
        "height": result.height,
        "quality": _photo_quality(result.quality),
        "dr": None
        if dr is None
        else {
            "grade": dr.grade,
            "probability": [round(p, 4) for p in dr.probability],
            "referable": {
                "probability": round(dr.referable_probability, 4),
                "positive": dr.referable,
                "threshold": dr.threshold,
            },
            "abstained": dr.abstained,
        },
        "not_assessed": list(result.not_assessed),
        "heatmap": heatmap,
        **_conclusion(result.findings, result.triage.value, result.models, elapsed_ms),
    }


def _photo_quality(quality: Quality) -> dict[str, Any]:
    return {
        "label": quality.label,
        "probability": _rounded(quality.probability),
        "reasons": list(quality.reasons),
    }


def _conclusion(
    findings: Iterable[Finding], triage: str, models: Iterable[ModelRef], elapsed_ms: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "findings": [_finding(finding) for finding in findings],
        "triage": triage,
        "models": [
            {"name": one.name, "version": one.version, "sha256": one.sha256, "runtime": one.runtime} for one in models
        ],
        "elapsed_ms": {step: round(ms, 1) for step, ms in elapsed_ms.items()},
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "text": finding.text,
        "severity": finding.severity.value,
        "probability": None if finding.probability is None else round(finding.probability, 4),
        "rule": finding.rule,
        "source": finding.source,
        **({"beats": list(finding.beats)} if finding.beats else {}),
    }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _one(value: float | None) -> float | int | None:
    return None if value is None else _whole(round(value, 1))


def _whole(value: float) -> float | int:
    """100.0 as 100, as people write it."""
    return int(value) if value == int(value) else value
