"""The training loop: data-parallel processes of one thread each, one-cycle AdamW, averaged weights, resumable.

One thread per process: on a busy two-core machine two processes that meet once a step lose far less than two threads
that meet at every
layer.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm


class Task(Protocol):
    """What is trained: a model, its batches and what to do with one."""

    def model(self) -> nn.Module:
        """A freshly initialised model."""

    def batch(self, rng: np.random.Generator, n: int, size: int, done: float) -> tuple[torch.Tensor, ...]:
        """n random samples, the image first; `done` is the share of the training that is done."""

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Mean loss of a batch."""

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups, each with its peak learning rate."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on the validation patients."""


@dataclass(frozen=True)
class Plan:
    """How long: epochs, steps of each, pictures of each step; and their side in pixels."""

    epochs: int
    steps: int
    batch: int
    size: int
    first_size: int | None = None  # side in pixels of the first steps, which are cheaper so
    first_share: float = 0.75  # of the steps
    workers: int = 2
    seed: int = 1
    average: float = 0.998
    weight_decay: float = 0.05
    warm_up: int = 240
    horizon: int = 2400
    cool_down: float = 0.2

    @property
    def total(self) -> int:
        """Number of steps in all."""
        return self.epochs * self.steps

    def side(self, step: int) -> int:
        """Side of the pictures at a step."""
        return self.first_size if self.first_size and step < self.first_share * self.total else self.size

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at a step: up over `warm_up` steps, down a cosine that would end at
        `horizon`, and in the last `cool_down` of the steps on to zero."""
        if step < self.warm_up:
            return max(step / self.warm_up, 0.02)
        falling = 0.5 * (1 + float(np.cos(np.pi * (step - self.warm_up) / (self.horizon - self.warm_up)))) + 0.01
        return falling * min((self.total - step) / (self.cool_down * self.total), 1.0)


def _average_gradients(parameters: list[nn.Parameter], workers: int) -> None:
    for p in parameters:
        if p.grad is None:  # a head whose label nobody in this process's batch had
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    dist.all_reduce(flat)
    flat /= workers
    at = 0
    for p in parameters:
        p.grad.copy_(flat[at : at + p.grad.numel()].view_as(p.grad))
        at += p.grad.numel()


def _keep_memory() -> None:
    """Have glibc keep what is freed: asked of the kernel anew for each large tensor, pages cost a fifth of the time."""
    libc, trim_threshold, top_pad, mmap_max = ctypes.CDLL(None), -1, -2, -4  # as malloc.h names them, M_...
    if hasattr(libc, "mallopt"):
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**28)


def _worker(rank: int, make_task: Callable[[], Task], plan: Plan, checkpoint: Path, port: int) -> None:
    _keep_memory()
    torch.set_num_threads(1)
    if plan.workers > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=plan.workers)
    torch.manual_seed(plan.seed)
    task = make_task()
    model, averaged = task.model(), task.model()
    averaged.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(task.groups(model), weight_decay=plan.weight_decay)
    peaks = [group["lr"] for group in optimiser.param_groups]
    first = 0
    if checkpoint.is_file():
        state = _load(checkpoint, plan)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["epoch"]
    for epoch in range(first, plan.epochs):
        _epoch(rank, epoch, task, plan, model, averaged, optimiser, peaks)
        if rank == 0:
            _save(checkpoint, plan, epoch + 1, model, averaged, optimiser)
            tqdm.write(f"epoch {epoch + 1}/{plan.epochs}: {task.validate(averaged.eval())}")
        if plan.workers > 1:
            dist.barrier()
    if plan.workers > 1:
        dist.destroy_process_group()


def _epoch(
    rank: int, epoch: int, task: Task, plan: Plan, model: Any, averaged: Any, optimiser: Any, peaks: Any
) -> None:
    rng = np.random.default_rng([plan.seed, epoch, rank])
    torch.manual_seed(plan.seed * 1000 + epoch * 10 + rank)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    bar = tqdm(range(plan.steps), desc=f"epoch {epoch + 1}/{plan.epochs}", disable=rank != 0, mininterval=20)
    smoothed = None
    for i in bar:
        step = epoch * plan.steps + i
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * plan.rate(step)
        loss = task.loss(model.train(), task.batch(rng, plan.batch // plan.workers, plan.side(step), step / plan.total))
        optimiser.zero_grad()
        loss.backward()
        if plan.workers > 1:
            _average_gradients(parameters, plan.workers)
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimiser.step()
        keep = min(plan.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, now in zip(averaged.parameters(), model.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        value = float(loss.detach())
        smoothed = value if smoothed is None else 0.95 * smoothed + 0.05 * value
        bar.set_postfix(loss=f"{smoothed:.3f}", refresh=False)


def _save(path: Path, plan: Plan, epoch: int, model: Any, averaged: Any, optimiser: torch.optim.Optimizer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    state = {"plan": asdict(plan), "epoch": epoch, "model": model.state_dict(), "averaged": averaged.state_dict()}
    torch.save({**state, "optimiser": optimiser.state_dict()}, partial)
    partial.replace(path)


def _load(path: Path, plan: Plan) -> dict[str, Any]:
    """The state in `path`, which must come from the same plan: one run, one plan."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("plan") != asdict(plan):
        raise SystemExit(f"{path} was made with another plan ({state.get('plan')}): begin again with --fresh")
    return state


def train(make_task: Callable[[], Task], plan: Plan, checkpoint: Path) -> None:
    """Train, or go on from `checkpoint`. `make_task` must be picklable."""
    if plan.workers > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        torch.multiprocessing.spawn(_worker, (make_task, plan, checkpoint, port), nprocs=plan.workers)
    else:
        _worker(0, make_task, plan, checkpoint, 0)


def averaged_model(task: Task, plan: Plan, checkpoint: Path) -> Any:
    """The averaged model of a checkpoint at the plan's end."""
    state = _load(checkpoint, plan)
    if state["epoch"] != plan.epochs:
        raise SystemExit(f"{checkpoint} is at epoch {state['epoch']} of {plan.epochs}: train it to its end first")
    model = task.model()
    model.load_state_dict(state["averaged"])
    return model.eval()
