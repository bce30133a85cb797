"""Recordings of CinC 2017 rebuilt beat by beat as other patients would have given them, ectopic beats and all.

A recording labelled normal or AF lends its beats, wave by wave, to a rhythm that is drawn at random: sinus rhythm that
breathes, drifts and pauses, with atrial beats alone, in every second or third place, in runs, or in the majority, their
P waves turned, flattened, moved or gone; and ventricular beats alone, in turn with normal ones, in pairs and in runs,
late, between two normal beats, or fused with one. Ventricular waves are those of DS1, stretched, scaled and turned
over, or are made of bells. Some patients are given a bundle branch block. In fibrillation no beat is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aidpost.kernels import rpeaks

FS_HZ = 300.0  # that of CinC 2017
LEAD_IN_S, V_BEFORE_S, V_AFTER_S = 0.26, 0.14, 0.50
NORMAL, ATRIAL, VENTRICULAR, FUSED = range(4)

_LEAD_IN, _V_BEFORE, _V_AFTER = (round(s * FS_HZ) for s in (LEAD_IN_S, V_BEFORE_S, V_AFTER_S))
_P_END = round(0.055 * FS_HZ)  # before the R-peak
_FEWEST = 8

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Random = np.random.Generator


@dataclass(frozen=True)
class Habit:
    """How a kind of ectopic beat comes in a patient: `share` of the normal beats is followed by an event of one of
    `lengths` beats, then at least `rest` normal ones; the first comes after `coupling` of the normal interval, the next
    after `cycle`, and the normal rhythm goes on after `pause`."""

    share: float
    lengths: tuple[int, ...]
    rest: int
    coupling: float
    cycle: float
    pause: float


NEVER = Habit(0.0, (1,), 0, 1.0, 1.0, 1.0)


def atrial_habit(rng: Random) -> Habit:
    """Of atrial ectopic beats."""
    coupling, cycle = rng.uniform(0.45, 0.88), rng.uniform(0.45, 0.85)
    pause = rng.uniform(1.0, 1.3) if rng.random() < 0.85 else rng.uniform(1.3, 3.0)
    kind = rng.choice(6, p=(0.30, 0.27, 0.13, 0.10, 0.12, 0.08))
    if kind == 0:
        return NEVER
    if kind == 1:
        return Habit(float(rng.choice((0.02, 0.06, 0.15))), (1,), 1, coupling, cycle, pause)
    if kind == 2:
        return Habit(float(rng.uniform(0.3, 1.0)), (1,), int(rng.integers(1, 4)), coupling, cycle, pause)
    if kind == 3:
        return Habit(float(rng.choice((0.05, 0.2))), (1, 1, 2, 2, 3), 1, coupling, cycle, pause)
    if kind == 4:
        return Habit(float(rng.choice((0.03, 0.1))), (1, 3, 6, 12, 25), 3, coupling, cycle, pause)
    return Habit(float(rng.uniform(0.6, 1.0)), (1, 2, 3, 5, 8), 1, coupling, cycle, pause)


def ventricular_habit(rng: Random) -> Habit:
    """Of ventricular ectopic beats; the pause makes up for coming early, unless the beat falls in between."""
    coupling, cycle = rng.uniform(0.42, 0.95), rng.uniform(0.4, 0.8)
    pause = 2.0 - coupling
    if rng.random() < 0.12:  # late: an escape, or a rhythm of its own
        coupling, cycle, pause = rng.uniform(0.95, 1.6), rng.uniform(0.7, 1.1), 1.0
    elif rng.random() < 0.12:
        coupling, pause = rng.uniform(0.42, 0.6), 0.0  # interpolated: what is left of the normal interval
    kind = rng.choice(5, p=(0.30, 0.32, 0.16, 0.12, 0.10))
    if kind == 0:
        return NEVER
    if kind == 1:
        return Habit(float(rng.choice((0.02, 0.06, 0.15))), (1,), 1, coupling, cycle, pause)
    if kind == 2:
        return Habit(float(rng.uniform(0.3, 1.0)), (1,), int(rng.integers(1, 4)), coupling, cycle, pause)
    if kind == 3:
        return Habit(float(rng.choice((0.05, 0.2))), (1, 1, 2, 2, 3), 1, coupling, cycle, pause)
    return Habit(float(rng.choice((0.03, 0.1))), (1, 3, 4, 8), 3, coupling, cycle, pause)


def sequence(count: int, atrial: Habit, ventricular: Habit, fused: float, rng: Random) -> list[tuple[int, float]]:
    """(kind, interval before it in normal intervals) of `count` beats."""
    out: list[tuple[int, float]] = [(NORMAL, 1.0)]
    resting, after = 2, 1.0
    while len(out) < count:
        chance = rng.random()
        habit, kind = (atrial, ATRIAL) if rng.random() < 0.5 else (ventricular, VENTRICULAR)
        # both kinds are tried every second time: twice the share
        if resting <= 0 and chance < 2.0 * habit.share:
            for i in range(int(rng.choice(habit.lengths))):
                ahead = habit.coupling if i == 0 else habit.cycle
                out.append((kind, ahead * float(np.exp(rng.normal(0.0, 0.035)))))
            first = out[-1][1]
            after = habit.pause if habit.pause > 0.0 else 1.0 - first
            resting = habit.rest
        elif chance < fused and after == 1.0:
            out.append((FUSED, float(rng.uniform(0.88, 1.0))))
        else:
            out.append((NORMAL, after))
            resting, after = resting - 1, 1.0
    return out[:count]


def sinus(count: int, middle: float, rng: Random) -> Array:
    """(count,) normal intervals, seconds: breathing, drift, small change from beat to beat, and seldom pauses."""
    middle = float(np.clip(middle * np.exp(rng.normal(0.0, 0.12)), 0.45, 1.4))
    time = np.arange(count) * middle
    breath = rng.choice((0.01, 0.04, 0.10, 0.18)) * np.sin(
        2 * np.pi * rng.uniform(0.15, 0.35) * time + rng.uniform(0, 6)
    )
    drift = rng.uniform(0.0, 0.12) * np.sin(2 * np.pi * time / rng.uniform(20.0, 80.0) + rng.uniform(0, 6))
    out = middle * np.exp(breath + drift + rng.normal(0.0, rng.choice((0.005, 0.015, 0.03)), count))
    if rng.random() < 0.12:  # beats that are not conducted
        out *= np.where(rng.random(count) < rng.choice((0.02, 0.1)), rng.uniform(1.5, 2.2), 1.0)
    return np.asarray(out)


def rebuilt(
    wave: Array, shapes: Sequence[Array], fibrillating: bool, seconds: float, rng: Random
) -> tuple[Array, Array, Ints] | None:
    """A clean recording (n,) at 300 Hz lends its beats -> (samples, beats in s, labels); None where it has too few."""
    at = rpeaks.detect(wave, FS_HZ).sample
    at = at[(at > _LEAD_IN) & (at < wave.size - _LEAD_IN)]
    if at.size < _FEWEST:
        return None
    own_rr = np.diff(at) / FS_HZ
    size = float(np.median([np.ptp(wave[p - 20 : p + 20]) for p in at]))
    count = int(seconds / max(float(np.median(own_rr)), 0.4))
    lending = np.flatnonzero(own_rr > 0.4)  # the others have no room for a whole beat
    if lending.size < _FEWEST:
        return None
    number = lending[np.arange(count) % lending.size]
    base = own_rr[number] if fibrillating else sinus(count, float(np.median(own_rr)), rng)
    beats = sequence(count, NEVER if fibrillating else atrial_habit(rng), ventricular_habit(rng), _fused(rng), rng)
    make = _Waves(wave, at, size, shapes, rng)
    out = np.zeros(round((2.0 + sum(max(a, 0.3) * b for (_, a), b in zip(beats, base, strict=True))) * FS_HZ))
    places, labels, here = [], [], _LEAD_IN + 5
    for i, ((kind, ahead), rr) in enumerate(zip(beats, base, strict=True)):
        if i:
            here += round(max(ahead * rr, 0.22) * FS_HZ)
        if here + _LEAD_IN >= out.size:
            break
        segment = make.beat(kind, int(number[i]))[: out.size - here + _LEAD_IN]
        start = here - _LEAD_IN
        out[start : start + segment.size] += segment * _edges(segment.size, 10)
        places.append(here)
        labels.append(kind)
    stop = min(places[-1] + _LEAD_IN, out.size)
    return out[:stop], np.array(places) / FS_HZ, np.array(labels)


def _fused(rng: Random) -> float:
    return float(rng.choice((0.0, 0.0, 0.03)))


class _Waves:
    """The waves of one patient's beats: from before the P wave to before the next one, 300 Hz."""

    def __init__(self, wave: Array, at: Ints, size: float, shapes: Sequence[Array], rng: Random) -> None:
        self.wave, self.at, self.size, self.rng = wave, at, size, rng
        # a patient has one kind of ventricular beat, or two
        self.own = [
            shapes[int(rng.integers(len(shapes)))] if len(shapes) and rng.random() < 0.6 else bells(rng) for _ in "ab"
        ]
        self.gain = [float(np.exp(rng.normal(0.0, 0.3)) * rng.choice((-1.0, 1.0))) for _ in "ab"]
        self.stretch = [rng.uniform(0.85, 1.25) for _ in "ab"]
        self.second = rng.choice((0.0, 0.0, 0.15))
        self.p_gain = float(rng.choice((1.0, rng.uniform(-1.0, 0.3), 0.0, rng.uniform(0.3, 1.6))))
        self.p_shift = int(rng.integers(-12, 13))
        self.aberrant = float(rng.choice((0.0, 0.0, 0.0, 0.3)))
        self.block = _block(size, rng) if rng.random() < 0.15 else np.zeros(0)

    def beat(self, kind: int, number: int) -> Array:
        segment = self.wave[self.at[number] - _LEAD_IN : self.at[number + 1] - _LEAD_IN].copy()
        if kind in (NORMAL, ATRIAL, FUSED) and self.block.size:
            count = min(self.block.size, segment.size - _LEAD_IN)
            segment[_LEAD_IN : _LEAD_IN + count] += self.block[:count]
        if kind == ATRIAL:
            segment = self._atrial(segment)
        elif kind != NORMAL:
            segment = self._ventricular(segment, self.rng.uniform(0.35, 0.65) if kind == FUSED else 1.0)
        return segment

    def _atrial(self, segment: Array) -> Array:
        stop = _LEAD_IN - _P_END
        chord = np.linspace(segment[:6].mean(), segment[stop], stop)
        bump = np.roll((segment[:stop] - chord) * np.hanning(stop) ** 0.25, self.p_shift) * self.p_gain
        segment[:stop] = chord + bump
        if self.rng.random() < self.aberrant:
            block = _block(self.size, self.rng)[: segment.size - _LEAD_IN]
            segment[_LEAD_IN : _LEAD_IN + block.size] += 0.7 * block
        return segment

    def _ventricular(self, segment: Array, part: float) -> Array:
        which = int(self.rng.random() < self.second)
        shape, stretch = self.own[which], self.stretch[which] * self.rng.uniform(0.96, 1.04)
        count = round(shape.size * stretch)
        wave = np.interp(np.linspace(0, shape.size - 1, count), np.arange(shape.size), shape)
        wave *= self.size * self.gain[which] * self.rng.uniform(0.92, 1.08) * _edges(count, 12)
        first = _LEAD_IN - round(_V_BEFORE * stretch)
        out = np.zeros(max(segment.size, first + count))
        out[: segment.size] = segment
        if part == 1.0 and self.rng.random() < 0.7:  # no P wave before it
            out[:first] *= np.linspace(1.0, 0.0, first)
        out[first : first + count] *= 1.0 - part * _edges(count, 12)
        out[first : first + count] += part * wave
        return out


def bells(rng: Random) -> Array:
    """A ventricular wave that nobody had, in units of the patient's QRS: one to three bells and a T wave against
    them."""
    time = (np.arange(_V_BEFORE + _V_AFTER) - _V_BEFORE) / FS_HZ
    width = rng.uniform(0.026, 0.048)
    out = np.exp(-0.5 * ((time - rng.uniform(-0.01, 0.03)) / width) ** 2)
    if rng.random() < 0.6:
        out -= rng.uniform(0.2, 1.0) * np.exp(-0.5 * ((time - rng.uniform(0.07, 0.12)) / width) ** 2)
    if rng.random() < 0.5:
        out += rng.uniform(-0.6, 0.6) * np.exp(-0.5 * ((time + rng.uniform(0.02, 0.06)) / (0.6 * width)) ** 2)
    t_at, t_width = rng.uniform(0.25, 0.36), rng.uniform(0.05, 0.09)
    out -= rng.uniform(0.05, 0.6) * np.exp(-0.5 * ((time - t_at) / t_width) ** 2)
    return np.asarray(out / max(float(np.ptp(out)), 1e-6) * rng.uniform(0.8, 1.8))


def _block(size: float, rng: Random) -> Array:
    """What a bundle branch block adds from the R-peak on: a late wave, and the T wave turned against it."""
    time = np.arange(round(0.45 * FS_HZ)) / FS_HZ
    sign = rng.choice((-1.0, 1.0))
    late = np.exp(-0.5 * ((time - rng.uniform(0.045, 0.075)) / rng.uniform(0.014, 0.024)) ** 2)
    turned = np.exp(-0.5 * ((time - rng.uniform(0.25, 0.32)) / 0.06) ** 2)
    return np.asarray(size * sign * (rng.uniform(0.3, 0.8) * late - rng.uniform(0.1, 0.3) * turned))


def _edges(count: int, ramp: int) -> Array:
    """A trapezium of ones with ramps."""
    rise = np.minimum(np.arange(count), np.arange(count)[::-1]) / ramp
    return np.asarray(np.minimum(rise, 1.0))
