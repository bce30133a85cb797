"""How good the quality model is on patients it has not seen, and its two cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _fundus_augment import stretch_channels
from _fundus_card import EYEPACS_TERMS, EYEQ_TERMS, IDRID_TERMS, interval, table
from _fundus_data import Photograph, signed, unsigned
from _fundus_degrade import REASONS
from _fundus_golden import photographs as golden_photographs
from _fundus_metrics import auc, bootstrap, calibration_error, unavoidable_error
from _fundus_negatives import not_a_retina, read_photograph, windows
from _fundus_quality_task import MEMBERS, POOLED_AFTER, REASON_NAMES, SIZE, QualityNet, load_crops, predict_twin

from aidpost.inference._fundus_input import INPUT_VERSION, quality_input
from aidpost.kernels.fundus import decode, field_of_view

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
REJECT = 2


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities along the last axis."""
    z = logits / temperature
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def label_of(probability: np.ndarray, threshold: float) -> np.ndarray:
    """The quality that the device would call: reject from `threshold` on, else the likelier of the others."""
    return np.where(probability[:, REJECT] >= threshold, REJECT, probability[:, :REJECT].argmax(1))


@dataclass
class Evaluation:
    """Everything the cards quote."""

    temperature: float
    threshold: float
    rows: list[list[str]]
    calibration: tuple[float, float, float]
    """Expected error on the held-out photographs; what chance alone would make of it; in cross-validation."""
    idrid: tuple[int, int]
    reasons: list[list[str]]
    others: list[list[str]]
    validated: tuple[int, float, float]
    headline: tuple[float, float]


def _fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    candidates = np.exp(np.linspace(np.log(0.4), np.log(3.0), 80))
    picked = np.arange(len(truth))
    losses = [-np.log(softmax(logits, t)[picked, truth] + 1e-9).mean() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def _fit_threshold(probability: np.ndarray, truth: np.ndarray) -> float:
    """Of the thresholds that cost at most one photograph in 200 of the best accuracy, the middle one."""
    candidates = np.linspace(0.3, 0.7, 41)
    accuracy = np.array([(label_of(probability, t) == truth).mean() for t in candidates])
    return float(np.median(candidates[accuracy >= accuracy.max() - 0.005]))


def _subset_row(
    name: str, rows: np.ndarray, truth: np.ndarray, int8: np.ndarray, twin: np.ndarray, called: Any, groups: Any
):
    patients = [g for g, use in zip(groups, rows, strict=True) if use]
    accuracy = bootstrap(lambda t, c: float((t == c).mean()), truth[rows], called(int8)[rows], groups=patients)
    area = bootstrap(lambda t, s: auc(t == REJECT, s), truth[rows], int8[rows, REJECT], groups=patients)
    float_accuracy = float((called(twin)[rows] == truth[rows]).mean())
    float_area = auc(truth[rows] == REJECT, twin[rows, REJECT])
    return [
        name,
        str(int(rows.sum())),
        interval(accuracy),
        f"{float_accuracy:.3f}",
        interval(area),
        f"{float_area:.3f}",
    ]


def evaluate(
    model: QualityNet,
    run: Run,
    folder: Path,
    held: Sequence[Photograph],
    validation: tuple[np.ndarray, np.ndarray],
    others: Path | None,
    drawn: int,
) -> Evaluation:
    """Figures on the held-out photographs, degraded ones and pictures of other things.

    `validation`: logits and labels of cross-validation over training's patients, which choose temperature and
    threshold.
    """
    images = np.asarray(load_crops(folder, held, SIZE))
    truth = np.array([-1 if p.quality is None else p.quality for p in held])
    graded = truth >= 0
    int8_logits = np.stack([run(image)["quality"] for image in images])
    twin_logits = predict_twin(model, images)[0]
    temperature = _fit_temperature(*validation)
    int8, twin = softmax(int8_logits, temperature), softmax(twin_logits, temperature)
    validated = softmax(validation[0], temperature)
    threshold = _fit_threshold(validated, validation[1])

    def called(p: np.ndarray) -> np.ndarray:
        return label_of(p, threshold)

    groups = [p.patient for p in held]
    raw = np.array([p.dataset == "EyePACS-raw" for p in held])
    rows = [
        _subset_row("all", graded, truth, int8, twin, called, groups),
        _subset_row("raw colours", graded & raw, truth, int8, twin, called, groups),
        _subset_row("stretched", graded & ~raw, truth, int8, twin, called, groups),
    ]
    confidence = int8.max(1)
    return Evaluation(
        temperature=temperature,
        threshold=threshold,
        rows=rows,
        calibration=(
            calibration_error((int8.argmax(1) == truth)[graded], confidence[graded]),
            unavoidable_error(confidence[graded]),
            calibration_error(validated.argmax(1) == validation[1], validated.max(1)),
        ),
        idrid=(int((called(int8)[~graded] == REJECT).sum()), int((~graded).sum())),
        reasons=_reasons(run, images[truth == 0][:drawn], temperature, threshold),
        others=_others(run, others, drawn, temperature, threshold),
        validated=(
            len(validated),
            float((label_of(validated, threshold) == validation[1]).mean()),
            auc(validation[1] == REJECT, validated[:, REJECT]),
        ),
        headline=(float((called(int8) == truth)[graded].mean()), auc(truth[graded] == REJECT, int8[graded, REJECT])),
    )


def _reasons(run: Run, good: np.ndarray, temperature: float, threshold: float) -> list[list[str]]:
    """Good photographs spoiled beyond use for one reason: how many are rejected, and for that reason."""
    rng = np.random.default_rng(99)
    out = []
    for name, spoil in REASONS.items():
        rejected = named = 0
        for image in good:
            bad = spoil(unsigned(image), rng.uniform(0.6, 1.0), rng)
            answer = run(signed(bad))
            rejected += bool(softmax(answer["quality"], temperature)[REJECT] >= threshold)
            named += REASON_NAMES[int(answer["reasons"].argmax())] == name
        out.append([name, str(len(good)), f"{rejected / max(len(good), 1):.3f}", f"{named / max(len(good), 1):.3f}"])
    return out


def _others(run: Run, folder: Path | None, drawn: int, temperature: float, threshold: float) -> list[list[str]]:
    """Pictures of other things, shown to the model whether or not a field of view is found in them."""

    def rejected(pixels: np.ndarray) -> bool:
        return bool(softmax(run(pixels)["quality"], temperature)[REJECT] >= threshold)

    rng = np.random.default_rng(98)
    pictures = [not_a_retina(rng, SIZE) for _ in range(2 * drawn)]
    hits = [rejected(signed(p)) for p in pictures]
    rows = [["drawn, other seeds", str(len(hits)), f"{np.mean(hits):.3f}", f"{np.mean(hits):.3f}"]]
    files = sorted(f for f in folder.iterdir() if f.suffix in {".png", ".jpg", ".jpeg"}) if folder else []
    model_only, device = [], []
    for file in files:
        for picture in windows(read_photograph(file), rng, 20):
            circle = field_of_view(picture)
            model_only.append(rejected(quality_input(picture, circle, SIZE).pixels))
            model_only.append(rejected(quality_input(stretch_channels(picture), circle, SIZE).pixels))
            device += [circle is None or model_only[-2], circle is None or model_only[-1]]
    if device:
        row = [f"{len(files)} pictures of other things that training never saw, windows of them", str(len(device))]
        rows.append([*row, f"{np.mean(model_only):.3f}", f"{np.mean(device):.3f}"])
    return rows


def describe(e: Evaluation, run: Run, content: bytes) -> tuple[dict[str, Any], str, dict[str, np.ndarray]]:
    """card.toml's content, CARD.md and golden.npz's arrays."""
    photos = golden_photographs()
    golden: dict[str, np.ndarray] = {}
    for i, encoded in enumerate(photos):
        photo = decode(encoded.tobytes(), SIZE)
        answer = run(quality_input(photo.rgb, photo.field, SIZE).pixels)
        golden[f"photo_{i}"] = encoded
        golden[f"expected_{i}"] = softmax(answer["quality"].astype(np.float64), e.temperature)
    terms = f"{EYEPACS_TERMS}, {EYEQ_TERMS}, {IDRID_TERMS}."
    card = {
        "version": "1.2.0",
        "task": "fundus-quality",
        "summary": "Quality of a fundus photograph: good, usable or reject, with reasons",
        "input": {
            "preprocessing": "quality_input",
            "preprocessing_version": INPUT_VERSION,
            "shape": [1, SIZE, SIZE, 3],
        },
        "output": {
            "labels": ["good", "usable", "reject"],
            "kind": "softmax",
            "index": "quality",
            "reasons": "reasons",
            "reason_labels": list(REASON_NAMES),
        },
        "calibration": {"temperature": e.temperature, "expected_error": e.calibration[0]},
        "thresholds": {"reject": e.threshold},
        "cameras": {"validated": []},
        "permitted_use": {"clinical": False, "terms": terms},
        "golden": {"tolerance": 0.08},
    }
    return card, _text(e, terms, len(content)), golden


def _text(e: Evaluation, terms: str, size: int) -> str:
    header = [
        "held-out photographs",
        "n",
        "3-class accuracy (95 % interval)",
        "float twin",
        "reject AUC (95 % interval)",
        "float twin",
    ]
    return f"""# fundus-quality 1.2.0

Says whether a photograph of the retina is good, usable or to be rejected, and for a rejected one why, so that it can
be taken again at once.

**Intended use.** A check at the camera, before grading. It doesn't judge the eye. It isn't for use without a clinician
who sees the
photographs that it let through and those that it didn't.

**How.** EfficientNet-Lite0 as published (ImageNet weights, Apache-2.0), the mean and the maximum of its maps after
blocks {", ".join(map(str, POOLED_AFTER))} and of the last, and on these features {MEMBERS} small networks whose logits
are averaged, of the photograph and of its mirror image. int8 throughout, {size / 1e6:.2f} MB, {SIZE} pixels a side,
the photograph's own colours.

**Data and terms.** {terms} `labels.csv` gives EyeQ's opinion of EyePACS photographs; IDRiD's, not labelled for
quality, were learnt as
good or usable. Bad photographs were also made from good ones, and what is no retina was drawn or cut from the
photographs that scikit-image and scikit-learn bring along.

**Figures**, int8, on patients that training never saw ({e.rows[0][1]} photographs, patients resampled):

{table(header, e.rows)}

Threshold for rejection {e.threshold:.2f} and temperature {e.temperature:.2f} were chosen by cross-validation over
training's patients ({e.validated[0]} photographs, float, one network instead of {MEMBERS}: accuracy
{e.validated[1]:.3f}, reject AUC {e.validated[2]:.3f}), not on these photographs.
These were looked at twice: a first version had learnt crops scaled down from larger ones and called fewer right, so
that this one learns what the device computes, pixel by pixel.
Expected calibration error {e.calibration[0]:.3f} ({e.calibration[1]:.3f} would be chance with so few), and
{e.calibration[2]:.3f} in that cross-validation.
IDRiD photographs held out and rejected all the same: {e.idrid[0]} of {e.idrid[1]}.

**Reasons.** Good photographs of unseen patients, spoiled by a program:

{table(["reason", "n", "rejected", "reason named first"], e.reasons)}

**Not a retina:**

{table(["pictures", "n", "rejected by the model", "rejected by the device (field of view, then model)"], e.others)}

**Validated cameras.** None by name: EyePACS mixes many table-top cameras and doesn't say which. There is no
handheld-camera data here at all.

**Known failures.** EyeQ's line between good and usable is one group's taste, and most disagreements are there.
Contrast-stretched photographs hide that
they were dark. Cataract looks like blur. The reasons were learnt from spoiled photographs, not from a worker's account.
"""
