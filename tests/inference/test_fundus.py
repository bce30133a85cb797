"""The fundus pipeline on rendered photographs, good and bad."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest

from aidpost.errors import UnreadableInputError
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.inference import fundus
from aidpost.inference.fundus import NOT_ASSESSED, analyze, camera_is_validated
from aidpost.inference.model import SHIPPED, Models, load_model
from aidpost.inference.output import fundus_json
from aidpost.records import Device, FundusResult, TriageLevel

from .conftest import MakePhoto

RENDERED = encode_fundus(render_fundus(grade=0, size=900, seed=5))


def codes(result: FundusResult) -> set[str]:
    return {finding.code for finding in result.findings}


def test_a_photograph_gives_quality_grade_and_what_was_not_assessed(models: Models, make_photo: MakePhoto) -> None:
    photo = make_photo(RENDERED)
    done = analyze(photo, models, force=True)
    result = done.result
    assert (result.id, result.width, result.height, result.eye) == (photo.id, 900, 900, photo.eye)
    assert result.quality.label in ("good", "usable", "reject")
    assert sum(result.quality.probability.values()) == pytest.approx(1.0, abs=1e-6)
    assert result.dr is not None
    assert sum(result.dr.probability) == pytest.approx(1.0, abs=1e-6)
    assert result.dr.referable_probability == pytest.approx(sum(result.dr.probability[2:]), abs=1e-6)
    assert result.not_assessed == NOT_ASSESSED
    assert {one.name for one in result.models} >= {"fundus-quality"}
    assert set(done.elapsed_ms) == {"models", "decode", "analyze", "heatmap", "total"}


def test_the_heatmap_is_a_picture_of_the_photograph(models: Models, make_photo: MakePhoto) -> None:
    done = analyze(make_photo(RENDERED), models, force=True)
    assert done.heatmap_png is not None
    picture = cv2.imdecode(np.frombuffer(done.heatmap_png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert max(picture.shape[:2]) <= 768
    assert picture[0, 0].max() < 40  # outside the field of view nothing is drawn


@pytest.mark.parametrize("kind", ["black", "white", "grey", "noise", "page"])
def test_what_is_not_a_retina_is_rejected_and_reassures_nobody(
    models: Models, make_photo: MakePhoto, kind: str
) -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    if kind == "noise":
        image = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    elif kind == "page":
        image[:] = 250
        for line in range(40, 560, 24):
            cv2.putText(image, "Take two tablets with water", (30, line), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (20, 20, 20))
    elif kind != "black":
        image[:] = 255 if kind == "white" else 128
    done = analyze(make_photo(cv2.imencode(".png", image)[1].tobytes()), models)
    assert done.result.quality.label == "reject"
    assert done.result.quality.reasons == (("dark",) if kind == "black" else ("not_a_retina",))
    assert done.result.dr is None
    assert done.heatmap_png is None
    assert codes(done.result) == {"fundus-ungradable"}
    assert done.result.triage >= TriageLevel.SOON


def test_forcing_grades_a_rejected_photograph_which_stays_rejected(models: Models, make_photo: MakePhoto) -> None:
    grey = cv2.imencode(".png", np.full((600, 800, 3), 128, np.uint8))[1].tobytes()
    result = analyze(make_photo(grey), models, force=True).result
    assert result.dr is not None
    assert not result.quality.usable
    assert "fundus-ungradable" in codes(result)
    assert not codes(result) & {"dr-none", "dr-mild"}


def test_an_unvalidated_camera_awaits_review_and_never_says_no_referral(models: Models, make_photo: MakePhoto) -> None:
    for seed in range(3):
        photo = make_photo(encode_fundus(render_fundus(grade=0, size=600, seed=seed)))
        result = analyze(photo, models).result
        assert not codes(result) & {"dr-none", "dr-mild"}
        assert result.triage >= TriageLevel.SOON
        if result.quality.usable:
            assert "fundus-awaiting-review" in codes(result)
        assert not any("no referral" in finding.text.casefold() for finding in result.findings)


@pytest.mark.parametrize("grade", range(5))
def test_a_drawn_retina_can_be_graded_whatever_its_lesions(models: Models, make_photo: MakePhoto, grade: int) -> None:
    """Practice would teach the wrong thing otherwise: grades 3 and 4 were mostly taken for something else."""
    drawn = [make_photo(encode_fundus(render_fundus(grade=grade, size=800, seed=seed))) for seed in range(1, 5)]
    assert sum(analyze(photo, models).result.quality.usable for photo in drawn) >= 3


def test_cameras_are_compared_by_maker_and_model(models: Models) -> None:
    model = models.get("fundus-dr")
    listed = msgspec.structs.replace(model.card.cameras, validated=("Kowa VX-10",))
    card = msgspec.structs.replace(model.card, cameras=listed)

    class Listed:
        pass

    with_card = Listed()
    with_card.card = card  # type: ignore[attr-defined]
    for camera, expected in (
        (Device(name="c", manufacturer="KOWA", model="VX-10"), True),
        (Device(name="c", model="kowa vx-10"), True),
        (Device(name="c", manufacturer="Kowa", model="VX-10α"), False),
        (Device(name="c"), False),
        (Device(name="Kowa VX-10"), False),
    ):
        assert camera_is_validated(camera, with_card) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize("encoded", [b"\xff\xd8\xff", b"GIF89a", RENDERED[: len(RENDERED) // 2]])
def test_a_damaged_file_is_an_error_that_names_it(models: Models, make_photo: MakePhoto, encoded: bytes) -> None:
    photo = msgspec.structs.replace(make_photo(encoded), source="visit/left.jpg")
    with pytest.raises(UnreadableInputError) as caught:
        analyze(photo, models)
    assert caught.value.target == "visit/left.jpg"
    assert caught.value.remedy


def test_the_json_object_has_the_contract_s_keys(models: Models, make_photo: MakePhoto) -> None:
    done = fundus.analyze(make_photo(RENDERED), models, force=True)
    out = fundus_json(done.result, done.elapsed_ms, "x.heatmap.png")
    assert list(out) == [
        "schema", "source", "origin", "eye", "width", "height", "quality", "dr", "not_assessed", "heatmap",
        "findings", "triage", "models", "elapsed_ms",
    ]  # fmt: skip
    assert set(out["dr"]) == {"grade", "probability", "referable", "abstained"}
    assert set(out["dr"]["referable"]) == {"probability", "positive", "threshold"}
    assert {"decode", "total"} <= set(out["elapsed_ms"])
    assert msgspec.json.decode(msgspec.json.encode(out)) == out


def with_oedema(models: Models, threshold: float, cameras: tuple[str, ...] = ()) -> Models:
    """The shipped models, the grader's card with this threshold for oedema and these cameras."""
    out = Models(roots=models.roots)
    grader = load_model(SHIPPED / "fundus-dr")
    grader.card = msgspec.structs.replace(
        grader.card,
        thresholds={**grader.card.thresholds, "oedema": threshold},
        cameras=msgspec.structs.replace(grader.card.cameras, validated=cameras),
    )
    out._loaded = {"fundus-quality": models.get("fundus-quality"), "fundus-dr": grader}
    return out


def test_signs_of_macular_oedema_are_reported_and_never_beside_no_referral(make_photo: MakePhoto) -> None:
    models, photo = Models(), make_photo(RENDERED)
    suspected = analyze(photo, with_oedema(models, 0.0), force=True).result
    cleared = analyze(photo, with_oedema(models, 1.0), force=True).result
    if not suspected.quality.usable:
        pytest.fail("the rendered photograph must be usable")
    (found,) = [one for one in suspected.findings if one.code == "dme-suspected"]
    assert found.probability is not None
    assert found.severity is TriageLevel.SOON
    assert "dr-none" not in codes(suspected)
    assert "dme-suspected" not in codes(cleared)


def test_macular_oedema_counts_as_assessed_only_on_a_camera_that_the_card_lists(make_photo: MakePhoto) -> None:
    photo = msgspec.structs.replace(make_photo(RENDERED), camera=Device(name="c", manufacturer="Acme", model="F1"))
    models = Models()
    listed, other = (with_oedema(models, 1.0, cameras) for cameras in (("Acme F1",), ()))
    assert analyze(photo, listed, force=True).result.not_assessed == ("other eye disease",)
    assert analyze(photo, other, force=True).result.not_assessed == NOT_ASSESSED
    without = Models()
    grader = load_model(SHIPPED / "fundus-dr")
    kept = {name: t for name, t in grader.card.thresholds.items() if name != "oedema"}
    grader.card = msgspec.structs.replace(grader.card, thresholds=kept)
    without._loaded = {"fundus-quality": models.get("fundus-quality"), "fundus-dr": grader}
    result = analyze(photo, without, force=True).result
    assert result.not_assessed == NOT_ASSESSED
    assert "dme-suspected" not in codes(result)
