"""From a recording to the one lead that is analysed: which, where it means something, and where its beats are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aidpost.errors import UsageError
from aidpost.kernels import ecg_quality, rpeaks
from aidpost.kernels.ecg_quality import EcgQuality
from aidpost.records import EcgRecording, Quality

Signal = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

PREFERRED_LEADS = ("II", "MLII", "I", "ECG", "ECG1", "V5", "V6", "MLI", "MLIII", "V2", "V1")
"""Where the P wave and an upright QRS are best seen, first; other names come after these in the recording's order."""

_LOWEST_RATE_HZ = 50.0
_HIGHEST_RATE_HZ = 10_000.0
_MIN_USABLE_S = 5.0
_MIN_USABLE_SHARE = 0.3
_LEAD_MARGIN = 0.15
_ABSENT = ("lead_off", "flat")


@dataclass(frozen=True)
class Lead:
    """One lead, ready to be read.

    `raw_mv` (n,) is NaN where nothing was received, `samples_mv` (n,) is finite: gaps are bridged by straight lines.
    `usable` (n,) is where the quality gate passes, `present` (n,) where an electrode was in contact and the samples are
    real.
    """

    name: str
    number: int
    fs_hz: float
    raw_mv: Signal
    samples_mv: Signal
    usable: Mask
    present: Mask
    quality: Quality

    def find_peaks(self) -> npt.NDArray[np.int64]:
        """R-peaks as sample indices at the recording's rate, where an electrode was in contact."""
        if not self.present.any():
            return np.zeros(0, dtype=np.int64)
        peaks = rpeaks.detect(self.raw_mv, self.fs_hz).sample
        return peaks[self.present[peaks]]


def choose_lead(recording: EcgRecording, wanted: str | None) -> Lead:
    """The lead that was asked for, else the most preferred of those nearly as good as the best.

    Raises
    ------
    UsageError
        The recording has no lead of that name.
    """
    if wanted is not None:
        names = {name.casefold(): number for number, name in enumerate(recording.leads)}
        if wanted.casefold() not in names:
            raise UsageError(
                operation="choosing a lead",
                target=recording.source or str(recording.id),
                cause=f"it has no lead {wanted!r}",
                remedy=f"Its leads are {', '.join(recording.leads)}.",
            )
        return _read_lead(recording, names[wanted.casefold()])
    leads = [_read_lead(recording, number) for number in range(len(recording.leads))]
    best = max((lead.quality.usable, lead.quality.score) for lead in leads)
    good = [lead for lead in leads if (lead.quality.usable, lead.quality.score) >= (best[0], best[1] - _LEAD_MARGIN)]
    return min(good, key=lambda lead: (_preference(lead.name), lead.number))


def second_lead(recording: EcgRecording, first: Lead) -> Lead | None:
    """Another usable lead, nearly as good as the best other one, seen from elsewhere where there is such; None where
    there is none."""
    others = [_read_lead(recording, number) for number in range(len(recording.leads)) if number != first.number]
    usable = [lead for lead in others if lead.quality.usable]
    if not usable:
        return None
    best = max(lead.quality.score for lead in usable)
    good = [lead for lead in usable if lead.quality.score >= best - _LEAD_MARGIN]
    return min(good, key=lambda lead: (-_preference(lead.name) % len(PREFERRED_LEADS), lead.number))


def _preference(name: str) -> int:
    upper = name.upper().removeprefix("LEAD ").removeprefix("ECG ").strip()
    return PREFERRED_LEADS.index(upper) if upper in PREFERRED_LEADS else len(PREFERRED_LEADS)


def _read_lead(recording: EcgRecording, number: int) -> Lead:
    raw = recording.millivolts(number)
    if not _LOWEST_RATE_HZ <= recording.fs_hz <= _HIGHEST_RATE_HZ:
        quality = Quality(usable=False, score=0.0, label="unusable", reasons=("rate",))
        nowhere = np.zeros(raw.size, dtype=bool)
        return Lead(
            recording.leads[number], number, recording.fs_hz, raw, np.nan_to_num(raw), nowhere, nowhere, quality
        )
    seconds = ecg_quality.assess(raw, recording.fs_hz)
    usable = _at_samples(seconds.usable, seconds.fs_hz, raw.size)
    present = np.isfinite(raw) & ~_at_samples(seconds.flat | seconds.lead_off, seconds.fs_hz, raw.size)
    quality = _judge(seconds, usable, recording)
    return Lead(recording.leads[number], number, recording.fs_hz, raw, _bridged(raw), usable, present, quality)


def _judge(seconds: EcgQuality, usable: Mask, recording: EcgRecording) -> Quality:
    usable_s = float(usable.sum() / recording.fs_hz)
    reasons = list(seconds.reasons)
    if recording.duration_s < _MIN_USABLE_S:
        reasons.insert(0, "too_short")
    good = bool(usable_s >= _MIN_USABLE_S and usable.mean() >= _MIN_USABLE_SHARE)
    spans = tuple(
        (start / recording.fs_hz, min(stop / recording.fs_hz, recording.duration_s))
        for start, stop in seconds.unusable_spans()
    )
    label = "good" if good and not spans else "usable" if good else "unusable"
    return Quality(
        usable=good,
        score=min(max(seconds.score, 0.0), 1.0),
        label=label,
        reasons=tuple(reasons),
        unusable_spans_s=spans,
    )


def _at_samples(flags: Mask, fs_hz: float, length: int) -> Mask:
    """Flags of seconds as flags of samples; what is left of a last second has that second's."""
    if flags.size == 0:
        return np.zeros(length, dtype=bool)
    second = np.minimum((np.arange(length) / fs_hz).astype(np.int64), flags.size - 1)
    return flags[second]


def _bridged(raw: Signal) -> Signal:
    good = np.isfinite(raw)
    if good.all():
        return raw
    if not good.any():
        return np.zeros_like(raw)
    index = np.arange(raw.size)
    return np.interp(index, index[good], raw[good])
