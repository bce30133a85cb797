"""Electrocardiograms of patients who do not exist, with the truth about every beat.

The dynamical model of McSharry et al. (IEEE Trans Biomed Eng 50:289, 2003): the heart's phase runs round a limit cycle,
and each of P, Q, R, S and T is a Gaussian of the phase. Here in the closed form of Clifford et al. (Physiol Meas
31:595, 2010), where the trajectory is summed rather than integrated. Deviations: angles and widths are set beat by beat
so that PR and QRS keep their duration and QT follows Fridericia's cube root of RR; rhythms other than sinus choose RR
and shape for each beat; atrial fibrillation has fibrillatory waves in place of P. Amplitudes per lead are typical adult
values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float64]

RHYTHMS = ("sinus", "af", "pac", "pvc", "bigeminy", "brady", "tachy", "vt", "vf", "asystole")
DEFAULT_RATE = {"brady": 42.0, "tachy": 138.0, "vt": 180.0, "af": 95.0}
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

# Amplitudes in millivolt of P, Q, R, S, T per lead; the other limb leads follow by Einthoven and Goldberger
_WAVES_MV = {
    "I": (0.08, -0.04, 0.75, -0.12, 0.20),
    "II": (0.14, -0.06, 1.15, -0.18, 0.30),
    "V1": (0.05, 0.0, 0.25, -0.95, -0.08),
    "V2": (0.06, 0.0, 0.50, -1.40, 0.45),
    "V3": (0.06, -0.02, 0.85, -0.90, 0.50),
    "V4": (0.07, -0.05, 1.40, -0.55, 0.45),
    "V5": (0.07, -0.07, 1.35, -0.25, 0.35),
    "V6": (0.07, -0.07, 1.05, -0.10, 0.28),
}
_LIMB = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}  # of (I, II)
# Position after the R-peak and width (standard deviation), seconds, at RR = 1 s
_OFFSET_S = np.array([-0.165, -0.032, 0.0, 0.034, 0.285])
_WIDTH_S = np.array([0.022, 0.009, 0.011, 0.010, 0.045])
# A ventricular beat: no P, broad QRS, T against it
_PVC_OFFSET_S = np.array([0.0, -0.045, 0.0, 0.06, 0.31])
_PVC_WIDTH_S = np.array([0.02, 0.020, 0.028, 0.030, 0.060])
_PVC_GAIN = np.array([0.0, 1.0, 1.25, 2.2, -1.5])


class Beat(NamedTuple):
    """A beat: time of its R-peak in seconds, AAMI class, and whether a P wave comes before it."""

    time_s: float
    label: str
    p_wave: bool


@dataclass(frozen=True)
class Noise:
    """Root mean square in millivolt of each disturbance: baseline wander, mains hum, muscle, and white noise."""

    wander_mv: float = 0.04
    mains_mv: float = 0.0
    muscle_mv: float = 0.0
    white_mv: float = 0.008
    mains_hz: float = 50.0


@dataclass(frozen=True)
class SimulatedEcg:
    """Millivolt (leads, n) float64, with the R-peaks as sample indices and the AAMI class of each."""

    millivolts: Signal
    fs_hz: float
    leads: tuple[str, ...]
    r_peaks: tuple[int, ...]
    labels: tuple[str, ...]


def simulate_ecg(
    rhythm: str = "sinus",
    *,
    seconds: float = 30.0,
    fs_hz: float = 300.0,
    leads: tuple[str, ...] = ("I",),
    rate_bpm: float | None = None,
    noise: Noise | None = None,
    seed: int = 1,
) -> SimulatedEcg:
    """An ECG of that rhythm (of `RHYTHMS`) in those leads (of `LEADS`). The same arguments give the same samples.

    `rate_bpm` is the mean ventricular rate, None for what is usual in that rhythm.

    Raises
    ------
    ValueError
        There is no such rhythm or lead.
    """
    if rhythm not in RHYTHMS or not set(leads) <= set(LEADS):
        raise ValueError(f"no rhythm {rhythm!r} or lead among {leads}")
    rng = np.random.default_rng(seed)
    count = max(1, round(seconds * fs_hz))
    time = np.arange(count) / fs_hz
    beats = _beats(rhythm, seconds, rate_bpm or DEFAULT_RATE.get(rhythm, 72.0), rng)
    waves = _lead_waves(leads, rng)
    signal = np.zeros((len(leads), count))
    for number, beat in enumerate(beats):
        before = beat.time_s - beats[number - 1].time_s if number else 0.8
        _add_beat(signal, waves, fs_hz, beat, before, 1 + 0.03 * rng.standard_normal())
    if rhythm == "af":
        signal += _fibrillation(time, rng, low_hz=5.0, high_hz=7.5) * 0.06 * np.sign(waves[:, :1] + 1e-9)
    elif rhythm == "vf":
        signal += _fibrillation(time, rng, low_hz=3.5, high_hz=6.0) * 0.45 * np.abs(waves[:, 2:3])
    signal += _disturbance(time, noise or Noise(), len(leads), rng)
    inside = [(peak, beat.label) for beat in beats if 0 <= (peak := round(beat.time_s * fs_hz)) < count]
    return SimulatedEcg(signal, fs_hz, leads, tuple(r for r, _ in inside), tuple(label for _, label in inside))


def _beats(rhythm: str, seconds: float, rate_bpm: float, rng: np.random.Generator) -> list[Beat]:
    """The beats from one before the start to one after the end."""
    if rhythm in {"vf", "asystole"}:
        return []
    mean, beats = 60.0 / rate_bpm, [Beat(-rng.uniform(0.1, 0.6), "N", rhythm not in {"af", "vt"})]
    respiration, number, label, p_wave = rng.uniform(0.2, 0.3), 0, "N", True
    while beats[-1].time_s < seconds + 1.5:
        now, number = beats[-1].time_s, number + 1
        rr = mean * (1 + 0.03 * np.sin(2 * np.pi * respiration * now) + 0.02 * rng.standard_normal())
        label, p_wave = "N", True
        if rhythm == "af":
            # irregular, without memory and skewed, bounded by the node's refractory period
            rr, p_wave = max(0.3, mean * (0.55 + 0.45 * rng.gamma(3.2, 1 / 3.2))), False
        elif rhythm == "vt":
            rr, label, p_wave = mean * (1 + 0.01 * rng.standard_normal()), "V", False
        elif rhythm in {"pvc", "pac", "bigeminy"}:
            early = number % 2 == 0 if rhythm == "bigeminy" else rng.random() < 0.14
            ectopic = "S" if rhythm == "pac" else "V"
            if beats[-1].label in {"S", "V"}:
                # after a ventricular beat the sinus node keeps its time (full pause); an atrial one resets it
                rr = mean * (1.38 if beats[-1].label == "V" else 1.08)
            elif early:
                rr, label, p_wave = mean * rng.uniform(0.56, 0.66), ectopic, ectopic == "S"
        beats.append(Beat(now + rr, label, p_wave))
    return beats


def _lead_waves(leads: tuple[str, ...], rng: np.random.Generator) -> Signal:
    """(leads, 5) amplitudes of this patient: the table, up to 15 % off, the same factor for a wave in all leads."""
    factor = 1 + 0.15 * rng.uniform(-1, 1, 5)
    table = {name: np.array(waves) * factor for name, waves in _WAVES_MV.items()}
    for name, (first, second) in _LIMB.items():
        table[name] = first * table["I"] + second * table["II"]
    return np.stack([table[name] for name in leads])


def _add_beat(signal: Signal, waves: Signal, fs_hz: float, beat: Beat, rr_s: float, gain: float) -> None:
    ventricular = beat.label == "V"
    offset = (_PVC_OFFSET_S if ventricular else _OFFSET_S).copy()
    width = (_PVC_WIDTH_S if ventricular else _WIDTH_S).copy()
    stretch = float(np.clip(rr_s, 0.3, 1.6)) ** (1 / 3)
    offset[4], width[4] = offset[4] * stretch, width[4] * stretch
    offset[0] *= 0.75 + 0.25 * min(rr_s, 1.0)  # PR shortens a little as the rate rises
    amplitudes = waves * (_PVC_GAIN if ventricular else 1.0) * gain
    if not beat.p_wave:
        amplitudes[:, 0] = 0.0
    start = max(0, int((beat.time_s - 0.4) * fs_hz))
    stop = min(signal.shape[1], int((beat.time_s + 0.75) * fs_hz) + 1)
    if start < stop:
        phase_s = np.arange(start, stop) / fs_hz - beat.time_s
        shape = np.exp(-0.5 * ((phase_s - offset[:, None]) / width[:, None]) ** 2)
        signal[:, start:stop] += amplitudes @ shape


def _fibrillation(time: Signal, rng: np.random.Generator, *, low_hz: float, high_hz: float) -> Signal:
    """Waves of wandering frequency and amplitude, about 1 in size: a sum of slightly detuned sawtooth-like partials."""
    out = np.zeros_like(time)
    for _ in range(4):
        frequency = rng.uniform(low_hz, high_hz)
        drift = 0.6 * np.sin(2 * np.pi * rng.uniform(0.05, 0.4) * time + rng.uniform(0, 6.3))
        phase = 2 * np.pi * frequency * time + drift + rng.uniform(0, 6.3)
        out += 0.4 * (np.sin(phase) + 0.3 * np.sin(2 * phase))
    return out


def _disturbance(time: Signal, noise: Noise, leads: int, rng: np.random.Generator) -> Signal:
    out = noise.white_mv * rng.standard_normal((leads, len(time)))
    for lead in range(leads):
        slow = sum(np.sin(2 * np.pi * f * time + rng.uniform(0, 6.3)) for f in rng.uniform(0.08, 0.45, 3))
        out[lead] += noise.wander_mv * np.sqrt(2 / 3) * slow
        out[lead] += noise.mains_mv * np.sqrt(2) * np.sin(2 * np.pi * noise.mains_hz * time + rng.uniform(0, 6.3))
        if noise.muscle_mv:
            burst = 0.5 + np.abs(np.sin(2 * np.pi * rng.uniform(0.05, 0.2) * time + rng.uniform(0, 6.3)))
            # differencing moves white noise up, to where muscle is
            out[lead] += noise.muscle_mv * burst * np.diff(rng.standard_normal(len(time) + 1)) / np.sqrt(2)
    return out
