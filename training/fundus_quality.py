"""Train the photograph-quality model and write `inference/models/fundus-quality`: one command from the data folder to
the card.

    python training/fundus_quality.py [--data FOLDER] [--out FOLDER] [--others FOLDER] [--tiny] [--fresh]

The features and the trained tail are kept and found again unless `--fresh`; prints the figures that the card quotes.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _fundus_data as data
import _fundus_quality_report as report
import _fundus_quality_task as task
import numpy as np
import torch
from _fundus_card import write_model
from _fundus_export import FrozenFront, runner, to_tflite


@dataclass(frozen=True)
class Plan:
    """Augmented copies of a photograph, drawn pictures of other things, passes over them, calibration pictures."""

    copies: int = 2
    drawn: int = 1200
    epochs: int = 5
    calibration: int = 200
    seed: int = 1


TINY = Plan(copies=1, drawn=12, epochs=1, calibration=8)


def fit(folder: Path, photographs: list[data.Photograph], plan: Plan, work: Path) -> task.QualityNet:
    """The trained network."""
    checkpoint = work / "model.pt"
    model = task.QualityNet()
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(state["model"])
        return model.eval()
    features_file = work / "features.pkl"
    if not features_file.is_file():
        crops = task.load_crops(folder, photographs, task.CACHE_SIZE)
        rng = np.random.default_rng(plan.seed)
        samples = task.make_samples(photographs, crops, plan.copies, plan.drawn, rng)
        chosen = rng.choice(len(samples.images), min(320, len(samples.images)), replace=False)
        torch.manual_seed(plan.seed)
        model = task.initial_model(np.stack([samples.images[i] for i in chosen]))
        calibration = np.stack([samples.images[i] for i in chosen[: plan.calibration]])
        front = FrozenFront.convert(model.backbone, task.FROZEN_BLOCKS, calibration)
        features = task.front_features(FrozenFront(front), samples.images)
        samples.images.clear()
        with features_file.open("wb") as stream:
            pickle.dump((model.state_dict(), front, features, samples), stream)
    with features_file.open("rb") as stream:
        state, front, features, samples = pickle.load(stream)
    model.load_state_dict(state)
    task.fit_tail(model, FrozenFront(front), features, samples, plan.epochs, plan.seed)
    torch.save({"model": model.state_dict()}, checkpoint)
    return model


def undo_shift(model: task.QualityNet, run: report.Run, images: np.ndarray) -> None:
    """Take back in the heads' biases what int8 adds to each logit on average over training's pictures.

    Averages over a map that is nearly constant keep their rounding, so that int8 shifts the line between good and
    usable.
    """
    answers = [run(image) for image in images]
    for head, twin, name in zip(
        (model.quality, model.reasons), task.predict_twin(model, images), ("quality", "reasons"), strict=True
    ):
        shift = np.mean([answer[name] for answer in answers], axis=0) - twin.mean(0)
        with torch.no_grad():
            head.bias -= torch.from_numpy(shift.astype(np.float32))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of the recordings (default: $AIDPOST_DATA, else ../shared/data)")
    parser.add_argument("--out", type=Path, default=data.MODELS, help="where the model's folder goes")
    parser.add_argument("--others", type=Path, help="a folder of photographs of other things, to test on as well")
    parser.add_argument("--tiny", action="store_true", help="a few photographs and steps, to test the way through")
    parser.add_argument("--fresh", action="store_true", help="ignore what an earlier run left")
    parser.add_argument("--work", type=Path, default=data.WORK, help="where checkpoints and caches go")
    arguments = parser.parse_args()
    data.WORK = arguments.work
    torch.set_num_threads(1)
    folder = data.data_folder(arguments.data)
    plan = TINY if arguments.tiny else Plan()
    photographs = [p for p in data.read_labels(folder) if p.quality is not None or p.hospital == "IDRiD"]
    if arguments.tiny:
        photographs = data.subset(photographs, 2)
    work = data.WORK / ("quality-tiny" if arguments.tiny else "quality")
    work.mkdir(parents=True, exist_ok=True)
    if arguments.fresh:
        for file in [*work.glob("*.pt"), *work.glob("*.pkl")]:
            file.unlink()
    kept = [p for p in photographs if not p.held_out and p.quality is not None] or photographs
    model = fit(folder, [p for p in photographs if not p.held_out], plan, work)
    heads = {"quality": model.quality, "reasons": model.reasons}
    # real photographs: the wilder pictures would only widen the ranges that eight bits have to cover
    calibration = np.asarray(task.load_crops(folder, kept[:: max(len(kept) // plan.calibration, 1)], task.SIZE))
    undo_shift(model, runner(to_tflite(model.backbone, heads, task.SIZE, calibration)), calibration)
    content = to_tflite(model.backbone, heads, task.SIZE, calibration)
    held = [p for p in photographs if p.held_out]
    evaluation = report.evaluate(model, runner(content), folder, held, arguments.others, 4 if arguments.tiny else 100)
    card, text, golden = report.describe(evaluation, runner(content), content)
    print(text)
    print(f"wrote {write_model('fundus-quality', content, card, text, golden, arguments.out)}")


if __name__ == "__main__":
    main()
