"""The golden recordings of a model: raw simulated recordings and the probabilities that they must give.

`golden.npz` holds, for i from 0: `signal_<i>` (n,) millivolts with `fs_hz_<i>` for an ECG model (and `peaks_<i>`, its
R-peaks, for one of beats, so that a better detector does not change the answer), or `photo_<i>` (bytes
of a PNG or JPEG file, uint8) for a fundus model, and `expected_<i>`, calibrated probabilities.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aidpost.errors import AidpostError, ModelIntegrityError
from aidpost.inference._card import card_error

if TYPE_CHECKING:
    from aidpost.inference.model import Model

Arrays = Mapping[str, npt.NDArray[Any]]
Answer = npt.NDArray[np.float64]


def largest_difference(path: Path, model: Model) -> float:
    """How far the probabilities for the golden recordings lie from the expected ones, at most.

    Raises
    ------
    ModelIntegrityError
        There are none, they cannot be read or do not fit the model, or the preprocessing has another version.
    """
    golden = _read(path)
    worst = 0.0
    for i, answer in enumerate(_answers(path, golden, model)):
        expected = golden[f"expected_{i}"]
        if answer.shape != expected.shape:
            cause = f"expected_{i} has the shape {expected.shape}, the answer {answer.shape}"
            raise card_error(path, f"a golden recording cannot be analysed: {cause}")
        worst = max(worst, float(np.max(np.abs(answer - expected))))
    return worst


def answers(path: Path, model: Model) -> list[Answer]:
    """The probabilities for each golden recording, (labels,). Raises as `largest_difference`."""
    return _answers(path, _read(path), model)


def write_answers(path: Path, model: Model) -> None:
    """Put the model's own answers in the place of the expected ones: for a new version of it. Raises as
    `largest_difference`."""
    golden = _read(path)
    found = _answers(path, golden, model)
    np.savez_compressed(path, **golden | {f"expected_{i}": answer for i, answer in enumerate(found)})  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise card_error(path, str(error)) from error


def _answers(path: Path, golden: Arrays, model: Model) -> list[Answer]:
    count = sum(name.startswith("expected_") for name in golden)
    if count == 0:
        raise card_error(path, "it holds no golden recording")
    try:
        return [_ANSWERS[model.card.task](model, golden, str(i)) for i in range(count)]
    except ModelIntegrityError:
        raise
    except (KeyError, ValueError, AidpostError) as error:
        raise card_error(path, f"a golden recording cannot be analysed: {error}") from error


# The imports are within, so that an ECG does not wait for OpenCV.


def _rhythm(model: Model, golden: Arrays, i: str) -> Answer:
    from aidpost.inference._rhythm import rhythm_probabilities

    signal, fs_hz = golden[f"signal_{i}"].astype(np.float64), float(golden[f"fs_hz_{i}"])
    answer: Answer = rhythm_probabilities(model, signal, fs_hz).mean(axis=0)
    return answer


def _beats(model: Model, golden: Arrays, i: str) -> Answer:
    from aidpost.inference._beats import beat_probabilities

    signal, fs_hz = golden[f"signal_{i}"].astype(np.float64), float(golden[f"fs_hz_{i}"])
    return beat_probabilities(model, signal, fs_hz, golden[f"peaks_{i}"])


def _photo(model: Model, golden: Arrays, i: str) -> Answer:
    from aidpost.inference._grading import photo_probabilities

    return photo_probabilities(model, golden[f"photo_{i}"].tobytes())


_ANSWERS: dict[str, Callable[[Model, Arrays, str], Answer]] = {
    "ecg-rhythm": _rhythm,
    "ecg-beats": _beats,
    "fundus-quality": _photo,
    "fundus-dr": _photo,
}
