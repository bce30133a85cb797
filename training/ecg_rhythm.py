"""Train the ECG rhythm model: from the data folder to `inference/models/ecg-rhythm/`, one command.

    python training/ecg_rhythm.py --data ../shared/data

Members of a small ensemble are trained on three of the four folds of CinC 2017 and validated on the fourth; temperature
and abstention threshold come from there. Then they are trained on for some passes with the validation fold included,
and written as one int8 file. Interrupted, the command goes on where it was. `--tiny` is the same in a minute.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from ecg_augment import Sampler
from ecg_card import write_folder
from ecg_data import INPUT_SCALE, Cache, Recordings, build_cache, read_cinc, read_noise
from ecg_evaluate import (
    Model,
    abstention,
    bootstrap,
    calibration_error,
    f1_scores,
    fit_temperature,
    headline,
    recording_probability,
    under_conditions,
    window_logits,
)
from ecg_export import Int8Model, to_int8
from ecg_rhythm_net import TINY, Average, Ensemble, RhythmNet, Shape, macs, parameter_count

from aidpost.inference._rhythm_input import LIMIT, WINDOW, rhythm_windows

CLASS_WEIGHT = (1.0, 1.6, 1.25, 1.6)
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """How much is trained on what."""

    shape: Shape = field(default_factory=Shape)
    members: int = 2
    variants: int = 4  # how often each recording is preprocessed, the first time undisturbed
    passes: int = 28
    final_passes: int = 7
    batch: int = 32
    rate: float = 3e-3
    final_rate: float = 8e-4
    limit: int | None = None  # recordings of each label
    holdout: int = 1
    seed: int = 20
    condition_rows: int = 600  # recordings of the held-out fold that are tried under each condition


TINY_PLAN = Plan(shape=TINY, variants=2, passes=2, final_passes=1, limit=24, condition_rows=4)


class Trainer:
    """One network, its optimiser and its moving average; the checkpoint holds all of it after each pass."""

    def __init__(
        self, plan: Plan, sampler: Sampler, label: Ints, rows: Ints, passes: int, rate: float, path: Path
    ) -> None:
        self.plan, self.sampler, self.label = plan, sampler, label
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
        weight, total, start = torch.tensor(CLASS_WEIGHT), 0.0, time.monotonic()
        order = self.sampler.rng.permutation(self.rows)
        self.net.train()
        for step in range(self.steps):
            rows = order[step * self.plan.batch : (step + 1) * self.plan.batch]
            x = self.sampler.batch(rows).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(self.net(x), torch.from_numpy(self.label[rows]), weight=weight, label_smoothing=0.05)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
            self.optimizer.step()
            self.schedule.step()
            self.average.update(self.net)
            total += loss.item()
            if step % 10 == 0:
                print(
                    f"\r  pass {self.done + 1}/{self.passes} {100 * step // self.steps} % loss {total / (step + 1):.4f}",
                    end="",
                )
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


def train_member(
    plan: Plan, member: int, variants: list[Cache], label: Ints, fold: Ints, work: Path
) -> tuple[RhythmNet, RhythmNet]:
    """Train one member without the held-out fold, then on with it; returns it as validated and as released."""
    fit, everything = np.flatnonzero(fold != plan.holdout), np.arange(label.size)
    torch.manual_seed(plan.seed + member)
    sampler = Sampler(variants, np.random.default_rng((plan.seed, member)))
    first = Trainer(plan, sampler, label, fit, plan.passes, plan.rate, work / f"member{member}.ckpt")
    held = run(first, f"member {member}, without fold {plan.holdout}", np.flatnonzero(fold == plan.holdout))
    torch.manual_seed(plan.seed + 100 + member)
    sampler = Sampler(variants, np.random.default_rng((plan.seed, 100 + member)))
    more = Trainer(plan, sampler, label, everything, plan.final_passes, plan.final_rate, work / f"final{member}.ckpt")
    more.net.load_state_dict(held.state_dict())
    more.average = Average(more.net, 0.997)
    return held, run(more, f"member {member}, all folds")


def run(trainer: Trainer, name: str, watched: Ints | None = None) -> RhythmNet:
    """Train to the end, from the checkpoint if there is one; tells the mean F1 on `watched` rows now and then."""
    trainer.resume()
    print(f"{name}: {trainer.rows.size} recordings, {trainer.done} of {trainer.passes} passes done", flush=True)
    while trainer.done < trainer.passes:
        trainer.one_pass()
        trainer.save()
        if watched is not None and (trainer.done % 4 == 0 or trainer.done == trainer.passes):
            model, cache = as_function(trainer.averaged()), trainer.sampler.variants[0]
            logits = window_logits(model, (as_floats(cache, row) for row in watched))
            scores = f1_scores(trainer.label[watched], recording_probability(logits, 1.0).argmax(axis=1))
            print(f", mean F1 {scores[:3].mean():.4f} {np.round(scores, 3)}", end="")
        print(flush=True)
    return trainer.averaged()


def float_model(members: list[RhythmNet]) -> Ensemble:
    """The members as one network, ready for use."""
    return Ensemble(members).eval()


def as_function(net: torch.nn.Module) -> Model:
    """A PyTorch network as (n, 3000, 5) -> (n, 4)."""

    def call(windows: Floats) -> Floats:
        with torch.no_grad():
            x = torch.from_numpy(windows).transpose(1, 2).unsqueeze(2)
            return np.asarray(net(x.contiguous(memory_format=torch.channels_last)).numpy())

    return call


def representative_windows(cache: Cache, rows: Ints, count: int, seed: int) -> Floats:
    """Windows to calibrate the quantiser on, the first of them spanning the input's whole range."""
    chosen = np.random.default_rng(seed).choice(rows, min(count, rows.size), replace=False)
    windows = [rhythm_windows(as_floats(cache, row))[0] for row in chosen]
    windows[0][:2, 0] = (-LIMIT, LIMIT)
    return np.stack(windows)


def as_floats(cache: Cache, row: int) -> Floats:
    """(T, 5) of one recording, as the device computes it (to int8)."""
    return cache.channels(row).astype(np.float32) * np.float32(INPUT_SCALE)


def main() -> None:
    """Parse the command line, train, write the model's folder and print what the card quotes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top = Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds ecg/cinc2017 and ecg/nstdb")
    parser.add_argument("--work", type=Path, default=top / "training/work/ecg-rhythm", help="caches and checkpoints")
    parser.add_argument("--out", type=Path, default=top / "inference/models/ecg-rhythm", help="the model's folder")
    parser.add_argument("--tiny", action="store_true", help="a tiny network on a few recordings, in a minute")
    parser.add_argument("--member", type=int, help="train this member only, and leave the rest to a later call")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = TINY_PLAN if arguments.tiny else Plan()
    work = arguments.work / ("tiny" if arguments.tiny else "full")
    work.mkdir(parents=True, exist_ok=True)
    recordings, noise = read_cinc(arguments.data, plan.limit), read_noise(arguments.data, half=0)
    variants = [build_cache(work, recordings, noise, variant, plan.seed) for variant in range(plan.variants)]
    members = range(plan.members) if arguments.member is None else (arguments.member,)
    pairs = [train_member(plan, one, variants, recordings.label, recordings.fold, work) for one in members]
    if arguments.member is not None:
        return
    held, released = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    print(
        f"{sum(map(parameter_count, released))} parameters, "
        f"{sum(macs(net, WINDOW, 5) for net in released) / 1e6:.1f} M MAC a window"
    )

    everything = np.arange(recordings.label.size)
    fit, rows = (np.flatnonzero((recordings.fold == plan.holdout) == one) for one in (False, True))
    held_path = work / "held.tflite"
    to_int8(Ensemble(held), representative_windows(variants[0], fit, 400, plan.seed), held_path)
    to_int8(Ensemble(released), representative_windows(variants[0], everything, 400, plan.seed), work / "model.tflite")
    judged = judge(held, held_path, released, work / "model.tflite", variants[0], recordings, rows, plan)
    judged["conditions"] = under_conditions(
        Int8Model(held_path),
        recordings,
        rows[: plan.condition_rows],
        read_noise(arguments.data, half=1),
        judged["temperature"],
    )
    write_folder(arguments.out, work / "model.tflite", judged)


def judge(
    held: list[RhythmNet],
    held_int8: Path,
    released: list[RhythmNet],
    released_int8: Path,
    cache: Cache,
    recordings: Recordings,
    rows: Ints,
    plan: Plan,
) -> dict[str, Any]:
    """Everything the card quotes from the held-out fold, and how far the released int8 file is from its float twin."""
    truth = recordings.label[rows]
    pieces = [as_floats(cache, row) for row in rows]
    single = [window_logits(as_function(float_model([one])), pieces) for one in held]
    logits = {
        "float": window_logits(as_function(float_model(held)), pieces),
        "int8": window_logits(Int8Model(held_int8), pieces),
    }
    temperature = fit_temperature(logits["int8"], truth)
    probability = {name: recording_probability(one, temperature) for name, one in logits.items()}
    predicted = {name: one.argmax(axis=1) for name, one in probability.items()}
    ours = [
        recording_probability(window_logits(one, pieces), temperature).argmax(axis=1)
        for one in (as_function(float_model(released)), Int8Model(released_int8))
    ]
    return {
        "recordings": int(rows.size),
        "condition_rows": min(plan.condition_rows, rows.size),
        "counts": np.bincount(truth, minlength=4),
        "temperature": temperature,
        "member_f1": [headline(truth, recording_probability(one, 1.0).argmax(axis=1)) for one in single],
        "f1": {name: f1_scores(truth, one) for name, one in predicted.items()},
        "interval": bootstrap(truth, predicted["int8"]),
        "confusion": np.array([[np.sum((truth == t) & (predicted["int8"] == p)) for p in range(4)] for t in range(4)]),
        "calibration_error": calibration_error(probability["int8"], truth),
        "abstention": abstention(probability["int8"], truth, coverage=0.97),
        "length": by_length([piece.shape[0] / 100 for piece in pieces], truth, predicted["int8"]),
        "released_agreement": float(np.mean(ours[0] == ours[1])),
    }


def by_length(seconds: list[float], truth: Ints, predicted: Ints) -> dict[str, tuple[int, float]]:
    """Recordings and mean F1 by length of recording."""
    bins = {"9-20 s": (0, 20), "20-40 s": (20, 40), "40-61 s": (40, 99)}
    out = {}
    for name, (low, high) in bins.items():
        chosen = (np.array(seconds) >= low) & (np.array(seconds) < high)
        out[name] = (int(chosen.sum()), headline(truth[chosen], predicted[chosen]))
    return out


if __name__ == "__main__":
    main()
