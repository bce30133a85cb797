"""What each model called in a report, one row a task, so that its performance can be measured against the readers."""

from __future__ import annotations

from typing import Any

from aidpost.records import ExamReport
from aidpost.sync.hub import readings

TASKS = {"dr": readings.EYES, "af": readings.HEART}
"""Each task and the part in whose reading it is judged: referable retinopathy, atrial fibrillation."""


def calls_of(report: ExamReport, at_ms: int) -> list[dict[str, Any]]:
    """Rows of `calls` for a report, with the time that its exam has here."""
    rows = []
    if report.fundus:
        graded = [photo for photo in report.fundus if photo.dr and not photo.dr.abstained]
        scores = [photo.dr.referable_probability for photo in graded if photo.dr]
        rows.append(
            _row(report, "dr", at_ms)
            | {
                "model": _models(report.fundus, "dr"),
                "camera": _name(next((p.camera for p in (*graded, *report.fundus)), None)),
                "score": max(scores, default=None),
                "quality": max(photo.quality.score for photo in report.fundus),
                "usable": all(photo.quality.usable for photo in report.fundus),
            }
        )
    if report.ecg:
        scores = [ecg.rhythm.probability["A"] for ecg in report.ecg if "A" in ecg.rhythm.probability]
        rows.append(
            _row(report, "af", at_ms)
            | {
                "model": _models(report.ecg, "rhythm"),
                "camera": _name(report.ecg[0].device),
                "score": max(scores, default=None),
                "quality": max(ecg.quality.score for ecg in report.ecg),
                "usable": all(ecg.quality.usable for ecg in report.ecg),
            }
        )
    return rows


def _row(report: ExamReport, task: str, at_ms: int) -> dict[str, Any]:
    return {
        "report": report.id,
        "task": task,
        "exam": report.exam.id,
        "patient": report.patient.id,
        "call": readings.device_call(TASKS[task], report),
        "at_ms": at_ms,
    }


def _models(results: Any, word: str) -> str:
    """The models that made the call: those with the word in their name, else all that ran."""
    ran = dict.fromkeys(f"{model.name} {model.version}" for result in results for model in result.models)
    wanted = [name for name in ran if word in name] or list(ran)
    return ", ".join(wanted)[:200].replace("\0", "") or "unknown"


def _name(device: Any) -> str:
    if device is None:
        return "unknown"
    name = f"{device.manufacturer} {device.model or device.name}".strip()
    return name[:200].replace("\0", "") or "unknown"
