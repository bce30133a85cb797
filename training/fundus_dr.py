"""Train the diabetic-retinopathy grader and write `inference/models/fundus-dr`: one command from the data folder to
the card.

    python training/fundus_dr.py [--data FOLDER] [--out FOLDER] [--open | --unseen] [--tiny] [--fresh]

Resumes from its last checkpoint unless `--fresh`, and only one of the same plan; prints the figures that the card
quotes. `--open` trains on IDRiD alone, which is openly licensed, and writes `fundus-dr-open`. `--unseen` trains by the
same plan on EyePACS alone and writes how it does on IDRiD, a hospital that it never saw, onto the card of `fundus-dr`.
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
from _fundus_card import interval, with_paragraph, write_model
from _fundus_dr_report import calibrate
from _fundus_dr_task import LOCATED_BLOCKS, SIZE, DrNet, DrTask, Locator, load_photographs, predict_twin
from _fundus_export import runner, to_tflite
from _fundus_loop import Plan, averaged_model, train
from _fundus_metrics import auc, bootstrap, quadratic_kappa
from embedding import MOST, give_embedding

PLAN = Plan(epochs=22, steps=100, batch=32, size=SIZE, first_size=256, first_share=0.7)
OPEN = Plan(epochs=4, steps=100, batch=16, size=SIZE, first_size=256, workers=1, average=0.99, warm_up=40, horizon=440)
TINY = Plan(epochs=1, steps=2, batch=8, size=SIZE, workers=1, warm_up=1, horizon=3)
KINDS = {
    "fundus-dr": ({"IDRiD": 0.2, "EyePACS": 0.8}, PLAN),
    "fundus-dr-open": ({"IDRiD": 1.0}, OPEN),
    "fundus-dr-unseen": ({"EyePACS": 1.0}, PLAN),
}
"""Whose photographs each is trained on, by their shares, and how long."""


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


def unseen(model: DrNet, calibration: np.ndarray, folder: Path, other: list[data.Photograph]) -> str:
    """A card's paragraph: what the int8 network makes of `other`, all photographs of a hospital that it never saw."""
    run = runner(to_tflite(model.backbone, {"dr": model.dr}, SIZE, calibration))
    logits = np.array([run(image)["dr"].ravel() for image in load_photographs(folder, other, SIZE)])
    grade = np.array([p.grade for p in other])
    area = interval(bootstrap(auc, grade >= 2, logits[:, 1]))
    kappa = interval(bootstrap(quadratic_kappa, grade, (np.minimum.accumulate(logits, 1) > 0).sum(1)))
    return f"""**At a hospital it never saw.** A second network, trained by the same plan without any photograph of
    IDRiD (`fundus_dr.py --unseen`), has a referable AUC of {area} on all {len(other)} of them, and a kappa of {kappa}
    with every threshold at one half: what another hospital may hope for, though the plan was chosen with some of these
    photographs in sight. The network that ships has learnt from that hospital as well."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of the recordings (default: $AIDPOST_DATA, else ../shared/data)")
    parser.add_argument("--out", type=Path, default=data.MODELS, help="where the model's folder goes")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--open", action="store_true", help="train on openly licensed photographs alone")
    which.add_argument("--unseen", action="store_true", help="only measure: train on EyePACS alone, try it on IDRiD")
    parser.add_argument("--tiny", action="store_true", help="a few photographs and steps, to test the way through")
    parser.add_argument("--fresh", action="store_true", help="ignore checkpoints")
    parser.add_argument("--work", type=Path, default=data.WORK, help="where checkpoints and caches go")
    arguments = parser.parse_args()
    data.WORK = arguments.work
    folder = data.data_folder(arguments.data)
    name = "fundus-dr-open" if arguments.open else "fundus-dr-unseen" if arguments.unseen else "fundus-dr"
    share, plan = KINDS[name]
    plan = TINY if arguments.tiny else plan
    work = data.WORK / (name.removeprefix("fundus-") + ("-tiny" if arguments.tiny else ""))
    photographs = data.read_labels(folder)
    if arguments.tiny:
        photographs = data.subset(photographs, 1)
    if arguments.fresh:
        for file in work.glob("*.pt"):
            file.unlink()
    maker = partial(DrTask, folder, photographs, share, work)
    task = maker()  # makes the caches before the workers need them
    train(maker, plan, work / "checkpoint.pt")
    model = averaged_model(task, plan, work / "checkpoint.pt")
    if arguments.unseen:
        calibration = task.calibration(8 if arguments.tiny else 160)
        paragraph = unseen(model, calibration, folder, [p for p in photographs if p.hospital not in share])
        print(paragraph)
        text = arguments.out / "fundus-dr" / "CARD.md"
        told = with_paragraph(text.read_text(encoding="utf-8"), paragraph, before="**Abstention.**")
        text.write_text(told, encoding="utf-8")
        return
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
