"""The beat model's folder: the int8 file, the card for programs, the card for people, and the golden recordings."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from ecg_beat_data import CLASSES
from ecg_evaluate import softmax
from ecg_export import Int8Model
from ecg_golden import simulate

from aidpost.inference._beats import agreed
from aidpost.inference._beats_input import BEATS_INPUT_VERSION, LIMIT, ROWS, beats_input
from aidpost.kernels import rpeaks

VERSION = "0.10.0"
GOLDEN_TOLERANCE = 0.08  # a few steps of the int8 logits: runtimes differ by that much
GOLDEN = (("sinus", 300.0, 12.0), ("bigeminy", 360.0, 12.0), ("af", 250.0, 12.0), ("bigeminy", 128.0, 12.0))
TERMS = (
    "Trained on MIT-BIH Arrhythmia, PhysioNet/CinC 2017 and NSTDB, all Open Data Commons Attribution License 1.0: "
    "attribution required."
)


def write_folder(folder: Path, tflite: Path, judged: dict[str, Any]) -> None:
    """Write model.tflite, golden.npz, card.toml and CARD.md into `folder`, and print CARD.md's figures."""
    folder.mkdir(parents=True, exist_ok=True)
    model = tflite.read_bytes()
    (folder / "model.tflite").write_bytes(model)
    write_golden(folder, judged["temperature"])
    (folder / "card.toml").write_text(toml(hashlib.sha256(model).hexdigest(), judged), encoding="utf-8")
    text = prose(judged, len(model))
    (folder / "CARD.md").write_text(text, encoding="utf-8")
    print(text)


def write_golden(folder: Path, temperature: float) -> None:
    """Simulated recordings with their R-peaks and the probabilities expected of each beat."""
    runner, arrays = Int8Model(folder / "model.tflite"), {}
    for i, (rhythm, fs_hz, seconds) in enumerate(GOLDEN):
        signal = simulate(rhythm, fs_hz, seconds, i)
        peaks = rpeaks.detect(signal, fs_hz).sample
        beats = beats_input(signal.astype(np.float64), fs_hz, peaks)
        logits = agreed(runner(beats), beats)
        arrays |= {f"signal_{i}": signal, f"fs_hz_{i}": np.float64(fs_hz), f"peaks_{i}": peaks}
        arrays[f"expected_{i}"] = softmax(logits, temperature)
    np.savez_compressed(folder / "golden.npz", **arrays)


def toml(sha256: str, judged: dict[str, Any]) -> str:
    """card.toml."""
    limits = "\n".join(f"{name} = {limit:.2f}" for name, limit in judged["thresholds"].items())
    metrics = "\n".join(
        f"{name.lower()}_sensitivity = {one[0]:.3f}\n{name.lower()}_precision = {one[1]:.3f}"
        for name, one in judged["int8"].items()
    )
    return f"""name = "ecg-beats"
version = "{VERSION}"
task = "ecg-beats"
sha256 = "{sha256}"
summary = "Class of each beat of a single-lead ECG: normal (N), supraventricular (S), ventricular (V), fusion (F)."

[input]
preprocessing = "beats"
preprocessing_version = {BEATS_INPUT_VERSION}
shape = [1, {ROWS}, 3]
limit = {LIMIT}

[output]
labels = {list(CLASSES)}
kind = "softmax"
index = 0

[calibration]
temperature = {judged["temperature"]:.3f}

[thresholds]
{limits}

[rates]
min_hz = 100.0
max_hz = 1000.0

[metrics]
records = {judged["records"]}
beats = {judged["beats"]}
{metrics}
calibration_error = {judged["calibration_error"]:.3f}

[permitted_use]
clinical = true
terms = "{TERMS}"

[golden]
tolerance = {GOLDEN_TOLERANCE}
""".replace("'", '"')


def prose(judged: dict[str, Any], size: int) -> str:
    """CARD.md."""
    return "\n".join((_INTENDED_USE, _accuracy(judged, size), _subgroups(judged), _LIMITS))


_NAMES = {"N": "Normal (N)", "S": "Supraventricular (S)", "V": "Ventricular (V)", "F": "Fusion (F)"}


def _accuracy(judged: dict[str, Any], size: int) -> str:
    rows = "\n".join(
        f"| {_NAMES[name]} | {_with(one[0], judged['interval'][name][0])} "
        f"| {_with(one[1], judged['interval'][name][1])} "
        f"| {judged['float'][name][0]:.3f} / {judged['float'][name][1]:.3f} "
        f"| {judged['one_lead'][name][0]:.3f} / {judged['one_lead'][name][1]:.3f} "
        f"| {judged['second_lead'][name][0]:.3f} / {judged['second_lead'][name][1]:.3f} |"
        for name, one in judged["int8"].items()
    )
    lines = [("no beat", judged["confusion"][0]), *zip(_NAMES.values(), judged["confusion"][1:], strict=True)]
    called = "\n".join(
        f"| {name} | " + " | ".join(str(n) for n in row) + f" | {judged['missed'][i - 1] if i else ''} |"
        for i, (name, row) in enumerate(lines)
    )
    certain = "\n".join(
        f"| {limit} | {share:.3f} | {wrong:.4f} |" for limit, (share, wrong) in judged["certainty"].items()
    )
    return f"""## Accuracy

On {judged["records"]} patients of MIT-BIH Arrhythmia (DS1 of de Chazal et al. 2004, {judged["beats"]} beats), the
first lead read and the second one heard as on the device, half an hour each, from the device's own R-peaks: each
patient is judged by a network that has seen no beat of theirs (five groups of patients; the released network has seen
all). Where the rhythm model reads atrial fibrillation only clearly early beats are called S, as on the device. A beat
that was not detected counts as missed, a detection that is no beat as a false call, and a fusion beat called
ventricular as a false call too; beats in ventricular flutter and those of class Q are left out. Brackets: 95 %
bootstrap interval over patients.

The last three columns have sensitivity / precision: of the float twin, of the first lead alone, of the second alone.

| | sensitivity | precision | float | first lead alone | second lead alone |
|---|---|---|---|---|---|
{rows}

| reference \\ model | N | S | V | F | not detected |
|---|---|---|---|---|---|
{called}

Every beat that could be looked at has an answer. Were those withheld whose highest probability is under a limit:

| limit | share answered | of these wrong |
|---|---|---|
{certain}

The thresholds ({", ".join(f"{k} {v:.2f}" for k, v in judged["thresholds"].items())}) and the temperature
({judged["temperature"]:.2f}) were chosen on the same beats, S's for eight in ten to be found. Expected calibration
error {judged["calibration_error"]:.3f}. By AAMI EC57 a fusion beat called V does not count against V: its
precision is then {_ec57(judged["confusion"]):.3f}. The file is {size / 1000:.0f} kB, weights and activations int8.
De Chazal et al. 2004 had V 77.7 / 81.9 % and S 75.9 / 38.5 % on other patients (DS2), from marked beats of two leads.
"""


def _subgroups(judged: dict[str, Any]) -> str:
    records = "\n".join(
        f"| {name} | {' / '.join(str(n) for n in one['count'])} | {_both(one, 'S')} | {_both(one, 'V')} |"
        for name, one in judged["record"].items()
    )
    conditions = "\n".join(
        f"| {name} | {one['N'][0]:.3f} / {one['N'][1]:.3f} | {one['S'][0]:.3f} / {one['S'][1]:.3f} "
        f"| {one['V'][0]:.3f} / {one['V'][1]:.3f} |"
        for name, one in judged["conditions"].items()
    )
    rates = "\n".join(
        f"| {name} | " + " | ".join(f"{one[k][0]:.3f} / {one[k][1]:.3f}" for k in "NSV") + " |"
        for name, one in judged["rate"].items()
    )
    return f"""## Where it holds and where it does not

Sensitivity / precision by patient (a dash: none to find, or none called):

| record | beats N / S / V / F | S | V |
|---|---|---|---|
{records}

By the heart rate around each beat, per minute, of the beats that were detected:

| rate | N | S | V |
|---|---|---|---|
{rates}

The first five minutes of each, first lead alone, without the rhythm model's word, changed before the device's own
detection (noise: the half hour of NSTDB that training did not see; the ratio is of powers, the ECG's taken from its
median second, peak to peak):

| condition | N | S | V |
|---|---|---|---|
{conditions}
"""


def _ec57(confusion: Any) -> float:
    """Precision of V without the fusion beats among the false calls; rows: no beat, N, S, V, F."""
    made = confusion[:, CLASSES.index("V")]
    return float(made[3] / max(made[:4].sum(), 1))


def _both(one: dict[str, Any], name: str) -> str:
    due = one["count"][CLASSES.index(name)]
    return f"{one[name][0]:.3f} / {one[name][1]:.3f}" if due else "-"


def _with(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}-{interval[1]:.3f})"


_INTENDED_USE = """# ECG beats, single lead

Gives each beat of a single-lead ECG a class of AAMI EC57: normal or bundle branch block (N), supraventricular ectopic
(S), ventricular ectopic (V), fusion of both (F). A beat that cannot be looked at (fewer than five beats, under 100 Hz)
is Q.

## Intended use

To count ectopic beats and find runs of them, so that a clinician looks at the right stretch. **It is not for use
without a clinician**: every answer is preliminary until a clinician has signed it, and no ectopic beat found does not
exclude any. It has not been tried on children, and not on paced rhythms.

## Data and its terms

MIT-BIH Arrhythmia Database (Moody and Mark 2001), the 22 unpaced records of DS1, both leads, also cut into pieces and
disturbed as other recorders would; recordings of PhysioNet/CinC 2017 labelled normal or AF, rebuilt beat by beat with
atrial beats, alone and in runs, and ventricular ones, MIT-BIH's or made up, put in; noise from NSTDB. All under the
Open Data Commons Attribution License 1.0: use is free, with attribution (Goldberger et al., Circulation 2000). No
patient's data is in this folder: the golden recordings are simulated.
"""

_LIMITS = f"""## Known failures and what was not tried

- The ectopic beats of training are those of some fifteen patients, supraventricular ones mostly of four: what another
  patient gives may lie outside every interval above.
- A supraventricular beat with aberrant conduction looks ventricular, and one that is hardly early looks normal.
- A junctional rhythm at the usual rate looks normal.
- Where ectopic beats outnumber the normal ones, the usual beat may be the wrong one.
- Ventricular tachycardia whose beats alternate between two shapes (bidirectional; record 223 has it) is mostly called
  normal: no other patient of training had it, and having it made up for training did not help.
- Where the rhythm model reads atrial fibrillation the probability of S counts a fiftieth: where it misses it, irregular
  beats are called S; where it sees it falsely, S beats are lost.
- Fusion beats are reported and not reliable: nearly all come from one patient.
- Handheld recorders are imitated (rates, bands, noise, pieces of 20-120 s), not measured: CinC 2017 has no beat labels.

Input: version {BEATS_INPUT_VERSION} of `_beats_input.py`. Gain and polarity are normalised before.
"""
