"""How good the grader is on patients it has not seen: calibration, thresholds, abstention, heatmap and degradation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _fundus_card import interval
from _fundus_data import Photograph
from _fundus_lesions import inside as within
from _fundus_lesions import read_boxes
from _fundus_metrics import (
    auc,
    bootstrap,
    calibration_error,
    fit_platt,
    grade_probabilities,
    quadratic_kappa,
    sigmoid,
    threshold_for_sensitivity,
)

from aidpost.inference._fundus_input import dr_input
from aidpost.kernels.fundus import Circle, decode

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
REFERABLE = 2
SENSITIVITY = {"IDRiD": 0.95, "each hospital alike": 0.93}
OEDEMA_SENSITIVITY = 0.93
OEDEMA_AUC = 0.85  # what the lower end of its interval must reach, or oedema isn't assessed
COVERAGE = 0.985
HALF_CELL = 1 / 40  # of the map's cells, the picture's side being 1


@dataclass
class Operating:
    """What was chosen on the validation photographs."""

    grade: np.ndarray
    referable: float
    min_probability: float
    oedema: float | None = None


@dataclass
class Answers:
    """Calibrated answers for photographs with known grades."""

    photographs: Sequence[Photograph]
    probability: np.ndarray
    operating: Operating
    truth: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.truth = np.array([p.grade for p in self.photographs])

    @property
    def at_least(self) -> np.ndarray:
        """P(grade >= 1 .. 4)."""
        return self.probability[:, ::-1].cumsum(1)[:, ::-1][:, 1:]

    @property
    def grade(self) -> np.ndarray:
        """The grade called: the worst whose threshold is passed."""
        passed = self.at_least > self.operating.grade
        return np.where(passed.any(1), 4 - passed[:, ::-1].argmax(1), 0)

    @property
    def abstained(self) -> np.ndarray:
        """Whether the rule abstains."""
        return self.probability.max(1) < self.operating.min_probability


def weights(photographs: Sequence[Photograph]) -> np.ndarray:
    """IDRiD's few photographs count three times, that EyePACS alone does not decide."""
    return np.array([3.0 if p.hospital == "IDRiD" else 1.0 for p in photographs])


def _best_grade_thresholds(probability: np.ndarray, photographs: Sequence[Photograph]) -> np.ndarray:
    """Thresholds near one half that give the best mean kappa of the hospitals, each pulled to 0.5."""
    chosen = np.full(4, 0.5)
    hospitals = [np.array([p.hospital == h for p in photographs]) for h in sorted({p.hospital for p in photographs})]

    def value(thresholds: np.ndarray) -> float:
        answers = Answers(photographs, probability, Operating(thresholds, 0, 0))
        kappas = [quadratic_kappa(answers.truth[h], answers.grade[h]) for h in hospitals]
        return float(np.mean(kappas)) - 0.15 * float(((thresholds - 0.5) ** 2).sum())

    for _ in range(2):
        for k in range(4):
            trials = [np.concatenate([chosen[:k], [t], chosen[k + 1 :]]) for t in np.arange(0.3, 0.71, 0.025)]
            chosen = max(trials, key=value)
    return chosen


def calibrate(
    photographs: Sequence[Photograph], logits: np.ndarray, oedema: np.ndarray
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Slope and offset of every grade's logit and of every oedema risk's, on the validation photographs."""
    truth, weight = np.array([p.grade for p in photographs]), weights(photographs)
    known = np.array([p.dme is not None for p in photographs])
    risk = np.array([p.dme or 0 for p in photographs])
    return (
        [fit_platt(logits[:, k], truth > k, weight) for k in range(logits.shape[1])],
        [fit_platt(oedema[known, k], risk[known] > k) for k in range(oedema.shape[1])],
    )


def choose(photographs: Sequence[Photograph], logits: np.ndarray, oedema: np.ndarray) -> Operating:
    """Thresholds and the rule of abstention from the validation photographs' calibrated logits.

    The referable threshold is the highest that reaches both of `SENSITIVITY`: of IDRiD, whose camera is the one that
    is validated and whose grades are careful ones, and of all hospitals, each weighing the same. The rule of
    abstention leaves at least `COVERAGE` of each hospital's photographs an answer.
    """
    truth = np.array([p.grade for p in photographs])
    hospital = np.array([p.hospital for p in photographs])
    probability = grade_probabilities(logits)
    names, own = np.unique(hospital), hospital == "IDRiD"
    positive, score = truth >= REFERABLE, probability[:, REFERABLE:].sum(1)
    careful, alike = SENSITIVITY.values()
    return Operating(
        _best_grade_thresholds(probability, photographs),
        min(
            threshold_for_sensitivity(positive[own], score[own], careful),
            threshold_for_sensitivity(positive, score, alike, hospital),
        ),
        min(float(np.quantile(probability[hospital == name].max(1), 1 - COVERAGE, method="lower")) for name in names),
        _oedema_threshold(photographs, oedema),
    )


def _oedema_threshold(photographs: Sequence[Photograph], logits: np.ndarray) -> float | None:
    """The threshold for exudates near the macula (IDRiD's risk 2), None where its labels do not carry one."""
    known = np.array([p.dme is not None for p in photographs])
    near = np.array([p.dme == 2 for p in photographs])[known]
    score = sigmoid(logits[known, 1])
    if not near.any() or not bootstrap(auc, near, score)[1] >= OEDEMA_AUC:
        return None
    return threshold_for_sensitivity(near, score, OEDEMA_SENSITIVITY)


def figures(answers: Answers, twin: Answers, rows: np.ndarray) -> dict[str, str]:
    """Kappa, referable AUC, sensitivity and specificity with intervals, the float twin's beside them."""
    groups = [p.patient for p, use in zip(answers.photographs, rows, strict=True) if use]
    truth, grade, twin_grade = answers.truth[rows], answers.grade[rows], twin.grade[rows]
    score, twin_score = answers.at_least[rows, 1], twin.at_least[rows, 1]
    positive = truth >= REFERABLE
    referred = score >= answers.operating.referable
    return {
        "n": str(int(rows.sum())),
        "kappa": interval(bootstrap(quadratic_kappa, truth, grade, groups=groups)),
        "kappa, float": f"{quadratic_kappa(truth, twin_grade):.3f}",
        "referable AUC": interval(bootstrap(auc, positive, score, groups=groups)),
        "AUC, float": f"{auc(positive, twin_score):.3f}",
        "sensitivity": f"{referred[positive].mean():.3f}" if positive.any() else "",
        "specificity": f"{1 - referred[~positive].mean():.3f}" if (~positive).any() else "",
        "calibration error": f"{calibration_error(positive, score):.3f}",
    }


def by_grade(answers: Answers, groups: dict[str, np.ndarray]) -> list[list[str]]:
    """For each grade from 1 on, and each of `groups`' rows: the AUC of P(2 or worse) against grade 0, and how many."""
    score, rows = answers.at_least[:, REFERABLE - 1], []
    for grade in range(1, 5):
        cells = []
        for own in groups.values():
            some = own & np.isin(answers.truth, (0, grade))
            number = int((answers.truth[some] == grade).sum())
            cells.append(f"{auc(answers.truth[some] == grade, score[some]):.3f} ({number})" if number else "")
        rows.append([str(grade), *cells])
    return rows


def both_eyes(answers: Answers, rows: np.ndarray) -> tuple[int, float, float]:
    """Of photographs whose fellow eye is among `rows` too: how many, the AUC of a photograph's own logit, and that of
    the mean of both eyes' logits, for the photograph's own grade."""
    eyes: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(rows):
        eyes.setdefault((answers.photographs[i].dataset, answers.photographs[i].patient), []).append(int(i))
    pairs = np.array([pair for pair in eyes.values() if len(pair) == 2], int).reshape(-1, 2)
    if not len(pairs):
        return 0, float("nan"), float("nan")
    chance = answers.at_least[pairs, REFERABLE - 1].clip(1e-6, 1 - 1e-6)
    logit, positive = np.log(chance / (1 - chance)), (answers.truth[pairs] >= REFERABLE).ravel()
    mean = np.repeat(logit.mean(1, keepdims=True), 2, axis=1)
    return pairs.size, auc(positive, logit.ravel()), auc(positive, mean.ravel())


def selective(answers: Answers, rows: np.ndarray) -> dict[str, str]:
    """Coverage of the rule of abstention, and what is wrong by two grades or more with and without it."""
    wrong = np.abs(answers.grade - answers.truth) >= 2
    kept = rows & ~answers.abstained
    exact = answers.grade != answers.truth
    return {
        "coverage": f"{kept.sum() / max(rows.sum(), 1):.3f}",
        "wrong grade": f"{exact[rows].mean():.3f}",
        "of those answered": f"{exact[kept].mean():.3f}",
        "wrong by 2 or more": f"{wrong[rows].mean():.3f}",
        "of these answered": f"{wrong[kept].mean():.3f}",
    }


def _peak(activation: np.ndarray, shown: np.ndarray) -> tuple[float, float]:
    """x and y (0-1 of the model's square) of the strongest point, between cells too, where the photograph is."""
    size = shown.shape[0]
    fine = cv2.resize(activation.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    y, x = np.unravel_index(np.argmax(np.where(shown, fine, -np.inf)), fine.shape)
    return (x + 0.5) / size, (y + 0.5) / size


def heatmap_hits(run: Run, folder: Path, photographs: Sequence[Photograph], size: int) -> dict[str, Any]:
    """How often the heatmap's peak lies in a lesion's box, in the disc's, and how often a random point of the field
    would.

    Over held-out IDRiD photographs of grade 2 and worse that have boxes.
    """
    boxes = read_boxes(folder)
    hits, chances, discs, disc_chances, distances, near_chances = [], [], [], [], [], []
    for p in photographs:
        lesions = [b for kind, b in boxes.get(p.file, []) if kind != "optic_disc"]
        if p.grade < REFERABLE or not lesions:
            continue
        photo = decode((folder / p.file).read_bytes(), size)
        circle = photo.field
        assert circle is not None
        given = dr_input(photo.rgb, circle, size).pixels
        shown = np.any(given != 0, axis=2)
        x, y = _peak(run(given)["dr_map"][..., REFERABLE - 1], shown)
        inside = {kind: within(boxes[p.file], kind, photo.scale, circle, size) for kind in ("lesion", "optic_disc")}
        at = (int(y * size), int(x * size))
        hits.append(inside["lesion"][at])
        discs.append(inside["optic_disc"][at])
        chances.append(inside["lesion"][shown].mean())
        disc_chances.append(inside["optic_disc"][shown].mean())
        outside = (~inside["lesion"]).astype(np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, 5) / size
        distances.append(distance[at])
        near_chances.append((distance[shown] <= HALF_CELL).mean())
    near = np.array(distances) <= HALF_CELL
    return {
        "n": len(hits),
        "hit": float(np.mean(hits)) if hits else float("nan"),
        "near": float(np.mean(near)) if hits else float("nan"),
        "near chance": float(np.mean(near_chances)) if hits else float("nan"),
        "chance": float(np.mean(chances)) if hits else float("nan"),
        "disc": float(np.mean(discs)) if hits else float("nan"),
        "disc chance": float(np.mean(disc_chances)) if hits else float("nan"),
    }


def spoil(rgb: np.ndarray, circle: Circle, kind: str, amount: float) -> np.ndarray:
    """A photograph blurred (sigma in hundredths of the field's radius) or darkened (share of the light left, with the
    sensor's noise)."""
    if kind == "blur":
        return cv2.GaussianBlur(rgb, (0, 0), amount / 100 * circle.r)
    noise = np.random.default_rng(3).normal(0, 2.0, rgb.shape)
    return np.clip(rgb * amount + noise, 0, 255).astype(np.uint8)


def degradation(
    run: Run, folder: Path, photographs: Sequence[Photograph], operating: Operating, size: int
) -> list[list[str]]:
    """Referable AUC and kappa of photographs in their own colours as they get worse."""
    rows = []
    for kind, amount in (("none", 0.0), ("blur", 1.0), ("blur", 2.0), ("blur", 4.0), ("dark", 0.5), ("dark", 0.2)):
        logits = []
        for p in photographs:
            photo = decode((folder / p.file).read_bytes(), size)
            circle = photo.field
            assert circle is not None
            rgb = photo.rgb if kind == "none" else spoil(photo.rgb, circle, kind, amount)
            logits.append(run(dr_input(rgb, circle, size).pixels)["dr"])
        probability = grade_probabilities(np.stack(logits))
        answers = Answers(photographs, probability, operating)
        area = auc(answers.truth >= REFERABLE, answers.at_least[:, 1])
        what = {"none": "as taken", "blur": f"blur, sigma {amount / 100:.2f} r", "dark": f"{amount:.0%} of the light"}[
            kind
        ]
        rows.append([what, f"{area:.3f}", f"{quadratic_kappa(answers.truth, answers.grade):.3f}"])
    return rows


def oedema_figures(photographs: Sequence[Photograph], logits: np.ndarray, threshold: float | None) -> list[list[str]]:
    """AUC of each oedema risk where it is labelled; sensitivity and specificity of the one with a threshold."""
    known = np.array([p.dme is not None for p in photographs])
    risk = np.array([p.dme or 0 for p in photographs])[known]
    rows = []
    for k in range(logits.shape[1]):
        score = sigmoid(logits[known, k])
        shares = ["", ""]
        if k == 1 and threshold is not None:
            shares = [f"{(score[risk > k] >= threshold).mean():.3f}", f"{(score[risk <= k] < threshold).mean():.3f}"]
        area = interval(bootstrap(auc, risk > k, score))
        rows.append([f"risk {k + 1}{' or more' if k == 0 else ''}", str(int(known.sum())), area, *shares])
    return rows
