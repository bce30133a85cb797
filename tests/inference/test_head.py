"""Heads: the model itself until something was learned, learned only where held-back cases gain by it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.errors import ModelError, ModelIntegrityError
from aidpost.inference.head import HEADS, LEAST_CASES, Cases, Head, Kind, adapt, extended, fit, loss, residuals
from aidpost.inference.model import SHIPPED, Model, Models, head_here, load_model

WIDTH = 6
KINDS: list[tuple[Kind, int]] = [("softmax", 4), ("cumulative", 4)]


def made_cases(kind: Kind, count: int, strength: float, seed: int = 0, each: int = 2) -> Cases:
    """Cases whose labels depend on the features by `strength`, `each` of a patient, and a model that says nothing."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, WIDTH)) / np.sqrt(WIDTH)
    truth = rng.normal(size=(4, WIDTH)) * strength
    if kind == "softmax":
        labels = (features @ truth.T + rng.gumbel(size=(count, 4))).argmax(axis=1)
    else:
        latent = features @ truth[0] + rng.logistic(size=count)
        labels = np.digitize(latent, [-1.0, 0.0, 1.0, 2.0])
    own = np.tile([0.0, 0.0, 0.0, 0.0] if kind == "softmax" else [1.0, 0.0, -1.0, -2.0], (count, 1))
    return Cases(features, own, labels.astype(np.int64), np.arange(count) // each)


@pytest.mark.parametrize(("kind", "outputs"), KINDS)
def test_residuals_are_the_derivative_of_the_loss(kind: Kind, outputs: int) -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(9, outputs)) * 3, rng.integers(0, 4, 9)
    for k in range(outputs):
        step = np.zeros(outputs)
        step[k] = 1e-6
        slope = (loss(kind, logits + step, labels) - loss(kind, logits - step, labels)) / 2e-6
        assert residuals(kind, logits, labels)[:, k] == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(("kind", "outputs"), KINDS)
def test_losses_of_extreme_logits_are_finite(kind: Kind, outputs: int) -> None:
    logits, labels = np.array([[1e6] * outputs, [-1e6] * outputs]), np.array([0, 3])
    assert np.isfinite(loss(kind, logits, labels)).all()
    assert np.isfinite(residuals(kind, logits, labels)).all()


@pytest.mark.parametrize("kind", ["softmax", "cumulative"])
def test_fit_ends_where_the_slope_is_zero(kind: Kind) -> None:
    cases, ridge = made_cases(kind, 200, 3.0), 0.05
    weights = fit(kind, cases, ridge, steps=2000)
    table = extended(cases.features)
    slope = residuals(kind, cases.logits + table @ weights.T, cases.labels).T @ table / len(cases) + ridge * weights
    assert np.abs(slope).max() < 1e-6


@pytest.mark.parametrize("kind", ["softmax", "cumulative"])
def test_fifty_cases_of_a_new_camera_are_learned_and_help_on_people_never_seen(kind: Kind) -> None:
    cases, fresh = made_cases(kind, 1050, 12.0), slice(LEAST_CASES, None)
    few, others = cases.take(np.arange(LEAST_CASES)), cases.take(np.arange(1050)[fresh])
    learned = adapt(kind, few)
    assert learned.weights is not None
    assert learned.gain > learned.gain_error > 0
    after = loss(kind, others.logits + extended(others.features) @ learned.weights.T, others.labels).mean()
    assert after < loss(kind, others.logits, others.labels).mean()


@pytest.mark.parametrize("kind", ["softmax", "cumulative"])
@pytest.mark.parametrize("seed", range(3))
def test_what_does_not_help_is_refused_and_says_so(kind: Kind, seed: int) -> None:
    learned = adapt(kind, made_cases(kind, 60, 0.0, seed))
    assert learned.weights is None
    assert "no gain on held-back cases" in learned.reason


def test_too_few_cases_or_patients_teach_nothing() -> None:
    for cases in (made_cases("softmax", LEAST_CASES - 1, 9.0), made_cases("softmax", 80, 9.0, each=20)):
        learned = adapt("softmax", cases)
        assert learned.weights is None
        assert "are needed" in learned.reason


def test_a_patients_cases_are_held_back_together() -> None:
    """Features that name the patient would otherwise look like knowledge."""
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(30), 4)
    features = (rng.normal(size=(30, 24)) / np.sqrt(24))[patients]
    labels = rng.integers(0, 4, 30)[patients]
    learned = adapt("softmax", Cases(features, np.zeros((120, 4)), labels, patients))
    assert learned.weights is None


@given(st.binary(max_size=200))
def test_bytes_that_are_no_head_are_refused(content: bytes) -> None:
    try:
        head = Head.from_bytes(content, "x.head")
    except ModelIntegrityError as error:
        assert "x.head" in str(error)  # noqa: PT017 - most bytes are none, a few may be
    else:
        assert np.isfinite(head.weights).all()


def test_a_head_comes_back_as_it_was_written_and_not_with_a_weight_that_is_no_number() -> None:
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    head = Head("m", "b", weights, "9 cases")
    again = Head.from_bytes(head.to_bytes(), "m.head")
    assert (again.model, again.base, again.made, again.version) == ("m", "b", "9 cases", head.version)
    assert np.array_equal(again.weights, weights)
    weights[1, 1] = np.nan
    with pytest.raises(ModelIntegrityError, match="not finite"):
        Head.from_bytes(Head("m", "b", weights).to_bytes(), "m.head")


# -- with the models that ship


@pytest.fixture(scope="module")
def rhythm() -> Model:
    return load_model(SHIPPED / "ecg-rhythm", check=False)


def zero(model: Model) -> Head:
    assert model.basis is not None
    return Head(model.card.name, model.card.base, np.zeros((4, model.basis.width + 1), np.float32))


@pytest.mark.parametrize("name", ["ecg-rhythm", "fundus-dr", "fundus-dr-open"])
def test_a_head_of_zeros_is_the_model_itself_bit_for_bit(name: str) -> None:
    model = load_model(SHIPPED / name, check=False)
    same = Model(model.card, model.interpreter, model.basis, local=zero(model))
    rng = np.random.default_rng(0)
    outputs = model.run(rng.integers(-128, 128, model.card.input.shape).astype(np.int8))
    assert np.array_equal(model.logits(outputs), same.logits(outputs))
    assert np.isfinite(model.features(outputs)).all()
    assert model.features(outputs).any()
    assert same.ref.version == f"{model.card.version}+head.{zero(model).version}"


def test_a_head_moves_the_answer_and_results_name_it(rhythm: Model, tmp_path: Path) -> None:
    head = zero(rhythm)
    head.weights[1, -1] = 50.0
    (tmp_path / HEADS).mkdir()
    (tmp_path / HEADS / "ecg-rhythm.head").write_bytes(head.to_bytes())
    model = Models(heads=tmp_path / HEADS).get("ecg-rhythm")
    probability = model.probabilities(model.logits(model.run(np.zeros(model.card.input.shape, np.float32))))
    assert probability[0, 1] > 0.99
    assert model.ref.version.endswith(head.version)
    assert head_here(tmp_path / HEADS, model.card) == head.version


@pytest.mark.parametrize("damage", ["bytes", "base"])
def test_a_damaged_head_or_one_of_another_model_is_not_used_and_is_said(
    rhythm: Model, tmp_path: Path, damage: str
) -> None:
    head = zero(rhythm)
    content = head.to_bytes()[:-9] if damage == "bytes" else Head(head.model, "0" * 64, head.weights).to_bytes()
    (tmp_path / "ecg-rhythm.head").write_bytes(content)
    model = Models(heads=tmp_path).get("ecg-rhythm")
    assert model.head is None
    assert model.ref.version == model.card.version
    assert (head_here(tmp_path, model.card) or "").startswith("not used")


def test_a_damaged_basis_is_refused(model_folder: Path) -> None:
    path = model_folder / "embedding.npz"
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(bytes(content))
    assert hashlib.sha256(bytes(content)).hexdigest() not in (model_folder / "card.toml").read_text()
    with pytest.raises(ModelIntegrityError, match=r"embedding\.npz"):
        load_model(model_folder, check=False)


def test_a_model_without_an_embedding_teaches_nothing(model_folder: Path) -> None:
    card = model_folder / "card.toml"
    card.write_text(card.read_text().split("[embedding]")[0])
    model = load_model(model_folder, check=False)
    with pytest.raises(ModelError, match="names no embedding"):
        model.features(model.run(np.zeros(model.card.input.shape, np.float32)))
    with pytest.raises(ModelIntegrityError, match="of another file"):
        load_model(model_folder, check=False, head=Head("ecg-rhythm", "0" * 64, np.zeros((4, 33), np.float32)))
    shutil.rmtree(model_folder)
