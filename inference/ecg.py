"""From an ECG recording to what the device says about it.

    lead -> quality gate -> R-peaks -> beats -> rhythm model -> measurements -> rules -> findings, triage

Every step that cannot be done leaves None, "Q" or a reason in the result: nothing is guessed, and a recording that
cannot be assessed gives the finding `ecg-not-assessed`, never a reassurance.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from aidpost.inference._ecg_measure import Timing, measure_timing
from aidpost.inference._ecg_signal import Lead, choose_lead
from aidpost.inference._ectopy import measure_ectopy
from aidpost.inference._fibrillation import suspected_spans
from aidpost.inference._intervals import Measured, measure_intervals
from aidpost.inference._rhythm import RhythmReading, read_rhythm
from aidpost.inference._rules import Fact, RuleBook, rule_book
from aidpost.inference.model import Model, Models
from aidpost.records import Beats, EcgMeasurements, EcgRecording, EcgResult, Finding, Quality, Rhythm, TriageLevel

__all__ = ["analyze"]

_UNCLASSIFIED = "Q"  # AAMI EC57: the honest class of a beat that no model has looked at
_RUN_BEATS = 3
_EPISODE_PROBABILITY = 0.7


def analyze(
    recording: EcgRecording,
    models: Models,
    lead: str | None = None,
    *,
    limits: Mapping[str, float] | None = None,
) -> EcgResult:
    """Read one ECG.

    Parameters
    ----------
    models
        Where the rhythm model is (and a beat model, where there is one).
    lead
        The lead to read; None takes the best of the usual ones.
    limits
        A site's own values for limits of `rules/ecg.toml`, by name.

    Returns
    -------
    EcgResult
        Its `id` is the recording's. A recording that cannot be assessed has `quality.usable` False, keeps whatever
        probabilities there are, and has the finding `ecg-not-assessed`.

    Raises
    ------
    UsageError
        The recording has no such lead.
    ModelError
        The rhythm model is missing, damaged or refused for this site.
    """
    book = rule_book("ecg", limits)
    model = models.get("ecg-rhythm")
    chosen = choose_lead(recording, lead)
    peaks = chosen.find_peaks()
    reading = read_rhythm(model, chosen.samples_mv, chosen.usable, chosen.fs_hz)
    rhythm = _rhythm(model, reading, chosen.quality)
    timing = measure_timing(chosen, peaks)
    measurements = _measurements(chosen, peaks, timing, rhythm)
    beats = _beats(peaks)
    facts = _facts(chosen, rhythm, measurements, timing, reading, model) | _ectopy(chosen, peaks, beats)
    findings = _findings(book, facts, recording, rhythm, model)
    return EcgResult(
        id=recording.id,
        fs_hz=recording.fs_hz,
        duration_s=recording.duration_s,
        leads=recording.leads,
        lsb_mv=recording.lsb_mv,
        baseline=recording.baseline,
        lead=chosen.name,
        at=recording.at,
        origin=recording.origin,
        device=recording.device,
        quality=chosen.quality,
        beats=beats,
        rhythm=rhythm,
        measurements=measurements,
        findings=findings,
        triage=max((finding.severity for finding in findings), default=TriageLevel.ROUTINE),
        models=(model.ref,),
        missing=recording.missing,
        lead_off=recording.lead_off,
        source=recording.source,
    )


def _beats(peaks: npt.NDArray[np.int64]) -> Beats:
    return Beats(sample=tuple(int(peak) for peak in peaks), label=(_UNCLASSIFIED,) * peaks.size)


def _ectopy(lead: Lead, peaks: npt.NDArray[np.int64], beats: Beats) -> dict[str, Fact]:
    found = measure_ectopy(peaks, beats.label, lead.fs_hz, float(lead.usable.sum() / lead.fs_hz))
    if found is None or not lead.quality.usable:
        return {}
    return {
        "pvc_per_hour": found.ventricular_per_hour,
        "pvc_fraction": found.ventricular_fraction,
        "vt_longest_beats": float(found.longest_run),
        "vt_longest_s": found.longest_run_s if found.longest_run >= _RUN_BEATS else 0.0,
    }


def _rhythm(model: Model, reading: RhythmReading | None, quality: Quality) -> Rhythm:
    if reading is None:
        return Rhythm(label=None, probability={}, abstained=True)
    labels = model.card.output.labels
    probability = {label: float(p) for label, p in zip(labels, reading.probability, strict=True)}
    if not quality.usable or model.abstains(reading.probability):
        return Rhythm(label=None, probability=probability, abstained=True)
    return Rhythm(label=labels[int(reading.probability.argmax())], probability=probability)


def _measurements(lead: Lead, peaks: npt.NDArray[np.int64], timing: Timing, rhythm: Rhythm) -> EcgMeasurements:
    if not lead.quality.usable:
        return EcgMeasurements()
    found = measure_intervals(lead, peaks, p_waves=rhythm.label != "A")
    values = {f"{name}_ms": _value(getattr(found, name)) for name in ("pr", "qrs", "qt", "qtcf")}
    return EcgMeasurements(heart_rate_bpm=timing.heart_rate_bpm, st_mv={lead.name: _value(found.st_mv)}, **values)


def _value(measured: Measured | None) -> float | None:
    return None if measured is None else measured.value


def _facts(
    lead: Lead,
    rhythm: Rhythm,
    measured: EcgMeasurements,
    timing: Timing,
    reading: RhythmReading | None,
    model: Model,
) -> dict[str, Fact]:
    quality = lead.quality
    facts: dict[str, Fact] = {
        "usable": quality.usable,
        # asked of an unusable recording too: fibrillation may look like noise
        "fibrillation_s": max((stop - start for start, stop in suspected_spans(lead)), default=0.0),
        "reasons": ", ".join(_REASONS.get(reason, reason) for reason in quality.reasons) or "too little usable signal",
    }
    if not quality.usable:
        return facts
    af = model.card.output.labels.index("A")
    return facts | {
        "rhythm": rhythm.label or "unclear",
        "heart_rate_bpm": measured.heart_rate_bpm,
        "longest_pause_s": timing.longest_pause_s,
        "pr_ms": measured.pr_ms,
        "qrs_ms": measured.qrs_ms,
        "qtcf_ms": measured.qtcf_ms,
        "af_s": None if reading is None else reading.seconds_of(af, _EPISODE_PROBABILITY),
    }


_REASONS = {
    "lead_off": "an electrode has no contact",
    "flat": "the line is flat: look at the patient first, then at the electrodes",
    "saturated": "the signal is clipped",
    "mains": "mains interference",
    "muscle": "muscle noise: let the patient rest and relax",
    "wander": "the baseline wanders: keep still, check the electrodes",
    "too_short": "the recording is too short",
    "rate": "the sampling rate is outside 50-10,000 Hz",
}


def _findings(
    book: RuleBook, facts: Mapping[str, Fact], recording: EcgRecording, rhythm: Rhythm, model: Model
) -> tuple[Finding, ...]:
    out = []
    for conclusion in book.conclusions(facts):
        from_model = facts.get("rhythm") == rhythm.label and "rhythm" in conclusion.facts
        probability = rhythm.probability.get(rhythm.label or "") if from_model else None
        out.append(
            conclusion.finding(
                about=(recording.id,), probability=probability, model=model.card.name if from_model else ""
            )
        )
    return tuple(sorted(out, key=lambda finding: -finding.severity.rank))
