"""Train the diabetic-retinopathy grader and write `inference/models/fundus-dr`: one command from the data folder to
the card.

    python training/fundus_dr.py [--data FOLDER] [--out FOLDER] [--open] [--tiny] [--fresh]

Resumes from its last checkpoint unless `--fresh`, and only one of the same plan; prints the figures that the card
quotes. `--open` trains on IDRiD alone, which is openly licensed, and writes `fundus-dr-open`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _fundus_data as data
import _fundus_dr_card as card
import lesion_map
import numpy as np
import torch
from _fundus_card import write_model
from _fundus_dr_report import calibrate
from _fundus_dr_task import LOCATED_BLOCKS, SIZE, DrNet, DrTask, Locator, load_photographs, predict_twin
from _fundus_export import runner, to_tflite
from _fundus_loop import Plan, averaged_model, train
from embedding import MOST, give_embedding

PLAN = Plan(epochs=22, steps=100, batch=32, size=SIZE, first_size=256, first_share=0.7)
OPEN = Plan(epochs=4, steps=100, batch=16, size=SIZE, first_size=256, workers=1, average=0.99, warm_up=40, horizon=440)
TINY = Plan(epochs=1, steps=2, batch=8, size=SIZE, workers=1, warm_up=1, horizon=3)
SHARE = {"IDRiD": 0.2, "EyePACS": 0.8}


def fold(model: DrNet, held: list[data.Photograph], images: np.ndarray, hospitals: Collection[str]) -> np.ndarray:
    """Put the calibration, made on `hospitals`' validation photographs, into the heads' weights: the model's logits
    are calibrated ones.

    Gives the float network's calibrated logits of the grade for `images`.
    """
    grade, oedema = predict_twin(model, images)
    own = np.array([p.hospital in hospitals for p in held])
    pairs = calibrate([p for p in held if p.hospital in hospitals], grade[own], oedema[own])
    with torch.no_grad():
        for head, of_head in zip((model.dr, model.dme), pairs, strict=True):
            slope, offset = (torch.tensor(column, dtype=torch.float32) for column in zip(*of_head, strict=True))
            head.weight *= slope[:, None, None, None]
            head.bias.copy_(head.bias * slope + offset)
    slopes, offsets = np.array(pairs[0]).T
    return grade * slopes + offsets


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of the recordings (default: $AIDPOST_DATA, else ../shared/data)")
    parser.add_argument("--out", type=Path, default=data.MODELS, help="where the model's folder goes")
    parser.add_argument("--open", action="store_true", help="train on openly licensed photographs alone")
    parser.add_argument("--tiny", action="store_true", help="a few photographs and steps, to test the way through")
    parser.add_argument("--fresh", action="store_true", help="ignore checkpoints")
    parser.add_argument("--work", type=Path, default=data.WORK, help="where checkpoints and caches go")
    arguments = parser.parse_args()
    data.WORK = arguments.work
    folder = data.data_folder(arguments.data)
    name = "fundus-dr-open" if arguments.open else "fundus-dr"
    work = data.WORK / (name.removeprefix("fundus-") + ("-tiny" if arguments.tiny else ""))
    photographs = data.read_labels(folder)
    if arguments.tiny:
        photographs = data.subset(photographs, 1)
    if arguments.fresh:
        for file in work.glob("*.pt"):
            file.unlink()
    share = {"IDRiD": 1.0} if arguments.open else SHARE
    plan = TINY if arguments.tiny else OPEN if arguments.open else PLAN
    maker = partial(DrTask, folder, photographs, share, work)
    task = maker()  # makes the caches before the workers need them
    train(maker, plan, work / "checkpoint.pt")
    model = averaged_model(task, plan, work / "checkpoint.pt")
    held = [p for p in photographs if p.held_out]
    images = np.asarray(load_photographs(folder, held, SIZE))
    twin = fold(model, held, images, share)
    locator = Locator()
    early_map = ("dr_map", LOCATED_BLOCKS, (locator.hidden, locator.out))
    heads = {"dr": model.dr, "dme": model.dme}
    content = to_tflite(model.backbone, heads, SIZE, task.calibration(8 if arguments.tiny else 160), early_map)
    own = [p for p in photographs if p.hospital in share]
    content = lesion_map.teach(
        content, early_map[0], folder, own, lesion_map.TINY if arguments.tiny else lesion_map.Plan()
    )
    evaluation = card.evaluate(twin, runner(content), folder, held, images, share)
    described = card.describe(name, evaluation, runner(content), len(content), share)
    print(described[1])
    written = write_model(name, content, *described, root=arguments.out)
    give_embedding(written, folder.parent, 8 if arguments.tiny else MOST)
    print(f"wrote {written}")


if __name__ == "__main__":
    main()
