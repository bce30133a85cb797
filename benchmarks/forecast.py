"""The forecast beside persistence and linear extrapolation, on simulated people that nothing was fitted on.

    python training/glucose_patients.py      # once, in an environment with the extra `glucose`
    OMP_NUM_THREADS=1 python benchmarks/forecast.py

Prints, by hours ahead and by how glucose is measured: root mean square error of each, skill (1 - squared error by
persistence's), and how many of the true values lie in the 90 % interval; then warnings: how many episodes under 3.9 and
over 13.9 mmol/L were announced half an hour ahead or more, and how many false alarms a day that cost; then blood
pressure on a simulator of its own (a person's level, a daily wave, drift over days, readings every few hours with
gaps); then time. Nothing here was measured on patients.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "training"))

import numpy as np
from glucose_forecast import STEP_H, moments, people, watched

from aidpost.inference._series import Series
from aidpost.inference.alerts import Alert, Limits, step
from aidpost.inference.forecast import HOURS, Process, predict, table
from aidpost.records import VitalKind

JUDGED = range(8, 11)
Peer = Callable[[Series], np.ndarray]


def persistence(known: Series) -> np.ndarray:
    """The last reading goes on."""
    return np.full(len(HOURS), known.value[-1])


def linear(known: Series) -> np.ndarray:
    """The line through the last half hour (at least two readings), kept within what is possible."""
    recent = known.age_h <= max(0.5, float(known.age_h[-2]))
    slope = np.polyfit(-known.age_h[recent], known.value[recent], 1)[0]
    return np.clip(known.value[-1] + slope * np.array(HOURS), 2.0, 30.0)


def table_of(process: Process, known: list[Series], truth: np.ndarray, to: Callable[[np.ndarray], np.ndarray]) -> None:
    """Print one table: errors in the kind's unit."""
    both = [predict(process, one, HOURS) for one in known]
    mean, sd = (np.array(column) for column in zip(*both, strict=True))
    sd = sd * np.array(process.widen)
    inside = (truth >= to(mean - 1.644854 * sd)) & (truth <= to(mean + 1.644854 * sd))
    rows = {"forecast": to(mean)}
    rows |= {peer.__name__: np.array([peer(one) for one in known]) for peer in (persistence, linear)}
    errors = {name: np.sqrt(((row - truth) ** 2).mean(0)) for name, row in rows.items()}
    print("| hours ahead | " + " | ".join(f"{name} RMSE" for name in rows) + " | skill | in the 90 % interval |")
    print("|---" * 6 + "|")
    for i, hour in enumerate(HOURS):
        skill = 1 - (errors["forecast"][i] / errors["persistence"][i]) ** 2
        cells = " | ".join(f"{row[i]:.2f}" for row in errors.values())
        print(f"| {hour:g} | {cells} | {skill:+.2f} | {inside[:, i].mean():.1%} |")


def episodes(bad: np.ndarray, least: int = 3, apart: int = 6) -> list[int]:
    """Where an episode begins: 15 minutes or more of it, half an hour or more after the one before."""
    starts, last_bad = [], -apart
    for i in range(bad.size - least + 1):
        if bad[i] and i - last_bad >= apart and bad[i : i + least].all():
            starts.append(i)
        if bad[i]:
            last_bad = i
    return starts


def warnings_of(
    process: Process, chance: float, low: bool, seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> tuple[int, int, float, float]:
    """Episodes, those announced, median minutes of notice, and false alarms a day, at a chance that raises the alarm.

    Announced: the alarm was on at some time from two hours to half an hour before. False: nothing in the three hours
    after it came on.
    """
    soon = process.soon_low if low else process.soon_high
    assert soon is not None
    limits = Limits(raise_at=(chance,), clear_at=(chance * 0.6,), clear_after=3)
    announced, total, notices, false_alarms, days = 0, 0, [], 0, 0.0
    for truth, indices, features in seen:
        alert, raised = Alert(), np.zeros(truth.size, dtype=bool)
        for now, row in zip(indices, features, strict=True):
            alert = step(alert, soon.chance(row), now * 5.0, limits)
            raised[now] = alert.level > 0
        bad = truth < process.low_limit if low else truth > process.high_limit
        for start in (s for s in episodes(bad) if indices[0] + 24 <= s <= indices[-1]):
            total += 1
            before = np.flatnonzero(raised[start - 24 : start - 5])
            if before.size:
                announced += 1
                notices.append((24 - before[0]) * 5.0)
        onsets = np.flatnonzero(raised[1:] & ~raised[:-1]) + 1
        false_alarms += sum(not bad[onset : onset + 36].any() for onset in onsets)
        days += indices.size * STEP_H / 24
    return total, announced, float(np.median(notices)) if notices else 0.0, false_alarms / days


def _pressure(hours: np.ndarray, level: float, dip: float, phase: float, walk: np.ndarray) -> np.ndarray:
    return level - dip * np.cos(2 * np.pi * (hours + phase) / 24) + np.interp(hours / 24, np.arange(walk.size), walk)


def pressures(count: int, process: Process) -> tuple[list[Series], np.ndarray]:
    """Home readings of simulated people and their true mean pressure later: not the process's own covariance."""
    rng = np.random.default_rng(6)
    known, truth = [], []
    for _ in range(count):
        level, dip, phase = rng.normal(138, 15), rng.uniform(0, 14), rng.uniform(0, 24)
        walk = np.cumsum(rng.normal(0, 1.2, 34)) * 0.9
        hours = np.sort(rng.choice(np.arange(0.0, 29 * 24, 4.0), int(rng.integers(20, 90)), replace=False))
        hours = np.append(hours, 29 * 24.0)

        person = (level, dip, phase, walk)
        readings = _pressure(hours, *person) + rng.normal(0, 7, hours.size) + rng.normal(0, 3) * (hours % 24 == 8)
        known.append(Series(29 * 24.0 - hours, readings))
        truth.append(_pressure(29 * 24.0 + np.array(HOURS), *person) + rng.normal(0, 7, len(HOURS)))
    return known, np.array(truth)


def main() -> None:
    """Print all tables."""
    glucose = table()[VitalKind.GLUCOSE]
    for dense, words in ((True, "a sensor, every 5 minutes with gaps"), (False, "finger pricks, 3 to 7 a day")):
        known, truth, _ = moments(JUDGED, 900, 3, dense)
        print(f"\nGlucose, mmol/L: {words} ({len(known)} moments of 9 people)\n")
        table_of(glucose, known, truth, np.exp)
    print("\nWarnings from a sensor, half an hour ahead or more\n")
    print("| of | chance | episodes | announced | median notice, min | false alarms a day |\n|---|---|---|---|---|---|")
    seen = [(truth, *watched(glucose, truth, sensor)) for truth, sensor in people(JUDGED)]
    for low, words in ((True, "under 3.9 mmol/L"), (False, "over 13.9 mmol/L")):
        for chance in (0.1, 0.15, 0.2, 0.3, 0.4):
            total, announced, notice, false = warnings_of(glucose, chance, low, seen)
            print(f"| {words} | {chance} | {total} | {announced / max(total, 1):.0%} | {notice:.0f} | {false:.2f} |")
    known, truth = pressures(900, table()[VitalKind.SYSTOLIC_BP])
    print("\nSystolic blood pressure, mm[Hg], a reading (900 simulated people)\n")
    table_of(table()[VitalKind.SYSTOLIC_BP], known, truth, lambda x: x)
    known, _, _ = moments(JUDGED, 90, 5)
    start = time.process_time()
    for one in known:
        predict(glucose, one, HOURS)
    print(f"\none forecast from a week of readings: {(time.process_time() - start) / len(known) * 1e3:.2f} ms CPU")


if __name__ == "__main__":
    main()
