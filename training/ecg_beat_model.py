"""Train the ECG beat model: from the data folder to `inference/models/ecg-beats/`, one command.

    python training/ecg_beat_model.py --data ../shared/data

Five networks are trained, each without one group of MIT-BIH's patients, and judged on that group: their pooled answers
are the card's figures, and give the calibration and the operating point. A sixth, trained on all groups, is released.
What is finished is kept: interrupted, the command goes on after the last pass. `--tiny` is the same in a minute.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from ecg_beat_card import write_folder
from ecg_beat_data import GROUPS, Table, beside, build_table, lent, pieces, read_mitdb, ventricular_shapes, whole
from ecg_beat_judge import Reading, calibrate, judge, logits_of, of_first_leads, read
from ecg_beat_net import BeatNet, to_int8
from ecg_data import Noise, read_cinc, read_noise
from ecg_rhythm_net import Average
from torch import Tensor, nn

from aidpost.inference._beats_input import LIMIT, WINDOW

LENT = 10  # added to the group of the ventricular shapes that a CinC recording was given
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """How much is trained on what."""

    width: int = 24
    passes: int = 2
    steps: int = 300  # a pass
    batch: int = 256
    rate: float = 3e-3
    number_noise: float = 0.25
    normal: int = 700  # CinC recordings labelled N, and A
    fibrillating: int = 350
    minutes: int | None = None  # of each MIT-BIH record
    own: tuple[float, ...] = (2.0, 1.2, 1.2, 0.3)  # shares of N, S, V, F from MIT-BIH
    others: tuple[float, ...] = (2.0, 1.0, 0.8, 0.1)  # and from CinC
    seed: int = 5


TINY = Plan(width=4, passes=2, steps=8, batch=64, normal=6, fibrillating=6, minutes=1)


def tables(plan: Plan, data: Path, work: Path) -> tuple[Table, Table, Table, Table]:
    """MIT-BIH whole, in disturbed pieces, and CinC with ectopic beats put in; and, to judge by, MIT-BIH's second leads
    at the beats of the first."""
    halves, noise = read_mitdb(data, plan.minutes), read_noise(data, half=0)
    seconds = [(a, b) for a, b in pairwise(halves) if (a.lead, b.lead) == (0, 1)]

    def in_pieces() -> Iterator[tuple[npt.NDArray[np.int8], Ints, int, Ints]]:
        for k, half in enumerate(halves):
            for counts, label, missed in pieces(half, noise, np.random.default_rng((1, k))):
                yield counts, label, half.group, missed

    return (
        build_table(work, "whole", ((*one[:2], half.group, one[2]) for half in halves for one in [whole(half)])),
        build_table(work, "pieces", in_pieces()),
        build_table(work, "lent", _lent(plan, data, ventricular_shapes(halves), noise)),
        build_table(work, "beside", ((*one[:2], b.group, one[2]) for a, b in seconds for one in [beside(a, b)])),
    )


def _lent(
    plan: Plan, data: Path, shapes: list[tuple[int, npt.NDArray[np.float64]]], noise: Noise
) -> Iterator[tuple[npt.NDArray[np.int8], Ints, int, Ints]]:
    cinc = read_cinc(data)
    some = {group: [shape for one, shape in shapes if one == group] for group in range(len(GROUPS))}
    having = [group for group, its in some.items() if its]
    chosen = np.flatnonzero(cinc.label == 1)[: plan.fibrillating], np.flatnonzero(cinc.label == 0)[: plan.normal]
    for i in np.concatenate(chosen):
        rng = np.random.default_rng((2, i))
        group = having[int(rng.integers(len(having)))]
        counts, label = lent(cinc.samples_mv[i], cinc.fs_hz, int(cinc.label[i]), some[group], noise, rng)
        yield counts, label, LENT + group, np.zeros(4, np.int64)


class Draw:
    """Draws beats for training: each class its share, and of each recording the square root of what it has."""

    def __init__(
        self, plan: Plan, all_tables: tuple[Table, ...], without: int | None, rng: np.random.Generator
    ) -> None:
        self.rng, self.counts, self.label, weights = rng, [], [], []
        for table in all_tables:
            borrowed = table.group >= LENT
            rows = np.flatnonzero((table.label >= 0) & (table.group % LENT != (-1 if without is None else without)))
            weight, label = np.zeros(rows.size), table.label[rows]
            key = table.source[rows] * 4 + label
            size = np.bincount(key)
            for k in range(4):
                for lent_to in (False, True):
                    part = (label == k) & (borrowed[rows] == lent_to)
                    share = (plan.others if lent_to else plan.own)[k] / (1.0 if lent_to else 2.0)
                    each = size[key[part]] ** -0.5
                    weight[part] = share * each / max(each.sum(), 1e-9)
            self.counts.append(table.counts[rows])
            self.label.append(label)
            weights.append(weight)
        total = np.cumsum(np.concatenate(weights))
        self.edges = total / total[-1]
        self.all_counts, self.all_label = np.concatenate(self.counts), np.concatenate(self.label)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """(n, 144, 3) float32 and labels."""
        rows = np.minimum(np.searchsorted(self.edges, self.rng.random(size)), self.all_label.size - 1)
        return torch.from_numpy(self.all_counts[rows]).float() * (2 * LIMIT / 255.0), torch.from_numpy(
            self.all_label[rows]
        )


def augment(x: Tensor, number_noise: float) -> Tensor:
    """Change gain, place and noise of the waves, and disturb the numbers."""
    n = len(x)
    gain = torch.exp((torch.rand(n, 1, 1) - 0.5) * 0.4)
    wave = torch.asinh(torch.sinh(x[:, :WINDOW]) * gain)
    wave = wave + torch.randn(wave.shape) * (0.15 * torch.rand(n, 1, 1) * (torch.rand(n, 1, 1) < 0.5))
    wave = torch.roll(wave, int(torch.randint(-2, 3, (1,))), dims=1)
    numbers = x[:, WINDOW:] + number_noise * torch.randn(x[:, WINDOW:].shape)
    return torch.cat((wave, numbers), dim=1).clamp(-LIMIT, LIMIT)


def train(plan: Plan, all_tables: tuple[Table, ...], without: int | None, work: Path) -> BeatNet:
    """One network, without a group of patients or (None) with all; taken from its file where it is finished."""
    name = "all" if without is None else f"without{without}"
    done_path, checkpoint = work / f"{name}.pt", work / f"{name}.ckpt"
    if done_path.exists():
        net = BeatNet(plan.width)
        net.load_state_dict(torch.load(done_path))
        return net.eval()
    torch.manual_seed(plan.seed)
    net, draw = BeatNet(plan.width), Draw(plan, all_tables, without, np.random.default_rng((plan.seed, 3)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=plan.rate, weight_decay=0.05)
    total = plan.passes * plan.steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=total, pct_start=0.15)
    average, first = Average(net, 0.995), 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        average.state, average.step, first = saved["average"], saved["average_step"], saved["pass"]
        draw.rng.bit_generator.state = saved["rng"]
        torch.set_rng_state(saved["torch_rng"])
    for number in range(first, plan.passes):
        start = time.monotonic()
        loss = _one_pass(plan, net, draw, optimizer, schedule, average)
        print(f"\r  {name}: pass {number + 1}/{plan.passes} loss {loss:.4f} ({time.monotonic() - start:.0f} s)", end="")
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        state |= {"average": average.state, "average_step": average.step, "pass": number + 1}
        state |= {"rng": draw.rng.bit_generator.state, "torch_rng": torch.get_rng_state()}
        torch.save(state, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)
    print(flush=True)
    net.load_state_dict(average.state)
    torch.save(net.state_dict(), done_path)
    return net.eval()


def _one_pass(
    plan: Plan,
    net: BeatNet,
    draw: Draw,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    average: Average,
) -> float:
    total = 0.0
    net.train()
    for _ in range(plan.steps):
        x, label = draw.batch(plan.batch)
        loss = sum(F.cross_entropy(one, label, label_smoothing=0.02) for one in net.both(augment(x, plan.number_noise)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        average.update(net)
        total += loss.item()
    return total / plan.steps


def representative(table: Table, count: int = 600, seed: int = 0) -> npt.NDArray[np.float32]:
    """Beats to calibrate the quantiser on, of every class, the first spanning the input's whole range."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            rng.choice(rows, min(count // 4, rows.size), replace=False)
            for rows in (np.flatnonzero(table.label == k) for k in range(4))
            if rows.size
        ]
    )
    beats = table.floats(rows)
    beats[0][:2, 0] = (-LIMIT, LIMIT)
    return beats


def main() -> None:
    """Parse the command line, train, write the model's folder and print what the card quotes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top = Path(__file__).resolve().parent.parent
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds ecg/mitdb, cinc2017 and nstdb")
    parser.add_argument("--work", type=Path, default=top / "training/work/ecg-beats", help="tables and checkpoints")
    parser.add_argument("--out", type=Path, default=top / "inference/models/ecg-beats", help="the model's folder")
    parser.add_argument("--tiny", action="store_true", help="a tiny network on a few recordings, in a minute")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = TINY if arguments.tiny else Plan()
    work = arguments.work / ("tiny" if arguments.tiny else "full")
    work.mkdir(parents=True, exist_ok=True)
    own, cut, others, second = tables(plan, arguments.data, work)
    nets = [train(plan, (own, cut, others), group, work) for group in range(len(GROUPS))]
    released = train(plan, (own, cut, others), None, work)
    halves = read_mitdb(arguments.data, plan.minutes)
    first = of_first_leads(halves, own)
    readings = {"float": read(halves, own, second, *(_by_the_others(nets, one) for one in (own, second)))}
    label = np.concatenate((own.label[first], own.label[first]))
    logits = np.concatenate((readings["float"].both, readings["float"].each[first]))
    temperature, shift = calibrate(logits[label >= 0].astype(np.float32), label[label >= 0])
    for net in (*nets, released):  # the ectopic beats were drawn more often than they come
        net.shift(shift)
    readings["float"] = Reading(readings["float"].each + shift, readings["float"].both + shift)
    calibration = representative(cut)
    paths = [work / f"without{group}.tflite" for group in range(len(GROUPS))]
    for net, path in zip((*nets, released), (*paths, work / "model.tflite"), strict=True):
        to_int8(net, calibration, path)
    readings["int8"] = read(halves, own, second, *(_by_the_others(paths, one) for one in (own, second)))
    judged = judge(halves, own, readings, temperature, work, read_noise(arguments.data, half=1), arguments.tiny)
    write_folder(arguments.out, work / "model.tflite", judged)


def _by_the_others(models: Sequence[BeatNet | Path], table: Table) -> npt.NDArray[np.float32]:
    """Logits (rows, 4) of a table, each patient's by the model that was trained without them."""
    out = np.zeros((table.label.size, 4), np.float32)
    for group, model in enumerate(models):
        rows = np.flatnonzero(table.group == group)
        out[rows] = logits_of(model, table, rows)
    return out


if __name__ == "__main__":
    main()
