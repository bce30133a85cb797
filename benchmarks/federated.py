"""Twenty clinics that teach a head together, beside each alone and all their recordings in one place.

    python benchmarks/federated.py [--data FOLDER] [--work FOLDER] [--seeds 4] [--task TASK] [--way ROW] [--wide N]
    python benchmarks/federated.py --first 100 --seeds 3      the divisions on which settings were chosen
    python benchmarks/federated.py --device      what learning takes on this machine, and a secure round on the wire

Features come from the shipped models, once, and are kept in the work folder. Fundus: `fundus-dr-open`, which learned
from one Indian hospital, and clinics made of EyePACS patients, whom it has never seen. ECG: a new head on
`ecg-rhythm`'s features, without the model's own logits; the network has learned from these recordings, so the
figures say what part of a pooled head's skill clinics reach together, not how good a head is on new patients.

Clinics are of uneven size, grade or rhythm mix, camera or signal quality; a quarter of the patients are held out of
all; 30 % of the clinics are away in any round, and what they would have said is not waited for. Steps, rates and ridges
were chosen on divisions 100 to 102, on the same recordings; divisions 0 and up are reported. `--wide` gives the head N
random cosine features besides (Rahimi and Recht, NIPS 2007).
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aidpost.inference.cases import photo_example
from aidpost.inference.head import Cases, extended, fit
from aidpost.inference.model import SHIPPED, load_model
from aidpost.inference.private import Recipe, epsilon, epsilon_apart, noise_for, spent_by, train
from aidpost.records import Timestamp, encode
from aidpost.sync import rounds as wire
from aidpost.sync import secure_sum
from aidpost.sync.hub.aggregate import Aggregator, Controls, corrected
from aidpost.sync.secure_sum import Secrets

CLINICS, ROUNDS, AWAY, POISONED = 20, 15, 0.3, 2
EPSILON, DELTA = 8.0, 1e-5
LEAST_ANSWERS = 10
RIDGE = {"fundus": 0.0003, "ecg": 0.03}
PROX = {"fundus": {"pull": 0.02}, "ecg": {"pull": 0.2, "steps": 80, "rate": 4.0}}
SHARED = {"fundus": 12.0, "ecg": 2.0}
"""The ridge, of pooled training and of rounds, FedProx's settings, and the rate of private single steps with noise in
shares that were best on divisions 100 to 102."""


@dataclass
class Task:
    """One modality: all clinics' cases, the held-out ones, and what is measured on them."""

    name: str
    kind: str
    clinics: list[Cases]
    held: Cases
    measure: Callable[[np.ndarray, np.ndarray], float]

    def judge(self, weights: np.ndarray) -> float:
        """The measure of a head on the held-out cases."""
        logits = self.held.logits + extended(self.held.features) @ weights.T
        return self.measure(logits, self.held.labels)


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve; ties count half."""
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inverse]
    positive = int(truth.sum())
    return float((rank[truth].sum() - positive * (positive + 1) / 2) / (positive * (truth.size - positive)))


def referable(logits: np.ndarray, labels: np.ndarray) -> float:
    """AUC of grade 2 or worse."""
    return auc(labels >= 2, logits[:, 1])


def rhythms(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean AUC of each rhythm against the rest."""
    return float(np.mean([auc(labels == one, logits[:, one]) for one in range(logits.shape[1])]))


def fundus_table(data: Path, work: Path, tiny: bool) -> tuple[Cases, np.ndarray]:
    """EyePACS photographs as cases, and of each patient what clinics differ in: (camera, any poor, any referable)."""
    with (data / "fundus" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] != "IDRiD"]
    rows = rows[:: 12 if tiny else 1]

    def make() -> tuple[np.ndarray, np.ndarray]:
        model = load_model(SHIPPED / "fundus-dr-open", check=False)
        made = [photo_example(model, (data / "fundus" / row["file"]).read_bytes()) for row in rows]
        return np.stack([one[0] for one in made]), np.stack([one[1] for one in made])

    features, logits = kept(work / f"fundus-{len(rows)}.npz", make)
    labels = np.array([int(row["dr_grade"]) for row in rows])
    patients = np.unique([row["patient"] for row in rows], return_inverse=True)[1]
    traits = np.zeros((patients.max() + 1, 3), dtype=int)
    for row, patient, label in zip(rows, patients, labels, strict=True):
        one = (row["dataset"] == "EyePACS-raw", row["eyeq_quality"] == "2", label >= 2)
        traits[patient] = np.maximum(traits[patient], one)
    return Cases(features, logits, labels, patients), traits


def ecg_table(data: Path, work: Path, tiny: bool) -> tuple[Cases, np.ndarray]:
    """CinC 2017 recordings as cases of a new head; (long recording, noisy, not sinus) of each."""
    from aidpost.inference._rhythm import model_windows

    with np.load(data / "ecg/cinc2017/cinc2017.npz") as file:
        counts, offset = file["signal_uv"], file["offset"]
        labels = np.array(["NAO~".index(one) for one in file["label"]])
    chosen = np.arange(labels.size)[:: 12 if tiny else 1]

    def make() -> tuple[np.ndarray, np.ndarray]:
        model = load_model(SHIPPED / "ecg-rhythm", check=False)
        out = []
        for i in chosen:
            windows = model_windows(model, counts[offset[i] : offset[i + 1]] / 1000.0, 300.0)
            out.append(np.concatenate([model.features(model.run(one[None])) for one in windows]).mean(axis=0))
        return np.stack(out), np.zeros((len(out), 4))

    features, logits = kept(work / f"ecg-{len(chosen)}.npz", make)
    labels = labels[chosen]
    long = np.diff(offset)[chosen] > 300 * 31
    traits = np.stack((long, labels == 3, labels != 0), axis=1).astype(int)
    return Cases(features, logits, labels, np.arange(labels.size)), traits


def kept(path: Path, make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits from the file, or made and put there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        features, logits = make()
        np.savez(path, features=features, logits=logits)
    with np.load(path) as file:
        return file["features"], file["logits"]


def widened(cases: Cases, number: int) -> Cases:
    """With so many random cosine features of the features besides."""
    if not number:
        return cases
    rng = np.random.default_rng(0)
    turn, phase = rng.normal(size=(cases.features.shape[1], number)), rng.uniform(0, 2 * np.pi, number)
    more = np.sqrt(2 / number) * np.cos(cases.features @ turn + phase)
    return replace(cases, features=np.concatenate((cases.features, more), axis=1))


def divide(cases: Cases, traits: np.ndarray, seed: int) -> tuple[list[Cases], Cases]:
    """Patients to clinics, each with its own size and taste in every trait; and the held-out quarter."""
    rng = np.random.default_rng(seed)
    pull = rng.lognormal(0.0, 0.8, CLINICS)
    # of one trait clinics have odds between a sixth and six times those of all patients
    odds = np.exp(rng.uniform(-1.8, 1.8, (CLINICS, traits.shape[1])))
    held, home = rng.random(len(traits)) < 0.25, np.empty(len(traits), dtype=int)
    for patient, trait in enumerate(traits):
        chance = pull * np.where(trait, odds, 1.0).prod(axis=1)
        home[patient] = rng.choice(CLINICS, p=chance / chance.sum())
    home[held] = -1
    return [cases.take(home[cases.patients] == one) for one in range(CLINICS)], cases.take(held[cases.patients])


@dataclass
class Way:
    """How the clinics work together."""

    recipe: Recipe
    strategy: str
    poisoned: int = 0
    shared: bool = False  # noise in shares, under secure aggregation


def together(task: Task, way: Way, seed: int) -> tuple[float, int]:
    """The measure after the rounds, and the bytes of one answer."""
    rng = np.random.default_rng(1000 + seed)
    shape = (task.held.logits.shape[1], task.held.features.shape[1] + 1)
    steps = way.recipe.steps
    shared = Aggregator(way.strategy, np.zeros(shape[0] * shape[1]), poisoned=POISONED, steps=steps)
    robust = way.strategy == "geometric-median"
    controls = Controls(robust=robust) if corrected(way.strategy, steps) else None
    hostile = set(rng.choice(CLINICS, way.poisoned, replace=False).tolist())
    size = 0
    for _ in range(ROUNDS):
        here = np.flatnonzero(rng.random(CLINICS) >= AWAY)
        if len(here) < LEAST_ANSWERS:
            continue
        # with the sum alone visible, each device adds its part of the noise of the least sum that is opened
        noise = way.recipe.noise / np.sqrt(LEAST_ANSWERS) if way.shared else way.recipe.noise
        recipe = replace(way.recipe, noise=noise)
        others = [None if controls is None else controls.correction(str(one), shared.weights.size) for one in here]
        answers = [
            train(
                recipe, task.clinics[one], shared.weights.reshape(shape), rng, None if c is None else c.reshape(shape)
            )
            for one, c in zip(here, others, strict=True)
        ]
        changes = np.stack([one.change.ravel() for one in answers])
        # a hostile device pulls the other way, ten times as hard, and claims a thousand patients
        bad = np.array([one in hostile for one in here])
        changes[bad] *= -10
        patients = np.where(bad, 1000.0, [one.patients for one in answers])
        if controls is not None:
            came = {str(one): (change, float(n)) for one, change, n in zip(here, changes, patients, strict=True)}
            controls.note(came, recipe.steps * recipe.rate)
        shared.take(changes, patients)
        size = answers[0].to_vector().astype("<f4").nbytes
    return task.judge(shared.weights.reshape(shape)), size


def ways_of(task: Task, noise: float) -> dict[str, Way]:
    """The ways by the table's rows."""
    many = Recipe(task.kind, steps=40, rate=4.0, clip=1e6, ridge=RIDGE[task.name])
    single = Recipe(task.kind, steps=1, rate=2.0, clip=1.0, noise=noise, ridge=RIDGE[task.name])
    shares = replace(single, rate=SHARED[task.name])
    plain = replace(many, rate=2.0, ridge=0.0)
    return {
        "FedAvg, no ridge": Way(plain, "fedavg"),
        "SCAFFOLD, no ridge": Way(plain, "scaffold"),
        "FedProx, no ridge": Way(replace(plain, **PROX[task.name]), "fedavg"),
        "FedAvg": Way(many, "fedavg"),
        "FedAvgM": Way(replace(many, steps=10, rate=1.0), "fedavgm"),
        "SCAFFOLD": Way(many, "scaffold"),
        "FedAdam": Way(many, "fedadam"),
        "geometric median": Way(many, "geometric-median"),
        "trimmed mean": Way(many, "trimmed-mean"),
        "FedAvg, 2 poisoned": Way(many, "fedavg", poisoned=POISONED),
        "geometric median, 2 poisoned": Way(many, "geometric-median", poisoned=POISONED),
        "trimmed mean, 2 poisoned": Way(many, "trimmed-mean", poisoned=POISONED),
        "Krum, 2 poisoned": Way(many, "krum", poisoned=POISONED),
        "private, noise in shares": Way(shares, "fedavgm", shared=True),
        "the same without noise": Way(replace(shares, noise=0.0), "fedavgm", shared=True),
        "private, noise in full": Way(single, "fedavgm"),
        "... geometric median": Way(single, "geometric-median"),
        "... geometric, 2 poisoned": Way(single, "geometric-median", poisoned=POISONED),
        "... trimmed mean": Way(replace(single, rate=4.0), "trimmed-mean"),
        "... trimmed, 2 poisoned": Way(replace(single, rate=4.0), "trimmed-mean", poisoned=POISONED),
    }


def run(task: Task, seed: int, noise: float, only: list[str] | None = None) -> dict[str, float]:
    """All ways on one division, or those named."""
    kind, zero = task.kind, np.zeros((task.held.logits.shape[1], task.held.features.shape[1] + 1))
    whole = Cases(
        *(np.concatenate([getattr(one, name) for one in task.clinics]) for name in ("features", "logits", "labels")),
        np.concatenate([one.patients for one in task.clinics]),
    )
    out = {"no head": task.judge(zero)}
    alone = [task.judge(fit(kind, one, 0.03)) for one in task.clinics]
    out["alone"] = float(np.mean(alone))
    out["pooled"] = task.judge(fit(kind, whole, RIDGE[task.name]))
    for name, way in ways_of(task, noise).items():
        if not only or name in only:
            out[name], out["bytes"] = together(task, way, seed)
    start = time.process_time()
    train(Recipe(kind, steps=40, rate=4.0), max(task.clinics, key=len), zero, np.random.default_rng(0))
    out["seconds"] = time.process_time() - start
    out["largest"] = float(max(map(len, task.clinics)))
    out["smallest"] = float(min(map(len, task.clinics)))
    return out


def main() -> None:
    """Command line."""
    top = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=top.parent / "shared" / "data", help="folder of the recordings")
    parser.add_argument("--work", type=Path, default=top / "benchmarks" / "work", help="where features are kept")
    parser.add_argument("--seeds", type=int, default=4, help="divisions into clinics")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--task", choices=["fundus", "ecg"], help="one of them only")
    parser.add_argument("--way", action="append", metavar="ROW", help="this row of the table only; may be repeated")
    parser.add_argument("--wide", type=int, default=0, metavar="N", help="random cosine features besides")
    parser.add_argument("--device", action="store_true", help="what learning takes here")
    parser.add_argument("--tiny", action="store_true", help="every twelfth recording, one division")
    arguments = parser.parse_args()
    if arguments.device:
        on_device()
        return
    noise = noise_for(EPSILON, DELTA, ROUNDS)
    spent = spent_by(Recipe("softmax", steps=ROUNDS, noise=noise))
    print(
        f"noise {noise:.2f} times the clip: epsilon {epsilon(spent, DELTA):.2f} at delta {DELTA:g} in {ROUNDS} rounds"
    )
    for name, kind, table, measure in (
        ("fundus", "cumulative", fundus_table, referable),
        ("ecg", "softmax", ecg_table, rhythms),
    ):
        if arguments.task not in (None, name):
            continue
        cases, traits = table(arguments.data, arguments.work, arguments.tiny)
        cases = widened(cases, arguments.wide)
        rows = []
        for seed in range(arguments.first, arguments.first + (1 if arguments.tiny else arguments.seeds)):
            clinics, held = divide(cases, traits, seed)
            rows.append(run(Task(name, kind, clinics, held, measure), seed, noise, arguments.way))
        report(name, {key: np.array([row[key] for row in rows]) for key in rows[0]})
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def on_device() -> None:
    """What a device needs to learn from 5,000 examples, one process a model, and what a secure round of 20 sends."""
    for name, rows in (("ecg-rhythm", 4), ("fundus-dr", 4)):
        code = f"import federated; federated.learn_once({name!r}, {rows})"
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
    up, down = secure_bytes(CLINICS, 4 * 33 + 1)
    print(
        f"secure round of {CLINICS} devices: {up} bytes up and {down} down for each, before compression and signature"
    )


def serving(name: str) -> None:
    """A process that has what a device's has loaded while it serves, until its input ends."""
    import aidpost.board.runtime  # noqa: F401 - as `aidpost run`

    model = load_model(SHIPPED / name)
    print("ready", flush=True)
    sys.stdin.read()
    del model


def learn_once(name: str, rows: int) -> None:
    """One answer's learning in this process, and its peak memory after each step."""
    import aidpost.board.learning.service  # noqa: F401 - what a device's process imports

    def peak() -> str:
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"

    def now(what: str) -> float:
        with Path("/proc/self/smaps_rollup").open() as file:
            return next(int(line.split()[1]) for line in file if line.startswith(what + ":")) / 1024

    start, rng = peak(), np.random.default_rng(0)
    load_model(SHIPPED / name)
    loaded = peak()
    own, labels = rng.normal(size=(5000, rows)), rng.integers(0, rows, 5000)
    cases = Cases(rng.normal(size=(5000, 32)), own, labels, np.arange(5000))
    began = time.process_time()
    train(Recipe("softmax", steps=1, noise=2.0), cases, np.zeros((rows, 33)), rng)
    took, trained = time.process_time() - began, peak()
    own_part = now("Anonymous")
    with subprocess.Popen(
        [sys.executable, "-c", f"import federated; federated.serving({name!r})"],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as device:
        assert device.stdout is not None
        device.stdout.readline()
        beside = now("Pss")
        device.communicate()
    epsilon_apart(0.5, DELTA)
    apart = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{name}: peak {start} imported, {loaded} with the model, {trained} after learning ({took:.3f} s), "
        f"{own_part:.0f} MB its own and the rest code and files; "
        f"beside a device that serves it adds {beside:.0f} MB (PSS); "
        f"the privacy accountant, before that and in a process of its own, {apart:.0f} MB"
    )


def secure_bytes(members: int, size: int) -> tuple[int, int]:
    """Bytes of the records of a device in a secure round that everybody answers, up and down."""
    number, at = uuid.uuid4(), Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1, boot=1, synced=True)
    names = [f"clinic-{i}" for i in range(members)]
    mine = {name: Secrets.make() for name in names}
    roster = {name: one.public for name, one in mine.items()}
    sealed = secure_sum.seal_shares(names[0], mine[names[0]], roster, members // 2 + 1, number)
    share = bytes(33)
    up = [
        wire.RoundKeys(id=number, mask=roster[names[0]][0], share=roster[names[0]][1], at=at),
        wire.RoundShares(id=number, sealed=sealed, at=at),
        wire.RoundAnswer(id=number, model="ecg-rhythm", base="0" * 64, vector=bytes(8 * size), masked=True, at=at),
        wire.RoundReveal(id=number, seeds=dict.fromkeys(names, share), keys={}, at=at),
    ]
    head = bytes(4 * (size - 1))
    down = [
        wire.RoundRoster(round=number, members=roster, threshold=members // 2 + 1, at=at),
        wire.RoundPeers(round=number, sealed=sealed, at=at),
        wire.RoundUnmask(round=number, answered=tuple(names), at=at),
        wire.RoundEnd(round=number, answers=members, head=head, at=at),
    ]
    # the call itself: its head, and under 500 bytes of recipe
    return sum(len(encode(one)) for one in up), sum(len(encode(one)) for one in down) + len(head) + 500


def report(name: str, found: dict[str, np.ndarray]) -> None:
    """A table: the measure, and the part of the gap between alone and pooled that was closed, mean over divisions."""
    sizes = f"{found.pop('smallest').min():.0f} to {found.pop('largest').max():.0f} examples"
    print(f"\n{name}: clinics of {sizes}, {found.pop('bytes')[0]:.0f} bytes an answer, ", end="")
    print(f"{found.pop('seconds').max():.2f} s of training a round at the largest")
    for key, value in found.items():
        # of the means: a division whose gap is near zero would decide the mean of the shares
        gap = (value.mean() - found["alone"].mean()) / (found["pooled"].mean() - found["alone"].mean())
        print(f"  {key:28} AUC {value.mean():.4f} ({value.min():.4f}-{value.max():.4f})  gap {100 * gap:8.1f} %")


if __name__ == "__main__":
    main()
