"""From an ECG recording to what the device says about it.

    lead -> quality gate -> R-peaks -> beats -> rhythm model -> measurements -> rules -> findings, triage

Every step that cannot be done leaves None, "Q" or a reason in the result: nothing is guessed, and a recording that
cannot be assessed gives the finding `ecg-not-assessed`, never a reassurance.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping

import msgspec
import numpy as np
import numpy.typing as npt

from aidpost.inference._beats import classify
from aidpost.inference._delineation import delineate
from aidpost.inference._ecg_measure import Timing, measure_timing
from aidpost.inference._ecg_signal import Lead, choose_lead, second_lead
from aidpost.inference._ectopy import measure_ectopy
from aidpost.inference._fibrillation import suspected_spans
from aidpost.inference._intervals import LOWEST_RATE_HZ, Measured, measure_intervals
from aidpost.inference._rhythm import RhythmReading, read_rhythm
from aidpost.inference._rules import Fact, RuleBook, rule_book
from aidpost.inference.model import Model, Models
from aidpost.records import Beats, EcgMeasurements, EcgRecording, EcgResult, Finding, Quality, Rhythm, TriageLevel

__all__ = ["analyze", "delineation"]

_MOST_SHOWN = 40  # beats a finding names: enough to look at, little to send
_EPISODE_PROBABILITY = 0.7


def analyze(
    recording: EcgRecording,
    models: Models,
    lead: str | None = None,
    *,
    limits: Mapping[str, float] | None = None,
    elapsed_ms: MutableMapping[str, float] | None = None,
) -> EcgResult:
    """Read one ECG.

    Parameters
    ----------
    models
        Where the rhythm model is (and a beat model, where there is one).
    lead
        The lead to read; None takes the best of the usual ones, and lets a second one have a say on the beats' classes.
    limits
        A site's own values for limits of `rules/ecg.toml`, by name.
    elapsed_ms
        Is given the wall time of each step.

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
    took = _Steps({} if elapsed_ms is None else elapsed_ms)
    book = rule_book("ecg", limits)
    model, beat_model = models.get("ecg-rhythm"), models.find("ecg-beats")
    took.step("models")
    chosen = choose_lead(recording, lead)
    took.step("quality, lead")
    peaks = chosen.find_peaks()
    took.step("R-peaks")
    reading = read_rhythm(model, chosen.samples_mv, chosen.usable, chosen.fs_hz)
    rhythm = _rhythm(model, reading, chosen.quality)
    took.step("rhythm")
    timing = measure_timing(chosen, peaks)
    measurements = _measurements(recording, chosen, peaks, timing, rhythm)
    took.step("intervals, ST")
    af = None if reading is None else reading.within(model.card.output.labels.index("A"), peaks / chosen.fs_hz)
    other = second_lead(recording, chosen) if lead is None and chosen.quality.usable else None
    second = None if other is None else (other.samples_mv, other.usable)
    reader = beat_model if chosen.quality.usable else None
    classes = classify(reader, chosen.samples_mv, chosen.fs_hz, peaks, af, second)
    took.step("beats")
    facts = _facts(chosen, rhythm, measurements, timing, reading, model)
    ectopy = measure_ectopy(peaks, classes, chosen.fs_hz, float(chosen.usable.sum() / chosen.fs_hz))
    if ectopy is not None:
        facts |= ectopy.facts()
    shown = timing.pause_beats(peaks) | ({} if ectopy is None else ectopy.shown(peaks))
    findings = _findings(book, facts, shown, recording, rhythm, model)
    took.step("findings")
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
        beats=Beats(sample=tuple(int(peak) for peak in peaks), label=classes),
        rhythm=rhythm,
        measurements=measurements,
        findings=findings,
        triage=max((finding.severity for finding in findings), default=TriageLevel.ROUTINE),
        models=(model.ref,) if beat_model is None else (model.ref, beat_model.ref),
        missing=recording.missing,
        lead_off=recording.lead_off,
        source=recording.source,
    )


class _Steps:
    """Notes how long each step took, one after the other."""

    def __init__(self, into: MutableMapping[str, float]) -> None:
        self._into, self._since = into, time.perf_counter()

    def step(self, name: str) -> None:
        """What was done since the step before was `name`."""
        now = time.perf_counter()
        self._into[name], self._since = (now - self._since) * 1e3, now


def delineation(result: EcgResult, recording: EcgRecording) -> dict[str, list[list[int | None]]]:
    """Where the waves of each beat of `result` lie in its lead, as samples of the recording.

    `p`, `qrs` and `t` have one [onset, peak, end] a beat, of None where there is no such wave, where the signal is not
    usable, or where the rhythm is atrial fibrillation (P).
    """
    lead, peaks = choose_lead(recording, result.lead), np.array(result.beats.sample, dtype=np.int64)
    if not result.quality.usable or lead.fs_hz < LOWEST_RATE_HZ:
        return {name: [[None] * 3 for _ in peaks] for name in ("p", "qrs", "t")}
    found = delineate(lead.samples_mv, lead.fs_hz, peaks / lead.fs_hz, p_waves=result.rhythm.label != "A")

    def samples(wave: npt.NDArray[np.float64]) -> list[list[int | None]]:
        return [[None if one != one else round(one * lead.fs_hz) for one in row] for row in wave.tolist()]

    return {"p": samples(found.p), "qrs": samples(found.qrs), "t": samples(found.t)}


def _rhythm(model: Model, reading: RhythmReading | None, quality: Quality) -> Rhythm:
    if reading is None:
        return Rhythm(label=None, probability={}, abstained=True)
    labels = model.card.output.labels
    probability = {label: float(p) for label, p in zip(labels, reading.probability, strict=True)}
    if not quality.usable or model.abstains(reading.probability):
        return Rhythm(label=None, probability=probability, abstained=True)
    return Rhythm(label=labels[int(reading.probability.argmax())], probability=probability)


def _measurements(
    recording: EcgRecording, lead: Lead, peaks: npt.NDArray[np.int64], timing: Timing, rhythm: Rhythm
) -> EcgMeasurements:
    if not lead.quality.usable:
        return EcgMeasurements()
    found = measure_intervals(lead, peaks, p_waves=rhythm.label != "A")
    measured = {f"{name}_ms": getattr(found, name) for name in ("pr", "qrs", "qt", "qtcf")}
    st = {name: found.st_mv if name == lead.name else _st_of(recording, name, peaks) for name in recording.leads}
    everything = measured | {f"st_mv.{name}": one for name, one in st.items()}
    return EcgMeasurements(
        heart_rate_bpm=timing.heart_rate_bpm,
        st_mv={name: _value(one) for name, one in st.items()},
        uncertainty={name: one.uncertainty for name, one in everything.items() if one is not None},
        **{name: _value(one) for name, one in measured.items()},
    )


def _st_of(recording: EcgRecording, name: str, peaks: npt.NDArray[np.int64]) -> Measured | None:
    """The ST level of another lead, around the R-peaks of the one that is read."""
    other = choose_lead(recording, name)
    return measure_intervals(other, peaks, p_waves=False).st_mv if other.quality.usable else None


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
        "reasons": ", ".join(REASONS.get(reason, reason) for reason in quality.reasons) or "too little usable signal",
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


REASONS = {
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
    book: RuleBook,
    facts: Mapping[str, Fact],
    shown: Mapping[str, tuple[int, ...]],
    recording: EcgRecording,
    rhythm: Rhythm,
    model: Model,
) -> tuple[Finding, ...]:
    out = []
    for conclusion in book.conclusions(facts):
        from_model = facts.get("rhythm") == rhythm.label and "rhythm" in conclusion.facts
        probability = rhythm.probability.get(rhythm.label or "") if from_model else None
        beats = sorted({beat for fact in conclusion.facts for beat in shown.get(fact, ())})
        finding = conclusion.finding(
            about=(recording.id,), probability=probability, model=model.card.name if from_model else ""
        )
        out.append(msgspec.structs.replace(finding, beats=tuple(beats[:_MOST_SHOWN])))
    return tuple(sorted(out, key=lambda finding: -finding.severity.rank))
