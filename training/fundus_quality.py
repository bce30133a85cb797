"""Train the photograph-quality model and write `inference/models/fundus-quality`: one command from the data folder to
the card.

    python training/fundus_quality.py [--data FOLDER] [--out FOLDER] [--others FOLDER] [--tiny]

Takes minutes; prints the figures that the card quotes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _fundus_data as data
import _fundus_quality_report as report
import _fundus_quality_task as task
import numpy as np
import torch
from _fundus_card import write_model
from _fundus_export import levels_to_tflite, runner

DRAWN, TINY_DRAWN = 1500, 12
CALIBRATION = 200


def fit(folder: Path, photographs: list[data.Photograph], drawn: int) -> task.QualityNet:
    """The trained network."""
    plain, larger = (task.load_crops(folder, photographs, size) for size in (task.SIZE, task.CACHE_SIZE))
    samples = task.make_samples(photographs, plain, larger, drawn, np.random.default_rng(1))
    model = task.new_model()
    task.fit_heads(model, task.all_features(model, samples.images), samples)
    return model


def undo_shift(model: task.QualityNet, run: report.Run, images: np.ndarray) -> None:
    """Take back in the heads' biases what int8 adds to each logit on average over training's pictures.

    Averages over a map that is nearly constant keep their rounding, so that int8 shifts the line between good and
    usable.
    """
    answers = [run(image) for image in images]
    for twin, (name, layers) in zip(task.predict_twin(model, images), model.heads().items(), strict=True):
        shift = np.mean([answer[name] for answer in answers], axis=0) - twin.mean(0)
        with torch.no_grad():
            bias = layers[min(layers)].bias
            assert bias is not None
            bias -= torch.from_numpy(shift.astype(np.float32))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of the recordings (default: $AIDPOST_DATA, else ../shared/data)")
    parser.add_argument("--out", type=Path, default=data.MODELS, help="where the model's folder goes")
    parser.add_argument("--others", type=Path, help="a folder of photographs of other things, to test on as well")
    parser.add_argument("--tiny", action="store_true", help="a few photographs and steps, to test the way through")
    parser.add_argument("--work", type=Path, default=data.WORK, help="where caches go")
    arguments = parser.parse_args()
    data.WORK = arguments.work
    torch.set_num_threads(1)
    folder = data.data_folder(arguments.data)
    photographs = [p for p in data.read_labels(folder) if p.quality is not None or p.hospital == "IDRiD"]
    if arguments.tiny:
        photographs = data.subset(photographs, 2)
    kept = [p for p in photographs if not p.held_out and p.quality is not None] or photographs
    model = fit(folder, [p for p in photographs if not p.held_out], TINY_DRAWN if arguments.tiny else DRAWN)
    # real photographs: the wilder pictures would only widen the ranges that eight bits have to cover
    calibration = np.asarray(task.load_crops(folder, kept[:: max(len(kept) // CALIBRATION, 1)], task.SIZE))
    undo_shift(model, runner(levels_to_tflite(model.backbone, model.heads(), task.SIZE, calibration)), calibration)
    content = levels_to_tflite(model.backbone, model.heads(), task.SIZE, calibration)
    held = [p for p in photographs if p.held_out]
    evaluation = report.evaluate(model, runner(content), folder, held, arguments.others, 4 if arguments.tiny else 100)
    card, text, golden = report.describe(evaluation, runner(content), content)
    print(text)
    print(f"wrote {write_model('fundus-quality', content, card, text, golden, arguments.out)}")


if __name__ == "__main__":
    main()
