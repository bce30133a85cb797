"""Give finished models an embedding, so that a device can learn a small head on them.

    python training/embedding.py [--data FOLDER] [--models FOLDER] [NAME...]

The tensor that the last layer reads, which the file computes anyway, is named as a further output; no weight, no
operation and no other output changes, and the golden recordings are compared before anything is written. Mean and
half-whitening basis of the embedding are measured on the recordings that the model was trained on, and go beside it
(`embedding.npz`). Run it again after a model was trained anew; on a model that has its embedding it measures again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from _embedding import NAME, expose

from aidpost.inference._card import Card, read_card
from aidpost.inference._fundus_input import dr_input, whole_picture
from aidpost.inference._rhythm_input import rhythm_input, rhythm_windows
from aidpost.inference.model import load_model
from aidpost.inference.runtime import Interpreter
from aidpost.kernels.fundus import decode

WIDTH = 32
"""Features of a head: directions of the embedding, by how much varies along them."""
MOST = 800
"""Recordings that mean and basis are measured on."""


def half_whitening(embeddings: np.ndarray, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Mean (channels,) and basis (channels, width) of embeddings (n, channels), by which features are uncorrelated and
    of mean square length one. Each direction is divided by the square root of its deviation: undivided, gradient steps
    need hundreds of rounds; divided by all of it, what hardly varies drowns what was learned. Directions beyond the
    data's rank are zero."""
    mean = embeddings.mean(axis=0)
    _, scales, directions = np.linalg.svd(embeddings - mean, full_matrices=False)
    deviation = scales / np.sqrt(max(len(embeddings) - 1, 1))
    basis = np.zeros((embeddings.shape[1], width))
    deviation = deviation[:width]
    kept = int((deviation > 1e-3 * deviation[0]).sum())
    # the sign of a direction is arbitrary: its largest part is positive, so that the file is the same each time
    signs = np.sign(directions[np.arange(kept), np.abs(directions[:kept]).argmax(axis=1)])
    basis[:, :kept] = (directions[:kept] * signs[:, None]).T / np.sqrt(deviation[:kept] * deviation[:kept].sum())
    return mean.astype(np.float32), basis.astype(np.float16)


def inputs_of(card: Card, data: Path, most: int) -> Iterator[np.ndarray]:
    """The model's inputs for recordings that it was trained on, each (windows, ...), int8 or float32."""
    if card.task == "ecg-rhythm":
        from ecg_data import read_cinc

        recordings = read_cinc(data)
        for i in chosen(len(recordings.samples_mv), most):
            yield rhythm_windows(rhythm_input(recordings.samples_mv[i], recordings.fs_hz))[:, None]
        return
    from _fundus_data import data_folder, hospitals_of, read_labels

    folder, side = data_folder(str(data)), card.input.shape[1]
    rows = [row for row in read_labels(folder) if row.hospital in hospitals_of(card.name) and not row.held_out]
    for i in chosen(len(rows), most):
        photo = decode((folder / rows[i].file).read_bytes(), side)
        yield dr_input(photo.rgb, photo.field or whole_picture(photo.rgb), side).pixels[None, None]


def chosen(count: int, most: int) -> np.ndarray:
    """Up to `most` of `count` rows, always the same ones."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def embed(interpreter: Interpreter) -> Callable[[np.ndarray], np.ndarray]:
    """A function from one recording's inputs to its embedding (channels,): the mean over windows and space."""
    number = interpreter.output_number(NAME)

    def mean(windows: np.ndarray) -> np.ndarray:
        outputs = [interpreter.run(window)[number] for window in windows]
        return np.stack([one.reshape(-1, one.shape[-1]).mean(axis=0) for one in outputs]).mean(axis=0)

    return mean


def give_embedding(folder: Path, data: Path, most: int = MOST) -> None:
    """Do it to the model in `folder`, with statistics of up to `most` recordings; the files change when all is well."""
    card = read_card(folder)
    old = (folder / "model.tflite").read_bytes()
    content = expose(old, card.output.index)
    before, after = (Interpreter(one, target=card.name) for one in (old, content))
    count = np.random.default_rng(0).integers(-128, 128, card.input.shape).astype(np.int8)
    for one, other in zip(before.run(count), after.run(count), strict=False):
        if not np.array_equal(one, other):
            raise SystemExit(f"{card.name}: an output changed")
    recording = embed(after)
    embeddings = np.stack([recording(windows) for windows in inputs_of(card, data, most)])
    mean, basis = half_whitening(embeddings)
    packed = io.BytesIO()
    np.savez(packed, mean=mean, basis=basis)
    text = (folder / "card.toml").read_text(encoding="utf-8")
    text = text.replace(card.sha256, hashlib.sha256(content).hexdigest())
    text = re.sub(r"\n\[embedding\]\n(?:[^\[\n][^\n]*\n)*", "", text)
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    text += f'\n[embedding]\noutput = "{NAME}"\nsha256 = "{digest}"\n'
    (folder / "model.tflite").write_bytes(content)
    (folder / "embedding.npz").write_bytes(packed.getvalue())
    (folder / "card.toml").write_text(text, encoding="utf-8")
    load_model(folder)
    print(f"{card.name}: {embeddings.shape[1]} channels, {basis.shape[1]} features from {len(embeddings)} recordings")


def main() -> None:
    """Command line."""
    top = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["ecg-rhythm", "fundus-dr", "fundus-dr-open"], metavar="NAME")
    parser.add_argument("--data", type=Path, default=top.parent / "shared" / "data", help="folder of the recordings")
    parser.add_argument("--models", type=Path, default=top / "inference" / "models", help="folder of the models")
    arguments = parser.parse_args()
    for name in arguments.names:
        give_embedding(arguments.models / name, arguments.data)


if __name__ == "__main__":
    main()
