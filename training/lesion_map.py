"""Teach a finished grader's heatmap where lesions are, from the boxes around those of IDRiD's photographs.

    python training/lesion_map.py [--data FOLDER] [--models FOLDER] [NAME...]

The map's two layers are learnt anew on the features that the file itself computes, and written into it. No other weight
and no other output changes; its card gets the new figures. `fundus_dr.py` ends with it, too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _fundus_data as data
import numpy as np
import torch
import torch.nn.functional as F
from _embedding import packed, signature_of, with_output
from _fundus_augment import augment_normalised, place
from _fundus_card import with_paragraph
from _fundus_dr_card import VERSION, heatmap_text
from _fundus_dr_report import REFERABLE, heatmap_hits
from _fundus_dr_task import SIZE, UNREADABLE, Locator, load_photographs, softened
from _fundus_export import runner
from _fundus_lesions import lesion_masks
from ai_edge_litert import schema_py_generated as schema
from tqdm import tqdm

from aidpost.inference._card import read_card
from aidpost.inference.model import load_model
from aidpost.inference.runtime import Interpreter

BATCH, BOXED_OF_BATCH = 32, 20
STRONGEST = 3  # cells of a map that say what the whole photograph is
GRADE = 0.3  # weight of the photographs' grades against that of their cells


@dataclass(frozen=True)
class Plan:
    """Changed copies of each boxed photograph, photographs without boxes, and steps."""

    copies: int = 4
    unboxed: int = 1200
    steps: int = 600


TINY = Plan(copies=1, unboxed=4, steps=3)


@dataclass(frozen=True)
class Layers:
    """The map's tensors in a file: numbers of what goes in, of each layer's weights and bias, and of the map."""

    features: int
    hidden: tuple[int, int]
    middle: int
    out: tuple[int, int]
    map: int


def layers_of(model: Any, name: str) -> Layers:
    """The two convolutions before the output `name`.

    Raises
    ------
    ValueError
        Something else stands there.
    """
    graph = model.subgraphs[0]
    number = next(int(one.tensorIndex) for one in signature_of(model, graph).outputs if one.name == name.encode())
    makers = {int(out): op for op in graph.operators for out in op.outputs}
    found = []
    for tensor in (number, int(makers[number].inputs[0])):
        code = model.operatorCodes[makers[tensor].opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) != schema.BuiltinOperator.CONV_2D:
            raise ValueError(f"{name} is not made by two convolutions")
        found.append([int(one) for one in makers[tensor].inputs])
    out, hidden = found
    return Layers(hidden[0], (hidden[1], hidden[2]), out[0], (out[1], out[2]), number)


def _scale(graph: Any, tensor: int) -> float:
    return float(graph.tensors[tensor].quantization.scale[0])


def with_features(content: bytes, name: str) -> bytes:
    """The same file with one more output, "features": what the map's layers read."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return with_output(model, "features", layers_of(model, name).features)


def with_locator(content: bytes, name: str, locator: Locator, lowest: float, highest: float) -> bytes:
    """The same file with `locator`'s two layers, quantised as the file's were; its map reaches from `lowest` to
    `highest`."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    layers = layers_of(model, name)
    _measure(graph.tensors[layers.middle], 0.0, 6.0)
    given = ((layers.hidden, layers.features, locator.hidden), (layers.out, layers.middle, locator.out))
    for (weight, bias), source, layer in given:
        kernel = layer.weight.detach().numpy()[:, :, 0, 0].astype(np.float64)
        scales = np.abs(kernel).max(1).clip(1e-8) / 127
        sums = scales * _scale(graph, source)
        assert layer.bias is not None
        _put(model, weight, np.round(kernel / scales[:, None]).astype(np.int8), scales)
        _put(model, bias, np.round(layer.bias.detach().numpy() / sums).astype(np.int32), sums)
    _measure(graph.tensors[layers.map], lowest, highest)
    return packed(model)


def _measure(tensor: Any, lowest: float, highest: float) -> None:
    step = (highest - lowest) / 255
    tensor.quantization.scale = np.array([step], np.float32)
    tensor.quantization.zeroPoint = np.array([round(-128 - lowest / step)], np.int64)


def _put(model: Any, tensor: int, values: np.ndarray, scales: np.ndarray) -> None:
    entry = model.subgraphs[0].tensors[tensor]
    model.buffers[entry.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    entry.quantization.scale = scales.astype(np.float32)


@dataclass(frozen=True)
class Samples:
    """Features (n, 112, h, w) float16, how much of each cell is lesion (boxed, h, w) of the first, and the grades."""

    features: np.ndarray
    lesion: np.ndarray
    grade: np.ndarray


def make_samples(
    content: bytes, name: str, folder: Path, photographs: Sequence[data.Photograph], plan: Plan
) -> Samples:
    """Training's boxed photographs as they are and `copies` times changed, then up to `unboxed` others by grade."""
    run, rng = runner(with_features(content, name)), np.random.default_rng(7)
    kept = [p for p in photographs if not p.held_out and p.quality != UNREADABLE]
    masks = lesion_masks(folder, [p.file for p in kept if p.hospital == "IDRiD"], SIZE)
    boxed = [p for p in kept if p.file in masks]
    clear, ill = ([p for p in kept if p.file not in masks and p.grade in grades] for grades in ((0,), (2, 3, 4)))
    half = min(plan.unboxed // 2, len(clear), len(ill))
    others = [group[i] for group in (clear, ill) for i in rng.permutation(len(group))[:half]]
    features, lesion, grade = [], [], []

    def add(pixels: np.ndarray, of: data.Photograph) -> None:
        features.append(run(pixels)["features"].transpose(2, 0, 1).astype(np.float16))
        grade.append(of.grade)

    images = load_photographs(folder, [*boxed, *others])
    for p, image in zip(boxed, tqdm(images[: len(boxed)], desc="boxed", mininterval=10), strict=True):
        for copy in range(plan.copies + 1):
            picture, mask = data.unsigned(image), masks[p.file]
            if copy:
                picture, matrix = augment_normalised(picture, rng, SIZE, 0.1)
                mask = place(mask, matrix, SIZE, 0)
            add(data.signed(picture), p)
            side = features[-1].shape[1]
            lesion.append(mask.reshape(side, SIZE // side, side, SIZE // side).mean((1, 3), dtype=np.float32) / 255)
    for p, image in zip(others, tqdm(images[len(boxed) :], desc="others", mininterval=10), strict=True):
        add(np.asarray(image), p)
    return Samples(np.stack(features), np.stack(lesion), np.array(grade))


def fit(samples: Samples, steps: int) -> Locator:
    """A locator by cross-entropy of every boxed cell, and of every grade by the map's strongest cells."""
    torch.manual_seed(7)
    locator, rng = Locator(), np.random.default_rng(7)
    optimiser = torch.optim.AdamW(locator.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps + 1, pct_start=0.1)
    boxed, grades = len(samples.lesion), softened(torch.from_numpy(samples.grade), 4)
    unboxed = len(samples.features) - boxed
    for _ in tqdm(range(steps), desc="map", mininterval=10):
        share = BOXED_OF_BATCH if unboxed else BATCH
        rows = rng.integers(0, boxed, share)
        if unboxed:
            rows = np.concatenate([rows, boxed + rng.integers(0, unboxed, BATCH - share)])
        located = locator(torch.from_numpy(samples.features[rows].astype(np.float32)))
        lesion = torch.from_numpy(samples.lesion[rows[:share]])
        loss = F.binary_cross_entropy_with_logits(located[:share, REFERABLE - 1], lesion)
        whole = located.flatten(2).topk(STRONGEST, dim=2).values.mean(2)
        loss = loss + GRADE * F.binary_cross_entropy_with_logits(whole, grades[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return locator.eval()


def teach(content: bytes, name: str, folder: Path, photographs: Sequence[data.Photograph], plan: Plan) -> bytes:
    """`content` with a map, its output `name`, that was learnt from `photographs`' boxes.

    Raises
    ------
    SystemExit
        Another output of the file changed.
    """
    samples = make_samples(content, name, folder, photographs, plan)
    locator = fit(samples, plan.steps)
    ends = []
    with torch.no_grad():
        for part in np.array_split(samples.features, -(-len(samples.features) // 64)):
            located = locator(torch.from_numpy(part.astype(np.float32)))
            ends.append((float(located.min()), float(located.max())))
    lowest, highest = np.array(ends)[:, 0].min(), np.array(ends)[:, 1].max()
    taught = with_locator(content, name, locator, float(lowest), float(highest))
    before, after = (Interpreter(one, target=name) for one in (content, taught))
    counts = np.random.default_rng(0).integers(-128, 128, before.input.shape).astype(np.int8)
    number = before.output_number(name)
    for i, (one, other) in enumerate(zip(before.run(counts), after.run(counts), strict=True)):
        if i != number and not np.array_equal(one, other):
            raise SystemExit(f"output {i} changed with the map")
    return taught


def main() -> None:
    """Command line: a new map for models that are finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["fundus-dr", "fundus-dr-open"], metavar="NAME")
    parser.add_argument("--data", help="folder of the recordings (default: $AIDPOST_DATA, else ../shared/data)")
    parser.add_argument("--models", type=Path, default=data.MODELS, help="folder of the models")
    parser.add_argument("--work", type=Path, default=data.WORK, help="where caches go")
    arguments = parser.parse_args()
    data.WORK = arguments.work
    torch.set_num_threads(1)
    folder = data.data_folder(arguments.data)
    photographs = data.read_labels(folder)
    for name in arguments.names:
        home = arguments.models / name
        card, old = read_card(home), (home / "model.tflite").read_bytes()
        own = [p for p in photographs if p.hospital in data.hospitals_of(name)]
        content = teach(old, str(card.output.heatmap), folder, own, Plan())
        hits = heatmap_hits(runner(content), folder, [p for p in photographs if p.held_out], SIZE)
        print(heatmap_text(hits))
        text = (home / "CARD.md").read_text(encoding="utf-8")
        text = with_paragraph(text, heatmap_text(hits), before="**Macular oedema.**")
        text = text.replace(f"# {name} {card.version}", f"# {name} {VERSION}")
        (home / "CARD.md").write_text(text, encoding="utf-8")
        told = (home / "card.toml").read_text(encoding="utf-8")
        told = told.replace(card.sha256, hashlib.sha256(content).hexdigest())
        told = told.replace(f'version = "{card.version}"', f'version = "{VERSION}"', 1)
        (home / "model.tflite").write_bytes(content)
        (home / "card.toml").write_text(told, encoding="utf-8")
        load_model(home)


if __name__ == "__main__":
    main()
