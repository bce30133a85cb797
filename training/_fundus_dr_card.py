"""The two cards of a grading model, from its figures on held-out photographs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _fundus_card import EYEPACS_TERMS, EYEQ_TERMS, IDRID_TERMS, table
from _fundus_data import Photograph
from _fundus_dr_report import (
    OEDEMA_SENSITIVITY,
    SENSITIVITY,
    Answers,
    Operating,
    Run,
    both_eyes,
    by_grade,
    choose,
    degradation,
    figures,
    heatmap_hits,
    oedema_figures,
    selective,
)
from _fundus_dr_task import FROZEN_BLOCKS, SIZE
from _fundus_golden import photographs as golden_photographs
from _fundus_metrics import calibration_error, grade_probabilities, unavoidable_error

from aidpost.inference._fundus_input import INPUT_VERSION, dr_input
from aidpost.kernels.fundus import decode

VERSION = "1.1.0"
HOSPITALS = ("IDRiD (Kowa VX-10, India)", "EyePACS (many cameras, USA)")
# IDRiD's camera. EyePACS doesn't name its own.
VALIDATED = ["Kowa VX-10", "Kowa VX-10α", "VX-10"]


@dataclass
class Evaluation:
    """Everything the cards quote."""

    operating: Operating
    figures: dict[str, dict[str, str]]
    selective: dict[str, dict[str, str]]
    heatmap: dict[str, Any]
    oedema: list[list[str]]
    degradation: list[list[str]]
    calibration: tuple[float, float]
    """Expected error of the likeliest grade, and what chance alone would make of it with so few photographs."""
    by_grade: list[list[str]]
    both_eyes: tuple[int, float, float]


def _groups(held: Sequence[Photograph]) -> dict[str, np.ndarray]:
    """Rows of each subgroup that the cards report."""

    def rows(test: Any) -> np.ndarray:
        return np.array([bool(test(p)) for p in held])

    groups = {
        "all": rows(lambda p: True),
        HOSPITALS[0]: rows(lambda p: p.hospital == "IDRiD"),
        HOSPITALS[1]: rows(lambda p: p.hospital == "EyePACS"),
        "EyePACS, raw colours": rows(lambda p: p.dataset == "EyePACS-raw"),
        "EyePACS, stretched": rows(lambda p: p.dataset == "EyePACS-256-stretched"),
        "EyeQ good": rows(lambda p: p.quality == 0),
        "EyeQ usable": rows(lambda p: p.quality == 1),
        "EyeQ reject": rows(lambda p: p.quality == 2),
    }
    return {name: group for name, group in groups.items() if group.any()}


def evaluate(
    twin_logits: np.ndarray,
    run: Run,
    folder: Path,
    held: Sequence[Photograph],
    images: np.ndarray,
    hospitals: Collection[str],
) -> Evaluation:
    """Figures of the int8 file and of its float twin on the held-out photographs; what is chosen is chosen on those
    of `hospitals`, the ones that it was trained on."""
    outputs = [run(image) for image in images]
    logits, oedema = (np.stack([o[name] for o in outputs]) for name in ("dr", "dme"))
    own = np.array([p.hospital in hospitals for p in held])
    operating = choose([p for p in held if p.hospital in hospitals], logits[own], oedema[own])
    answers = Answers(held, grade_probabilities(logits), operating)
    twin = Answers(held, grade_probabilities(twin_logits), operating)
    groups = _groups(held)
    raw = [p for p in held if p.dataset != "EyePACS-256-stretched"]
    likeliest, confidence = answers.probability.argmax(1)[own], answers.probability.max(1)[own]
    return Evaluation(
        operating,
        {name: figures(answers, twin, rows) for name, rows in groups.items()},
        {name: selective(answers, rows) for name, rows in groups.items()},
        heatmap_hits(run, folder, held, SIZE),
        oedema_figures(held, oedema, operating.oedema),
        degradation(run, folder, raw, operating, SIZE),
        (calibration_error(answers.truth[own] == likeliest, confidence), unavoidable_error(confidence)),
        by_grade(answers, {name: groups[name] for name in HOSPITALS if name in groups}),
        both_eyes(answers, np.array([p.hospital == "EyePACS" for p in held])),
    )


def describe(
    name: str, e: Evaluation, run: Run, size: int, share: Mapping[str, float]
) -> tuple[dict[str, Any], str, dict[str, np.ndarray]]:
    """card.toml's content, CARD.md and golden.npz's arrays."""
    golden: dict[str, np.ndarray] = {}
    for i, encoded in enumerate(golden_photographs()):
        photo = decode(encoded.tobytes(), SIZE)
        assert photo.field is not None
        answer = run(dr_input(photo.rgb, photo.field, SIZE).pixels)["dr"].astype(np.float64)
        golden[f"photo_{i}"] = encoded
        golden[f"expected_{i}"] = grade_probabilities(answer[None])[0]
    restricted = "EyePACS" in share
    openly = f"{IDRID_TERMS} and the boxes that CODRAS drew around their lesions (CC BY-SA 4.0)"
    terms = f"{EYEPACS_TERMS}; {EYEQ_TERMS}; {openly}." if restricted else f"Trained on {openly} alone."
    o = e.operating
    card = {
        "version": VERSION,
        "task": "fundus-dr",
        "summary": "Diabetic retinopathy in a fundus photograph, ICDR grade 0 to 4, with a heatmap",
        "input": {"preprocessing": "dr_input", "preprocessing_version": INPUT_VERSION, "shape": [1, SIZE, SIZE, 3]},
        "output": {
            "labels": ["0", "1", "2", "3", "4"],
            "kind": "cumulative",
            "index": "dr",
            "heatmap": "dr_map",
            "oedema": "dme",
        },
        "calibration": {"temperature": 1.0, "expected_error": e.calibration[0]},
        "thresholds": {
            "referable": o.referable,
            **{f"grade_{k + 1}": float(t) for k, t in enumerate(o.grade)},
            **({} if o.oedema is None else {"oedema": o.oedema}),
        },
        "abstain": {"min_probability": o.min_probability, "min_margin": 0.0},
        "cameras": {"validated": VALIDATED},
        "permitted_use": {"clinical": not restricted, "terms": terms},
        "golden": {"tolerance": 0.08},
    }
    return card, _text(name, e, terms, size, share), golden


def _rows(groups: Mapping[str, Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    header = ["held-out photographs", *next(iter(groups.values()))]
    return header, [[name, *row.values()] for name, row in groups.items()]


def grades_text(rows: Sequence[Sequence[str]], both: tuple[int, float, float]) -> str:
    """The card's paragraph on which grades are told from a healthy eye, from `by_grade` and `both_eyes`."""
    return f"""**By grade.** AUC of P(2 or worse) between photographs of a grade and those of grade 0 (in brackets, how
many have that grade):

{table(["grade", *HOSPITALS], rows)}

What is missed in other cameras' photographs is mostly grade 2, likely because a reader saw small lesions in the whole
photograph that {SIZE} pixels hardly show. The other eye knows something of it: of {both[0]} photographs of EyePACS
whose fellow eye is held out, too, P(2 or worse) has an AUC of {both[1]:.3f}, and {both[2]:.3f} from the mean of both
eyes' logits. On the device each photograph answers for itself."""


def heatmap_text(h: Mapping[str, Any]) -> str:
    """The card's paragraph on the heatmap, from `heatmap_hits`' figures."""
    return f"""**Heatmap.** The model's second output: a map at stride 16, learnt from boxes around exudates,
haemorrhages and microaneurysms of IDRiD's photographs, and from the grades, on the finished grader's
features: how likely a cell is part of a lesion. The grade is not made of it. Over {h["n"]} held-out IDRiD photographs
of grade 2 and worse with boxes its peak fell in a lesion's box in {h["hit"]:.0%}, in one or within half a cell (1/40 of
the picture) of one in {h["near"]:.0%}; a random point of the field falls in one in {h["chance"]:.0%} and so near in
{h["near chance"]:.0%}. In the optic disc's box: {h["disc"]:.0%} (at random {h["disc chance"]:.0%}). A cell is 1/20 of
the picture: it points to a region, not to a lesion. On other cameras the map was not measured: nobody drew boxes
there."""


def _text(name: str, e: Evaluation, terms: str, size: int, share: Mapping[str, float]) -> str:
    o, h = e.operating, e.heatmap
    trained = " and ".join(f"{hospital} ({part:.0%} of what was drawn)" for hospital, part in share.items())
    grades = ", ".join(f"{t:.2f}" for t in o.grade)
    left_out = (
        "Photographs that EyeQ calls not gradable were left out of training, not of the figures. "
        if "EyePACS" in share
        else ""
    )
    sensitivity = " and ".join(
        f"{value:.2f} on {name}" for name, value in SENSITIVITY.items() if name == "IDRiD" or "EyePACS" in share
    )
    oedema = (
        'Its interval reaches too low for a finding: macular oedema stays under "not assessed".'
        if o.oedema is None
        else f"Suspected from P(risk 2) >= {o.oedema:.3f}, chosen for a sensitivity of {OEDEMA_SENSITIVITY:.2f}; on a "
        'camera that isn\'t validated it still stays under "not assessed". A photograph shows exudates, not '
        "thickening: it can't diagnose oedema."
    )
    oedema_scope = ", not macular oedema." if o.oedema is None else "; of macular oedema only its photographic sign."
    unseen = "" if "EyePACS" in share else " EyePACS is another hospital's here: none of it was trained on."
    return f"""# {name} {VERSION}

Grades diabetic retinopathy in a photograph of the retina on the International Clinical Diabetic Retinopathy scale, 0
to 4, and says whether it
is referable (grade 2 or worse).

**Intended use.** A second pair of eyes for a clinician, in people known to have diabetes, on macula-centred
photographs that passed the
quality check. **Not for use without a clinician**: a preliminary answer until one has looked, never a reason to send a
patient home alone.
It looks for nothing else: not glaucoma, not occlusions{oedema_scope}

**How.** EfficientNet-Lite0 (ImageNet weights, Apache-2.0), {SIZE} pixels a side, int8 throughout, {size / 1e6:.2f} MB.
The kernel takes away the camera's
light, colour and contrast first. The first {FROZEN_BLOCKS} blocks are as published but for their statistics; the rest
was trained on {trained}. {left_out}One pass a photograph: a second, mirrored one would take more than the 10 ms it has.
Four logits say how likely each grade or worse is, so probabilities of the five grades add up to one.

**Data and terms.** {terms}

**Figures**, int8 beside its float twin, on patients (IDRiD: photographs) that training never saw, 95 % intervals by
resampling patients.{unseen}
Calibration, thresholds and the rule of abstention were chosen on these same photographs, so new ones will do somewhat
worse.

{table(*_rows(e.figures))}

- Referable from P(2 or worse) >= {o.referable:.3f}, chosen for a sensitivity of at least {sensitivity}. On photographs
  from other cameras it finds fewer or refers more, as the table says: a photograph from a camera that isn't validated
  is never called normal.
- The grade is the worst k whose P(k or worse) is over {grades} (k = 1 to 4).
- Expected calibration error of the likeliest grade: {e.calibration[0]:.3f} ({e.calibration[1]:.3f} would be chance with
  so few photographs). The column is that of P(referable).

{grades_text(e.by_grade, e.both_eyes)}

**Abstention.** No grade where the likeliest grade's probability is under {o.min_probability:.3f}.

{table(*_rows(e.selective))}

{heatmap_text(h)}

**Macular oedema.** A third output, learnt from IDRiD's labels: hard exudates anywhere (risk 1), within a disc diameter
of the macula's centre (risk 2). {oedema}

{table(["", "n", "AUC (95 % interval)", "sensitivity", "specificity"], e.oedema)}

**As photographs get worse** (held-out IDRiD and raw EyePACS, none refused):

{table(["photographs", "referable AUC", "kappa"], e.degradation)}

**Validated cameras.** Kowa VX-10 (IDRiD). EyePACS mixes table-top cameras that it doesn't name. **No handheld-camera
photograph was trained or tested on.**

**Known failures.** Few grade 1 photographs, and microaneurysms are at the edge of what {SIZE} pixels show: grade 1 is
often called 0 or 2. EyePACS' grades
come from one reader each and are often debatable. Small haemorrhages in the periphery, laser scars and drusen mislead
it. IDRiD names no patients, so both
eyes of one person may lie on both sides of the split.
"""
