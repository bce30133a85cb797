"""Train the ECG rhythm model: from the data folder to `inference/models/ecg-rhythm/`, one command.

    python training/ecg_rhythm.py --data ../shared/data

Members of a small ensemble are trained on three of the four folds of CinC 2017 and validated on the fourth; temperature
and abstention threshold come from there. Before that, teachers are trained fold by fold (`ecg_rhythm_teachers.py`).
Then the members are trained on for some passes with the validation fold included, and written as one int8 file.
Interrupted, the command goes on where it was. `--tiny` is the same in a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from ecg_augment import Sampler
from ecg_card import write_folder
from ecg_data import Cache, Recordings, build_cache, read_cinc, read_noise
from ecg_evaluate import f1_scores, recording_probability, under_conditions, window_logits
from ecg_export import Int8Model, to_int8
from ecg_judge import as_floats, as_function, judge, representative_windows
from ecg_rhythm_net import TINY, Average, Ensemble, FeatureNet, RhythmNet, Shape, macs, parameter_count
from ecg_rhythm_teachers import by_network, by_trees, features_of, together
from embedding import MOST, give_embedding

from aidpost.inference._rhythm_input import WINDOW

CLASS_WEIGHT = (1.0, 1.6, 1.25, 1.6)
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """How much is trained on what."""

    shape: Shape = field(default_factory=Shape)
    signal_members: int = 2  # each from another seed; what they disagree about is chance
    feature_members: int = 2
    feature_passes: int = 40
    feature_noise: float = 0.3
    feature_weight: float = 0.4  # of the feature networks' logits in the mean
    variants: int = 3  # how often each recording is preprocessed, the first time undisturbed
    teacher_passes: int = 22
    trees: int = 5
    taught: float = 0.5  # how much the teachers count, the rest being the label
    passes: int = 24
    final_passes: int = 6
    batch: int = 32
    rate: float = 3e-3
    final_rate: float = 8e-4
    limit: int | None = None  # recordings of each label
    holdout: int = 1
    seed: int = 20
    condition_rows: int = 120  # recordings of the held-out fold that are tried under each condition


TINY_PLAN = Plan(
    shape=TINY,
    signal_members=1,
    variants=2,
    teacher_passes=1,
    trees=1,
    passes=2,
    final_passes=1,
    limit=24,
    condition_rows=4,
)


@dataclass(frozen=True)
class Targets:
    """What is to be said of each recording: its label and, where there were teachers, their probabilities."""

    label: Ints
    taught: Floats | None = None
    share: float = 0.0

    def loss(self, logits: torch.Tensor, rows: Ints) -> torch.Tensor:
        """Cross-entropy with both. The labels are weighted by class; teachers learned from labels that were."""
        label, weight = torch.from_numpy(self.label[rows]), torch.tensor(CLASS_WEIGHT)
        loss = F.cross_entropy(logits, label, weight=weight, label_smoothing=0.05)
        if self.taught is None:
            return loss
        return (1 - self.share) * loss + self.share * F.cross_entropy(logits, torch.from_numpy(self.taught[rows]))


class Trainer:
    """One network, its optimiser and its moving average; the checkpoint holds all of it after each pass."""

    def __init__(
        self, plan: Plan, sampler: Sampler, targets: Targets, rows: Ints, passes: int, rate: float, path: Path
    ) -> None:
        self.plan, self.sampler, self.targets = plan, sampler, targets
        self.rows, self.passes, self.path = rows, passes, path
        self.net = RhythmNet(plan.shape).to(memory_format=torch.channels_last)
        self.steps = max(rows.size // plan.batch, 1)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=0.02)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=passes * self.steps, pct_start=0.15
        )
        self.average = Average(self.net, 0.997)
        self.done = 0

    def resume(self) -> None:
        """Take up the checkpoint, if there is one."""
        if self.path.exists():
            saved = torch.load(self.path, weights_only=False)
            self.net.load_state_dict(saved["net"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.average.state, self.average.step, self.done = saved["average"], saved["average_step"], saved["done"]
            self.sampler.rng.bit_generator.state = saved["rng"]
            torch.set_rng_state(saved["torch_rng"])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        part = self.path.with_suffix(".part")
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        state |= {"average": self.average.state, "average_step": self.average.step, "done": self.done}
        state |= {"rng": self.sampler.rng.bit_generator.state, "torch_rng": torch.get_rng_state()}
        torch.save(state, part)
        part.replace(self.path)

    def one_pass(self) -> float:
        """Train over all rows once; returns the mean loss."""
        total, start = 0.0, time.monotonic()
        order = self.sampler.rng.permutation(self.rows)
        self.net.train()
        for step in range(self.steps):
            rows = order[step * self.plan.batch : (step + 1) * self.plan.batch]
            x = self.sampler.batch(rows).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):  # nearly twice as fast where the processor knows it
                logits = self.net(x)
            loss = self.targets.loss(logits.float(), rows)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
            self.optimizer.step()
            self.schedule.step()
            self.average.update(self.net)
            total += loss.item()
            if step % 10 == 0:
                share = 100 * step // self.steps
                print(f"\r  pass {self.done + 1}/{self.passes} {share:3d} % loss {total / (step + 1):.4f}", end="")
        self.done += 1
        print(
            f"\r  pass {self.done}/{self.passes} loss {total / self.steps:.4f} in {time.monotonic() - start:.0f} s",
            end="",
        )
        return total / self.steps

    def averaged(self) -> RhythmNet:
        """The network with its moving-average weights, for use."""
        net = RhythmNet(self.plan.shape).to(memory_format=torch.channels_last)
        net.load_state_dict(self.average.state)
        return net.eval()


def train_teacher(plan: Plan, variants: list[Cache], recordings: Recordings, work: Path, left: int) -> Floats:
    """What a signal network that saw neither the fold `left` nor the held-out one says of all of `left`."""
    fold = recordings.fold
    rows = np.flatnonzero(fold == left)
    torch.manual_seed(plan.seed + 300 + left)
    sampler = Sampler(variants, np.random.default_rng((plan.seed, 300 + left)))
    fit = np.flatnonzero((fold != left) & (fold != plan.holdout))
    path = work / f"teacher{left}.ckpt"
    trainer = Trainer(plan, sampler, Targets(recordings.label), fit, plan.teacher_passes, plan.rate, path)
    net = run(trainer, f"teacher of fold {left}", rows)
    return by_network(as_function(Ensemble([net], [], 0.0)), variants[0], rows)


def teach(plan: Plan, variants: list[Cache], table: Floats, recordings: Recordings, work: Path) -> Targets:
    """The targets of all folds but the held-out one, whose rows are left at zero."""
    path, folds = work / "taught.npy", [one for one in np.unique(recordings.fold) if one != plan.holdout]
    label = recordings.label
    if not path.exists():
        jobs = [(plan, variants, recordings, work, int(left)) for left in folds]
        taught = np.zeros((label.size, len(CLASS_WEIGHT)), np.float32)
        for left, network in zip(folds, side_by_side(train_teacher, jobs), strict=True):
            rows = np.flatnonzero(recordings.fold == left)
            fit = np.flatnonzero((recordings.fold != left) & (recordings.fold != plan.holdout))
            taught[rows] = together([network, by_trees(table, label, fit, rows, CLASS_WEIGHT, plan.trees)])
        np.save(path, taught)
    return Targets(label, np.load(path), plan.taught)


def taught_held(
    plan: Plan, cache: Cache, table: Floats, recordings: Recordings, targets: Targets, held: list[RhythmNet]
) -> Targets:
    """The held-out fold's targets besides, from networks that were judged on it and trees that did not see it."""
    assert targets.taught is not None
    fit, rows = without_and_within(recordings, plan.holdout)
    network = by_network(as_function(Ensemble(held, [], 0.0)), cache, rows)
    trees = by_trees(table, recordings.label, fit, rows, CLASS_WEIGHT, plan.trees)
    taught = targets.taught.copy()
    taught[rows] = together([network, trees])
    return replace(targets, taught=taught)


def without_and_within(recordings: Recordings, fold: int) -> tuple[Ints, Ints]:
    """The recordings that are not of a fold, and those that are."""
    return np.flatnonzero(recordings.fold != fold), np.flatnonzero(recordings.fold == fold)


def side_by_side(train: Callable[..., Any], jobs: list[tuple[Any, ...]]) -> list[Any]:
    """What `train` gives for each job, two at a time: each is one thread."""
    if len(jobs) < 2:
        return [train(*job) for job in jobs]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.starmap(train, jobs, chunksize=1)


def train_held(
    plan: Plan, variants: list[Cache], recordings: Recordings, targets: Targets, member: int, work: Path
) -> RhythmNet:
    """A signal network without the held-out fold."""
    torch.manual_seed(plan.seed + member)
    sampler = Sampler(variants, np.random.default_rng((plan.seed, member)))
    fit, watched = without_and_within(recordings, plan.holdout)
    trainer = Trainer(plan, sampler, targets, fit, plan.passes, plan.rate, work / f"signal{member}-held.ckpt")
    return run(trainer, f"signal network {member + 1}, without fold {plan.holdout}", watched)


def train_released(
    plan: Plan, variants: list[Cache], targets: Targets, member: int, work: Path, held: RhythmNet
) -> RhythmNet:
    """The same trained on, with all folds."""
    torch.manual_seed(plan.seed + 100 + member)
    sampler = Sampler(variants, np.random.default_rng((plan.seed, 100 + member)))
    everything, path = np.arange(targets.label.size), work / f"signal{member}-all.ckpt"
    trainer = Trainer(plan, sampler, targets, everything, plan.final_passes, plan.final_rate, path)
    trainer.net.load_state_dict(held.state_dict())
    trainer.average = Average(trainer.net, 0.997)
    return run(trainer, f"signal network {member + 1}, all folds")


def features_network(plan: Plan, table: Floats, targets: Targets, rows: Ints, member: int, path: Path) -> FeatureNet:
    """A feature network, trained on the chosen rows or read from `path`; `table` is (variants, recordings, 100)."""
    if not path.exists():
        net = train_features(plan, table, targets, rows, member)
        torch.save(net.state_dict(), path)
        print(f"{path.name}: trained", flush=True)
    net = FeatureNet(plan.shape)
    net.load_state_dict(torch.load(path))
    return net.eval()


def train_features(plan: Plan, table: Floats, targets: Targets, rows: Ints, member: int) -> FeatureNet:
    """Train a feature network, a disturbed variant of each recording half of the time."""
    torch.manual_seed(plan.seed + 200 + member)
    rng = np.random.default_rng((plan.seed, 200 + member))
    mean, deviation = table[0, rows].mean(axis=0), np.maximum(table[0, rows].std(axis=0), 0.3)
    net, batch = FeatureNet(plan.shape), 2 * plan.batch
    steps = max(rows.size // batch, 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=plan.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.feature_passes * steps)
    for _ in range(plan.feature_passes):
        order = rng.permutation(rows)
        for chosen in np.array_split(order[: steps * batch], steps):
            which = np.where(rng.random(chosen.size) < 0.5, 0, rng.integers(0, len(table), chosen.size))
            x = torch.from_numpy((table[which, chosen] - mean) / deviation)
            loss = targets.loss(net(x + plan.feature_noise * torch.randn(x.shape)), chosen)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():  # the features' scales go into the first layer
        net.first.weight /= torch.from_numpy(deviation)
        net.first.bias -= net.first.weight @ torch.from_numpy(mean)
    return net.eval()


def run(trainer: Trainer, name: str, watched: Ints | None = None) -> RhythmNet:
    """Train to the end, from the checkpoint if there is one; tells the mean F1 on `watched` rows now and then."""
    trainer.resume()
    print(f"{name}: {trainer.rows.size} recordings, {trainer.done} of {trainer.passes} passes done", flush=True)
    while trainer.done < trainer.passes:
        trainer.one_pass()
        trainer.save()
        if watched is not None and (trainer.done % 4 == 0 or trainer.done == trainer.passes):
            model = as_function(Ensemble([trainer.averaged()], [], 0.0))
            cache = trainer.sampler.variants[0]
            logits = window_logits(model, (as_floats(cache, row) for row in watched))
            scores = f1_scores(trainer.targets.label[watched], recording_probability(logits, 1.0).argmax(axis=1))
            print(f", mean F1 {scores[:3].mean():.4f} {np.round(scores, 3)}", end="")
        print(flush=True)
    return trainer.averaged()


def train_feature_members(
    plan: Plan, table: Floats, targets: Targets, rows: Ints, work: Path, name: str
) -> list[FeatureNet]:
    """The feature networks, from some of the recordings."""
    return [
        features_network(plan, table, targets, rows, member, work / f"features{member}-{name}.pt")
        for member in range(plan.feature_members)
    ]


def train_all(plan: Plan, variants: list[Cache], recordings: Recordings, work: Path) -> tuple[Ensemble, Ensemble]:
    """Every network, trained or taken from its checkpoint: (as validated without the held-out fold, as released)."""
    table = features_of(variants)
    targets = teach(plan, variants, table, recordings, work)
    members = range(plan.signal_members)
    held = side_by_side(train_held, [(plan, variants, recordings, targets, member, work) for member in members])
    fit, _ = without_and_within(recordings, plan.holdout)
    features = train_feature_members(plan, table, targets, fit, work, "held")
    judged = Ensemble(held, features, plan.feature_weight).eval()
    targets = taught_held(plan, variants[0], table, recordings, targets, held)
    jobs = [(plan, variants, targets, member, work, held[member]) for member in members]
    released = side_by_side(train_released, jobs)
    features = train_feature_members(plan, table, targets, np.arange(recordings.label.size), work, "released")
    return judged, Ensemble(released, features, plan.feature_weight).eval()


def main() -> None:
    """Parse the command line, train, write the model's folder and print what the card quotes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top = Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds ecg/cinc2017 and ecg/nstdb")
    parser.add_argument("--work", type=Path, default=top / "training/work/ecg-rhythm", help="caches and checkpoints")
    parser.add_argument("--out", type=Path, default=top / "inference/models/ecg-rhythm", help="the model's folder")
    parser.add_argument("--tiny", action="store_true", help="a tiny network on a few recordings, in a minute")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = TINY_PLAN if arguments.tiny else Plan()
    work = arguments.work / ("tiny" if arguments.tiny else "full")
    work.mkdir(parents=True, exist_ok=True)
    recordings, noise = read_cinc(arguments.data, plan.limit), read_noise(arguments.data, half=0)
    variants = [build_cache(work, recordings, noise, variant, plan.seed) for variant in range(plan.variants)]
    held, released = train_all(plan, variants, recordings, work)
    signal_macs = sum(macs(net, WINDOW, 5) for net in released.signal)
    print(f"{parameter_count(released)} parameters, {signal_macs / 1e6:.1f} M multiply-accumulates a window")
    fit, rows = without_and_within(recordings, plan.holdout)
    files = work / "held.tflite", work / "model.tflite"
    to_int8(held, representative_windows(variants[0], fit), files[0])
    to_int8(released, representative_windows(variants[0], np.arange(recordings.label.size)), files[1])
    judged = judge(held, released, files, variants[0], recordings.label, rows)
    tried = rows[: plan.condition_rows]
    judged["condition_rows"] = tried.size
    noise = read_noise(arguments.data, half=1)
    judged["conditions"] = under_conditions(Int8Model(files[0]), recordings, tried, noise, judged["temperature"])
    write_folder(arguments.out, files[1], judged)
    give_embedding(arguments.out, arguments.data, 8 if arguments.tiny else MOST)


if __name__ == "__main__":
    main()
