"""The grader's heatmap: learnt from boxes, put into a finished file, and pointing at lesions in those that ship."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "training"))

from aidpost.inference.model import SHIPPED, load_model  # noqa: E402

DATA = Path(os.environ.get("AIDPOST_DATA", REPOSITORY.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "fundus" / "labels.csv").is_file(), reason=f"no recordings at {DATA}")
needs_training = pytest.mark.skipif(
    find_spec("torch") is None, reason="the training environment (aidpost[train]) is not installed"
)
GRADERS = ["fundus-dr", "fundus-dr-open"]


@needs_data
@pytest.mark.parametrize("name", GRADERS)
def test_the_brightest_place_of_a_photograph_never_trained_on_is_a_lesion(name: str) -> None:
    import _fundus_data as data
    from _fundus_dr_report import heatmap_hits

    model, folder = load_model(SHIPPED / name), data.data_folder(str(DATA))
    held = [p for p in data.read_labels(folder) if p.held_out]
    side = model.card.input.shape[1]
    hits = heatmap_hits(lambda image: {"dr_map": model.activation(model.run(image))}, folder, held, side)
    assert hits["n"] >= 30
    assert hits["hit"] > 0.65
    assert hits["hit"] > 5 * hits["chance"]
    assert hits["disc"] <= hits["disc chance"]


@needs_training
@pytest.mark.parametrize("name", GRADERS)
def test_a_locator_that_is_put_into_a_file_is_what_its_map_computes_and_nothing_else_changes(name: str) -> None:
    import lesion_map
    import torch
    from _fundus_dr_task import Locator
    from _fundus_export import runner

    content = (SHIPPED / name / "model.tflite").read_bytes()
    torch.manual_seed(3)
    locator = Locator().eval()
    image = np.random.default_rng(4).integers(-90, 90, (320, 320, 3)).astype(np.int8)
    seen = runner(lesion_map.with_features(content, "dr_map"))(image)["features"]
    with torch.no_grad():
        wanted = locator(torch.from_numpy(seen.transpose(2, 0, 1)[None].copy()))[0].numpy().transpose(1, 2, 0)
    low, high = float(wanted.min()), float(wanted.max())
    before, after = (
        runner(one)(image) for one in (content, lesion_map.with_locator(content, "dr_map", locator, low, high))
    )
    assert np.abs(after["dr_map"] - wanted).max() < 0.05 * (high - low)
    assert all(np.array_equal(before[other], after[other]) for other in before if other != "dr_map")


@needs_training
def test_an_output_that_no_two_convolutions_make_is_refused() -> None:
    import lesion_map
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf((SHIPPED / "fundus-dr" / "model.tflite").read_bytes(), 0)
    with pytest.raises(ValueError, match="dr is not made by two convolutions"):
        lesion_map.layers_of(model, "dr")


@needs_training
def test_the_map_learns_what_lies_in_the_boxes_and_not_how_bad_the_eye_is() -> None:
    import lesion_map
    import torch

    rng = np.random.default_rng(5)
    features = rng.normal(0, 1, (60, 112, 8, 8)).astype(np.float16)
    lesion, grade = np.zeros((40, 8, 8), np.float32), np.zeros(60, np.int64)
    for i in range(0, 40, 2):
        y, x = rng.integers(0, 8, 2)
        lesion[i, y, x], grade[i] = 1.0, 2
        features[i, 0] += 1.0  # a bad eye, everywhere
        features[i, 1, y, x] += 6.0  # the lesion
    locator = lesion_map.fit(lesion_map.Samples(features, lesion, grade), 150)
    fresh = rng.normal(0, 1, (20, 112, 8, 8)).astype(np.float32)
    fresh[:, 0] += 1.0
    places = rng.integers(0, 64, 20)
    fresh.reshape(20, 112, 64)[np.arange(20), 1, places] += 6.0
    with torch.no_grad():
        peaks = locator(torch.from_numpy(fresh))[:, 1].flatten(1).argmax(1).numpy()
    assert (peaks == places).mean() > 0.9
