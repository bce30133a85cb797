"""The rhythm model's folder: the int8 file, the card for programs, the card for people, and the golden recordings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ecg_data import LABELS
from ecg_evaluate import recording_probability, window_logits
from ecg_export import Int8Model
from ecg_golden import signals_with_rate, write_golden

from aidpost.inference._rhythm_input import LIMIT, RHYTHM_INPUT_VERSION, rhythm_input

VERSION = "1.1.0"
GOLDEN_TOLERANCE = 0.06  # a few steps of the int8 logits: runtimes differ by that much
TERMS = (
    "Trained on PhysioNet/CinC 2017 and NSTDB, both Open Data Commons Attribution License 1.0: attribution required."
)


def write_folder(folder: Path, tflite: Path, judged: dict[str, Any]) -> None:
    """Write model.tflite, golden.npz, card.toml and CARD.md into `folder`, and print CARD.md's figures."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tflite.read_bytes()
    (folder / "model.tflite").write_bytes(model)
    runner = Int8Model(folder / "model.tflite")
    logits = window_logits(runner, [rhythm_input(samples, fs_hz) for samples, fs_hz in signals_with_rate()])
    write_golden(folder / "golden.npz", list(recording_probability(logits, judged["temperature"])))
    (folder / "card.toml").write_text(toml(hashlib.sha256(model).hexdigest(), judged), encoding="utf-8")
    text = prose(judged, len(model))
    (folder / "CARD.md").write_text(text, encoding="utf-8")
    print(text)


def toml(sha256: str, judged: dict[str, Any]) -> str:
    """card.toml."""
    f1 = judged["f1"]["int8"]
    return f"""name = "ecg-rhythm"
version = "{VERSION}"
task = "ecg-rhythm"
sha256 = "{sha256}"
summary = "Rhythm of a single-lead ECG of 9-60 s: normal sinus (N), atrial fibrillation (A), other (O), noisy (~)."

[input]
preprocessing = "rhythm"
preprocessing_version = {RHYTHM_INPUT_VERSION}
shape = [1, 3020, 5]
limit = {LIMIT}

[output]
labels = {list(LABELS)}
kind = "softmax"
index = 0

[calibration]
temperature = {judged["temperature"]:.3f}

[abstain]
min_probability = {judged["abstention"]["threshold"]:.2f}

[rates]
min_hz = 100.0
max_hz = 1000.0

[metrics]
recordings = {judged["recordings"]}
mean_f1_nao = {f1[:3].mean():.3f}
f1_n = {f1[0]:.3f}
f1_a = {f1[1]:.3f}
f1_o = {f1[2]:.3f}
f1_noise = {f1[3]:.3f}
float_mean_f1_nao = {judged["f1"]["float"][:3].mean():.3f}
calibration_error = {judged["calibration_error"]:.3f}
abstention_coverage = {judged["abstention"]["coverage"]:.3f}

[permitted_use]
clinical = true
terms = "{TERMS}"

[golden]
tolerance = {GOLDEN_TOLERANCE}
""".replace("'", '"')


def prose(judged: dict[str, Any], size: int) -> str:
    """CARD.md."""
    return "\n".join((_INTENDED_USE, _accuracy(judged, size), _calibration(judged), _subgroups(judged), _LIMITS))


def _accuracy(judged: dict[str, Any], size: int) -> str:
    int8, full, interval, confusion = (
        judged["f1"]["int8"],
        judged["f1"]["float"],
        judged["interval"],
        judged["confusion"],
    )
    names = ("Normal (N)", "Atrial fibrillation (A)", "Other (O)", "Too noisy (~)")
    rows = [f"| mean of N, A, O | {int8[:3].mean():.3f} ({_span(interval['mean'])}) | {full[:3].mean():.3f} | | |"]
    for i, name in enumerate(names):
        found = confusion[i, i] / max(confusion[i].sum(), 1)
        right = confusion[i, i] / max(confusion[:, i].sum(), 1)
        rows.append(
            f"| {name} | {int8[i]:.3f} ({_span(interval[LABELS[i]])}) | {full[i]:.3f} | {found:.3f} | {right:.3f} |"
        )
    table = "\n".join(rows)
    called = "\n".join(f"| {names[i]} | " + " | ".join(str(n) for n in confusion[i]) + " |" for i in range(4))
    parts = judged["part_f1"]
    return f"""## Accuracy

On {judged["recordings"]} recordings of the 2017 PhysioNet/CinC challenge that took no part in training (one
fold of four; the released networks saw it afterwards, so it cannot judge them again). Brackets: 95 % bootstrap
interval over recordings. The challenge's winners reached a mean F1 of 0.83 on its hidden test.

| | F1, int8 | F1, float | sensitivity | precision |
|---|---|---|---|---|
{table}

| reference \\ model | N | A | O | ~ |
|---|---|---|---|---|
{called}

The signal networks alone reach {parts["signal"]:.3f}, the feature networks {parts["features"]:.3f} (float).
The file is {size / 1000:.0f} kB, weights and activations int8; the released int8 file and its float twin name the
same rhythm on {100 * judged["released_agreement"]:.1f} % of 400 of those recordings.
"""


def _calibration(judged: dict[str, Any]) -> str:
    a = judged["abstention"]
    return f"""## How sure it is, and when it abstains

Probabilities are calibrated by one temperature ({judged["temperature"]:.2f}); their expected calibration error
is {judged["calibration_error"]:.3f}. Where the highest probability is below {a["threshold"]:.2f} the model
abstains: it then answers {100 * a["coverage"]:.1f} % of recordings. It errs on {100 * a["error_all"]:.1f} % of
all, on {100 * a["error_kept"]:.1f} % of those it answers, and would have erred on
{100 * a["error_abstained"]:.0f} % of those it does not. Mean F1 on those it answers: {a["f1_kept"]:.3f}.
Temperature and threshold were chosen on the same recordings as the figures.
"""


def _subgroups(judged: dict[str, Any]) -> str:
    lengths = "\n".join(f"| {name} | {count} | {f1:.3f} |" for name, (count, f1) in judged["length"].items())
    conditions = "\n".join(
        f"| {name} | {f1[:3].mean():.3f} | " + " | ".join(f"{one:.3f}" for one in f1) + " |"
        for name, f1 in judged["conditions"].items()
    )
    return f"""## Where it holds and where it does not

| length of recording | recordings | mean F1 |
|---|---|---|
{lengths}

The first {judged["condition_rows"]} of those recordings, changed before the device's own preprocessing (noise:
the half hour of NSTDB that training did not see; the ratio is of powers, the ECG's taken from its median
second, peak to peak):

| condition | mean F1 | N | A | O | ~ |
|---|---|---|---|---|---|
{conditions}

As noise grows, "too noisy" is the right answer for more and more of these recordings, although it is counted
wrong here.
"""


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f}-{interval[1]:.3f}"


_INTENDED_USE = """# ECG rhythm, single lead

Says whether a single-lead ECG of 9 to 60 seconds shows normal sinus rhythm (N), atrial fibrillation (A),
another rhythm (O), or is too noisy to say (~).

## Intended use

To help a trained health worker decide, at the point of care, whose ECG a clinician should read first. **It is
not for use without a clinician**: every answer is preliminary until a clinician has signed it, and "normal"
does not exclude disease. It says nothing of ischaemia, of infarction, of drug effects or of the QT interval.
"Other" is one class: ectopic beats, blocks, flutter, too slow, too fast. The data comes without ages; it has
not been tried on children.

## Data and its terms

PhysioNet/CinC Challenge 2017: recordings from AliveCor handheld recorders, one lead (hand to hand, LA-RA), 300
Hz, 9-61 s, labels of version 3. Noise from the MIT-BIH Noise Stress Test Database. Both under the Open Data
Commons Attribution License 1.0: use is free, with attribution (Clifford et al., Computing in Cardiology 2017;
Moody et al. 1984; Goldberger et al., Circulation 2000). No patient's data is in this folder: the golden
recordings are simulated.

Half of what was learned of each recording is its label, and half what networks and boosted trees that had not seen it
said of it, because readers often disagreed and each recording has one label.
"""

_LIMITS = f"""## Known failures and what was not tried

- One recorder and one lead made all the recordings. Other leads and recorders are imitated in training (rates
  100-1000 Hz, bands, gain, polarity, phase, mains, wander, muscle), not measured.
- N against O is the weakest line: single ectopic beats and first-degree blocks are missed, and the reference
  readers disagreed there too.
- Atrial flutter with a regular response and paced rhythms are rare in the data; do not rely on the model for
  them.
- AF that begins and ends within the recording may be called O.
- With no patient identifiers in the data, two recordings of one person may lie on both sides of the split.

Input: version {RHYTHM_INPUT_VERSION} of `_rhythm_input.py`. Recordings beyond 30 s are read in windows whose
probabilities are averaged. Polarity and gain are normalised before the model sees the signal.
"""
