"""Simulated people with type 1 diabetes, to fit and to judge the forecast: who eats what they like and counts it badly.

    python training/glucose_patients.py [--days 8] [--out FILE]

The UVA/Padova patients of PyPI `simglucose` (10 adults, 10 adolescents, 10 children), its random meals and its CGM
error model. The insulin is ours: basal as needed give or take 15 %, a bolus for each meal after counting a fifth too
little give or take a third, a correction above 150 mg/dL, one bolus in twelve forgotten, one in four up to 30 minutes
late; who feels low (under 60) mostly eats 15 g within a quarter of an hour. So sugar runs both high and low, as it does
in people. Needs the extra `glucose`, in an environment of its own: simglucose wants setuptools under 81.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

WORK = Path(__file__).resolve().parent / "work" / "glucose"
KINDS = ("adult", "adolescent", "child")
START = datetime(2026, 1, 1)
MINUTES = 1440


def simulate(name: str, days: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One person: glucose every 5 minutes and what a sensor under the skin shows of it, both (n,) in mg/dL. The first
    day is left out, so that the start does not show."""
    import pandas as pd
    from simglucose.controller.basal_bolus_ctrller import CONTROL_QUEST
    from simglucose.patient.t1dpatient import Action, T1DPatient
    from simglucose.sensor.cgm import CGMSensor
    from simglucose.simulation.scenario_gen import RandomScenario

    rng = np.random.default_rng(seed)
    patient = T1DPatient.withName(name, random_init_bg=True, seed=seed)
    basal = patient._params.u2ss * patient._params.BW / 6000
    patient._params = SimpleNamespace(
        **patient._params.to_dict()
    )  # the same numbers, nine times as fast as from pandas
    quest = pd.read_csv(CONTROL_QUEST).set_index("Name").loc[name]
    meals = RandomScenario(START, seed=seed)
    meals.random_gen = np.random.RandomState(seed)
    sensor = CGMSensor.withName("GuardianRT", seed=seed)
    boluses: dict[int, float] = {}
    today, truth, shown = basal, [], []
    for minute in range((days + 1) * MINUTES):
        if minute % MINUTES == 0:
            today = basal * np.exp(rng.normal(0, 0.15))
        carbohydrate = meals.get_action(START + pd.Timedelta(minutes=minute).to_pytimedelta()).meal
        eaten = carbohydrate or (15 if patient.observation.Gsub < 60 and rng.random() < 0.08 else 0)
        if carbohydrate and rng.random() > 1 / 12:
            counted = carbohydrate * np.exp(rng.normal(-0.2, 0.33))
            now = patient.observation.Gsub
            units = counted / quest.CR + max(now - 140, 0) / quest.CF * (now > 150)
            late = int(rng.uniform(0, 30)) if rng.random() < 0.25 else 0
            boluses[minute + late] = boluses.get(minute + late, 0.0) + units
        patient.step(Action(CHO=eaten, insulin=today + boluses.pop(minute, 0.0)))
        if minute % 5 == 4 and minute >= MINUTES:
            truth.append(patient.observation.Gsub)
            shown.append(sensor.measure(patient))
    return np.array(truth), np.array(shown)


def main() -> None:
    """Command line."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--out", type=Path, default=WORK / "patients.npz")
    arguments = parser.parse_args()
    names = [f"{kind}#{number:03d}" for number in range(1, 11) for kind in KINDS]
    people = {name: simulate(name, arguments.days, seed) for seed, name in enumerate(tqdm(names, mininterval=5), 1)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    truth, shown = (np.stack([people[name][i] for name in names]).astype(np.float32) for i in (0, 1))
    np.savez_compressed(arguments.out, name=np.array(names), truth_mg_dl=truth, sensor_mg_dl=shown)
    low, high = float((truth < 70).mean()), float((truth > 180).mean())
    print(f"{len(names)} people, {arguments.days} days each: {low:.1%} of the time under 70 mg/dL, {high:.1%} over 180")


if __name__ == "__main__":
    main()
