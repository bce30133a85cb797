"""Fit the glucose process of `inference/tables/forecast.toml` on simulated people and write its numbers there:

    python training/glucose_patients.py      # once, in an environment with the extra `glucose`
    python training/glucose_forecast.py [--write]

Patients 1 to 5 of each age group fit the numbers (least negative log likelihood of the next 24 hours' readings), 6 and
7 give the widening of each hour's interval, 1 to 7 fit the warnings; 8 to 10 are for `benchmarks/forecast.py` alone.
Half of the moments have every reading of a sensor (one in 5 minutes, with gaps), half are finger pricks, three to seven
a day. Needs scipy and scikit-learn (extra `bench`).
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
import numpy as np
from glucose_patients import WORK
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from aidpost.inference._series import Series
from aidpost.inference.forecast import HOURS, TABLE, Process, Soon, predict, soon_features, table
from aidpost.records import VitalKind

STEP_H = 5 / 60
MMOL = 18.016
# Not the sensor's noise, nor how long habits last: a week of simulated sensors would make the one nought and the other
# endless.
FITTED = ("mean", "level_sd", "slow_sd", "slow_h", "fast_sd", "fast_h", "daily_sd", "daily_width")


def people(numbers: range, file: Path = WORK / "patients.npz") -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and sensor in mmol/L, every 5 minutes, of the people with these numbers in each age group."""
    with np.load(file) as data:
        chosen = [i for i, name in enumerate(data["name"]) if int(name.split("#")[1]) in numbers]
        return [(data["truth_mg_dl"][i] / MMOL, data["sensor_mg_dl"][i] / MMOL) for i in chosen]


def moment(truth: np.ndarray, sensor: np.ndarray, now: int, dense: bool, rng: np.random.Generator) -> Series:
    """What is known at index `now` of the last week: a sensor's readings with gaps, or finger pricks."""
    start = max(now - 7 * 288, 0)
    index = np.arange(start, now + 1)
    if dense:
        kept = np.ones(index.size, dtype=bool)
        for _ in range(int(rng.integers(0, 4))):
            a = int(rng.integers(0, index.size))
            kept[a : a + int(rng.integers(3, 60))] = False
        kept[-1] = True
        return Series((now - index[kept]) * STEP_H, sensor[index[kept]])
    each = rng.integers(3, 8)
    picked = np.unique(np.append(rng.choice(index, int(each * index.size / 288), replace=False), now))
    return Series((now - picked) * STEP_H, truth[picked] * np.exp(rng.normal(0, 0.05, picked.size)))


def moments(
    numbers: range, count: int, seed: int, dense: bool | None = None
) -> tuple[list[Series], np.ndarray, np.ndarray]:
    """Known series, the true values at each of `HOURS` after them, and the readings there: a sensor's (or finger's)."""
    rng = np.random.default_rng(seed)
    all_of = people(numbers)
    known, truths, readings = [], [], []
    for k in range(count):
        truth, sensor = all_of[k % len(all_of)]
        now = int(rng.integers(2 * 288, truth.size - 289))
        is_dense = k // len(all_of) % 2 == 0 if dense is None else dense
        known.append(moment(truth, sensor, now, is_dense, rng))
        later = now + (np.array(HOURS) / STEP_H).round().astype(int)
        truths.append(truth[later])
        readings.append(sensor[later] if is_dense else truth[later] * np.exp(rng.normal(0, 0.05, later.size)))
    return known, np.array(truths), np.array(readings)


def scores(process: Process, known: list[Series], readings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised errors and standard deviations, (moments, hours), of the logarithm."""
    both = [predict(process, one, HOURS) for one in known]
    mean, sd = (np.array(column) for column in zip(*both, strict=True))
    return (np.log(readings) - mean) / sd, sd


def fit(start: Process, count: int, steps: int) -> Process:
    """The numbers with the least negative log likelihood."""
    known, _, readings = moments(range(1, 6), count, seed=1)
    readings = np.clip(readings, 2.2, None)

    def process(x: np.ndarray) -> Process:
        values = {name: float(v if name == "mean" else np.exp(v)) for name, v in zip(FITTED, x, strict=True)}
        return msgspec.structs.replace(start, **values)

    bar = tqdm(total=steps, desc="fitting", mininterval=5)

    def cost(x: np.ndarray) -> float:
        bar.update()
        try:
            z, sd = scores(process(x), known, readings)
        except np.linalg.LinAlgError:
            return 1e3
        return float(np.mean(0.5 * z**2 + np.log(sd)))

    first = np.array([getattr(start, n) if n == "mean" else np.log(getattr(start, n)) for n in FITTED])
    simplex = np.vstack([first, first + np.diag(np.where(np.array(FITTED) == "mean", 0.1, 0.3))])
    found = minimize(cost, first, method="Nelder-Mead", options={"maxfev": steps, "initial_simplex": simplex})
    bar.close()
    print(f"negative log likelihood {cost(first):.4f} -> {found.fun:.4f}")
    return process(found.x)


def widened(process: Process, count: int) -> Process:
    """Intervals that hold 94 % of the readings of people who took no part in the fit, at each hour, for a sensor's and
    for finger pricks both (split conformal, Lei et al. 2018; four points in hand, for six people are few and people
    differ)."""
    out = np.zeros(len(HOURS))
    for dense in (True, False):
        known, _, readings = moments(range(6, 8), count, 2, dense)
        z, _ = scores(process, known, readings)
        out = np.maximum(out, np.quantile(np.abs(z), 0.94, axis=0) / 1.644854)
    return msgspec.structs.replace(process, widen=tuple(round(float(w), 3) for w in out))


def watched(process: Process, truth: np.ndarray, sensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every 5 minutes of one person from the third day on: indices (n,) and features (n, 11)."""
    indices = np.arange(2 * 288, truth.size - 24)
    rows = []
    for now in indices:
        week = np.arange(max(now - 7 * 288, 0), now + 1)
        rows.append(soon_features(process, Series((now - week) * STEP_H, sensor[week])))
    return indices, np.array(rows)


def fit_soon(process: Process, low: bool, seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Soon:
    """Logistic regression for: beyond the limit at some time from half an hour to two hours on, and not yet."""
    limit = process.low_limit if low else process.high_limit
    xs, ys = [], []
    for truth, indices, features in seen:
        bad = truth < limit if low else truth > limit
        fresh = np.array([not bad[i : i + 2].any() for i in indices])
        xs.append(features[fresh])
        ys.append(np.array([bad[i + 6 : i + 25].any() for i in indices])[fresh])
    x, y = np.concatenate(xs), np.concatenate(ys)
    mean, scale = x.mean(0), x.std(0)
    found = LogisticRegression(C=0.1, max_iter=2000).fit((x - mean) / scale, y)
    numbers = [tuple(round(float(v), 4) for v in column) for column in (mean, scale, found.coef_[0])]
    return Soon(*numbers, round(float(found.intercept_[0]), 4))


def write(process: Process) -> None:
    """Put the numbers into the table, all else as it stands."""
    head, section, rest = re.split(r"(?m)^(\[glucose\]\n)", TABLE.read_text())
    numbers = {name: round(getattr(process, name), 4) for name in FITTED} | {"widen": list(process.widen)}
    for name in ("soon_low", "soon_high"):
        inner = msgspec.to_builtins(getattr(process, name))
        numbers[name] = (
            "{ " + ", ".join(f"{k} = {list(v) if isinstance(v, tuple) else v}" for k, v in inner.items()) + " }"
        )
    for name, value in numbers.items():
        print(f"{name} = {value}")
        rest, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", rest, count=1)
        if not found:
            rest = rest.replace("readings = 4\n", f"readings = 4\n{name} = {value}\n", 1)
    TABLE.write_text(head + section + rest)
    print(f"wrote {TABLE.name}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the numbers into the table")
    parser.add_argument("--moments", type=int, default=300)
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    process = fit(table()[VitalKind.GLUCOSE], arguments.moments, arguments.steps)
    process = widened(process, 600)
    seen = [(truth, *watched(process, truth, sensor)) for truth, sensor in tqdm(people(range(1, 8)), desc="warnings")]
    process = msgspec.structs.replace(
        process, soon_low=fit_soon(process, True, seen), soon_high=fit_soon(process, False, seen)
    )
    if arguments.write:
        write(process)


if __name__ == "__main__":
    main()
