"""Model folders: what is checked before a model is used, and which one is chosen."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aidpost.errors import ModelError, ModelIntegrityError, ModelRefusedError
from aidpost.inference import model as model_module
from aidpost.inference.model import Models, list_models, load_model, verify
from aidpost.inference.runtime import available_runtimes


def set_key(folder: Path, key: str, value: str) -> None:
    """Give a key of the card, the first one so named, another value."""
    path = folder / "card.toml"
    text, count = re.subn(rf"^{key}\s*=.*$", f"{key} = {value}", path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_text(text)


def test_every_shipped_model_passes_on_every_runtime_here() -> None:
    done = verify((model_module.SHIPPED,))
    assert {one.name for one in done} >= {"ecg-rhythm", "fundus-quality", "fundus-dr"}
    assert len(done) == len(list_models((model_module.SHIPPED,))) * len(available_runtimes())
    for one in done:
        assert one.ok, f"{one.name}: {one.error}"
        assert one.difference is not None
        assert one.tolerance is not None
        assert one.difference <= one.tolerance


def flip_a_weight(folder: Path) -> None:
    path = folder / "model.tflite"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def drop_model(folder: Path) -> None:
    (folder / "model.tflite").unlink()


def drop_card(folder: Path) -> None:
    (folder / "card.toml").unlink()


def drop_golden(folder: Path) -> None:
    (folder / "golden.npz").unlink()


def cut_golden(folder: Path) -> None:
    path = folder / "golden.npz"
    path.write_bytes(path.read_bytes()[:100])


def empty_golden(folder: Path) -> None:
    np.savez(folder / "golden.npz", nothing=np.zeros(1))


def wrong_golden(folder: Path) -> None:
    path = folder / "golden.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["expected_0"] = np.roll(arrays["expected_0"], 1)
    np.savez(path, **arrays)


def unreadable_golden(folder: Path) -> None:
    path = folder / "golden.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["signal_0"] = arrays["signal_0"][:10]
    np.savez(path, **arrays)


def wrong_shape(folder: Path) -> None:
    set_key(folder, "shape", "[1, 2999, 5]")


def wrong_version(folder: Path) -> None:
    set_key(folder, "preprocessing_version", "99")


def not_toml(folder: Path) -> None:
    (folder / "card.toml").write_text("name = ")


def unknown_task(folder: Path) -> None:
    set_key(folder, "task", '"ecg-magic"')


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_weight,
        drop_model,
        drop_card,
        drop_golden,
        cut_golden,
        empty_golden,
        wrong_golden,
        unreadable_golden,
        wrong_shape,
        wrong_version,
        not_toml,
        unknown_task,
    ],
)
def test_a_damaged_model_is_not_used(model_folder: Path, damage: Callable[[Path], None]) -> None:
    load_model(model_folder)
    damage(model_folder)
    with pytest.raises(ModelIntegrityError) as caught:
        load_model(model_folder)
    assert "verify" in caught.value.remedy
    (checked,) = verify((model_folder.parent,))[:1]
    assert not checked.ok


def test_a_card_that_names_another_folder_is_refused(model_folder: Path) -> None:
    other = model_folder.rename(model_folder.with_name("ecg-rhythm-2"))
    with pytest.raises(ModelIntegrityError, match="card of 'ecg-rhythm'"):
        load_model(other)


def test_a_missing_model_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="fundus-dr") as caught:
        Models(roots=(tmp_path,)).get("fundus-dr")
    assert str(tmp_path) in caught.value.cause
    assert Models(roots=(tmp_path,)).find("fundus-dr") is None


def test_the_newest_version_of_a_name_is_taken(model_folder: Path, tmp_path: Path) -> None:
    update = tmp_path / "updates"
    shutil.copytree(model_folder, update / "ecg-rhythm")
    for root, version in ((model_folder.parent, "1.9.0"), (update, "1.10.0")):
        set_key(root / "ecg-rhythm", "version", f'"{version}"')
    for roots in ((model_folder.parent, update), (update, model_folder.parent)):
        assert Models(roots=roots).get("ecg-rhythm").ref.version == "1.10.0"


def test_a_clinical_site_refuses_a_research_model_until_it_has_accepted_it(model_folder: Path) -> None:
    set_key(model_folder, "clinical", "false")
    roots = (model_folder.parent,)
    with pytest.raises(ModelRefusedError, match="clinical profile") as caught:
        Models(roots=roots, profile="clinical").get("ecg-rhythm")
    assert "inference.accepted_models" in caught.value.remedy
    assert Models(roots=roots, profile="clinical", accepted=("ecg-rhythm",)).get("ecg-rhythm")
    assert Models(roots=roots, profile="research").get("ecg-rhythm")


def test_a_clinical_site_takes_the_model_that_it_may_use(model_folder: Path) -> None:
    free = shutil.copytree(model_folder, model_folder.with_name("ecg-rhythm-open"))
    set_key(free, "name", '"ecg-rhythm-open"')
    set_key(free, "clinical", "true")
    set_key(model_folder, "clinical", "false")
    roots = (model_folder.parent,)
    assert Models(roots=roots).get("ecg-rhythm").ref.name == "ecg-rhythm"
    assert Models(roots=roots, profile="clinical").get("ecg-rhythm").ref.name == "ecg-rhythm-open"
    chosen = Models(roots=roots, chosen={"ecg-rhythm": "ecg-rhythm-open"})
    assert chosen.get("ecg-rhythm").ref.name == "ecg-rhythm-open"


def test_cumulative_logits_become_probabilities_that_sum_to_one() -> None:
    beyond = model_module._from_cumulative(np.array([[2.0, 0.0, 1.0, -3.0]]))
    assert beyond.sum() == pytest.approx(1.0)
    assert (beyond >= 0).all()
    assert beyond[0, 2] == 0.0  # the third step is likelier than the second: it is held to it


def test_a_models_abstention_follows_its_card(models: Models) -> None:
    model = models.get("ecg-rhythm")
    rule = model.card.abstain
    sure = np.array([1.0, 0.0, 0.0, 0.0])
    even = np.full(4, 0.25)
    assert not model.abstains(sure)
    assert model.abstains(even) is (rule.min_probability > 0.25 or rule.min_margin > 0)
