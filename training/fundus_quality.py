"""Train the photograph-quality model and write `inference/models/fundus-quality`: one command from the data folder to
the card.

    python training/fundus_quality.py [--data FOLDER] [--out FOLDER] [--others FOLDER] [--tiny] [--fresh]

The features and the trained heads are kept and found again unless `--fresh`; prints the figures that the card quotes.
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
from _fundus_export import FrozenFront, pooled_tflite, runner


@dataclass(frozen=True)
class Plan:
    """Changed copies of a photograph, drawn pictures of other things, passes over them, calibration pictures, folds of
    cross-validation."""

    copies: int = 2
    drawn: int = 1400
    epochs: int = 8
    calibration: int = 160
    folds: int = 4
    members: int = task.MEMBERS
    seed: int = 1


TINY = Plan(copies=1, drawn=12, epochs=1, calibration=8, folds=2)


def prepare(
    folder: Path, photographs: list[data.Photograph], plan: Plan, file: Path
) -> tuple[np.ndarray, task.Samples]:
    """Calibration pictures, and the features of training's samples: kept in `file`, since they take longest."""
    if file.is_file():
        with file.open("rb") as stream:
            calibration, front, columns = pickle.load(stream)
        return calibration, task.Samples(FrozenFront(front), *columns)
    crops = task.load_crops(folder, photographs, task.CACHE_SIZE)
    calibration = task.calibration_images(crops, plan.calibration, plan.seed)
    front = FrozenFront.convert(task.imagenet(), task.POOLED_AFTER, calibration)
    exact = task.load_crops(folder, photographs, task.SIZE)
    samples = task.make_samples(FrozenFront(front), photographs, exact, crops, plan.copies, plan.drawn, plan.seed)
    columns = (samples.features, samples.quality, samples.reasons, samples.patient, samples.plain)
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        pickle.dump((calibration, front, columns), stream)
    part.replace(file)
    return calibration, samples


def fit(samples: task.Samples, plan: Plan, checkpoint: Path) -> tuple[task.Heads, tuple[np.ndarray, np.ndarray]]:
    """The trained heads, and cross-validation's logits and labels."""
    state = torch.load(checkpoint, weights_only=False) if checkpoint.is_file() else {}
    rows = np.arange(len(samples.features))
    members = []
    for number in range(plan.members):
        if number not in state:
            state[number] = task.fit_heads(samples, rows, plan.epochs, plan.seed + number).state_dict()
            torch.save(state, checkpoint)
        members.append(task.Heads(len(samples.features[0])))
        members[-1].load_state_dict(state[number])
    if "validation" not in state:
        state["validation"] = task.cross_validate(samples, plan.epochs, plan.folds, plan.seed)
        torch.save(state, checkpoint)
    return task.mean_of(members), state["validation"]


def undo_shift(model: task.QualityNet, run: report.Run, front: FrozenFront, images: np.ndarray) -> None:
    """Take back in the heads' biases what int8 adds to each logit on average over training's photographs."""
    views = [np.stack([front(image) for image in some]) for some in (images, np.flip(images, 2))]
    with torch.no_grad():
        wanted = model.of_both(*(torch.from_numpy(view) for view in views))
    answers = [run(image) for image in images]
    for (name, head), logits in zip(model.heads.heads.items(), wanted, strict=True):
        shift = np.mean([answer[name] for answer in answers], axis=0) - logits.numpy().mean(0)
        with torch.no_grad():
            head.bias -= torch.from_numpy(shift.astype(np.float32))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of the recordings (default: $AIDPOST_DATA, else ../shared/data)")
    parser.add_argument("--out", type=Path, default=data.MODELS, help="where the model's folder goes")
    parser.add_argument("--others", type=Path, help="a folder of pictures of other things, to test on as well")
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
    calibration, samples = prepare(folder, [p for p in photographs if not p.held_out], plan, work / "features.pkl")
    heads, validation = fit(samples, plan, work / "heads.pt")
    model = task.QualityNet(task.imagenet(), heads)

    def convert() -> bytes:
        return pooled_tflite(model.backbone, task.POOLED_AFTER, heads, calibration)

    undo_shift(model, runner(convert()), samples.front, calibration[: plan.calibration])
    content = convert()
    held = [p for p in photographs if p.held_out]
    drawn = 4 if arguments.tiny else 100
    evaluation = report.evaluate(model, runner(content), folder, held, validation, arguments.others, drawn)
    card, text, golden = report.describe(evaluation, runner(content), content)
    print(text)
    print(f"wrote {write_model('fundus-quality', content, card, text, golden, arguments.out)}")


if __name__ == "__main__":
    main()
