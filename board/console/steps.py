"""The exam as a path: its steps, the questions, and the vital signs that may be typed in with what is plausible."""

from __future__ import annotations

from typing import NamedTuple

from aidpost.board.console.drafts import Draft
from aidpost.board.console.words import N_
from aidpost.inference.vitals import age_years
from aidpost.records import Eye, Patient, Sex, Timestamp, VitalKind

STEPS = ("questions", "vitals", "ecg", "right", "left")
TITLES = {
    "questions": N_("Questions"),
    "vitals": N_("Vital signs"),
    "ecg": N_("ECG"),
    "right": N_("Right eye"),
    "left": N_("Left eye"),
}

REASONS_WHY = (
    ("left", N_("The patient left")),
    ("mistake", N_("Begun by mistake")),
    ("wrong-patient", N_("Wrong patient")),
    ("other", N_("Another reason")),
)
"""Why an exam is given up."""


class Question(NamedTuple):
    """A question with its answers; `choices` are (answer, words). The codes are those of the rules."""

    code: str
    text: str
    choices: tuple[tuple[str, str], ...]
    need: str = ""


_YES_NO = (("yes", N_("Yes")), ("no", N_("No")), ("unknown", N_("Not known")))
QUESTIONS = (
    Question("chest-pain", N_("Chest pain now or today?"), _YES_NO),
    Question("stroke-signs", N_("Face drooping, weak arm or slurred speech?"), _YES_NO),
    Question("breathlessness", N_("Short of breath at rest?"), _YES_NO),
    Question("fainting", N_("Fainted lately?"), _YES_NO),
    Question("palpitations", N_("Heart racing or stumbling?"), _YES_NO),
    Question("severe-headache", N_("Sudden very severe headache?"), _YES_NO),
    Question("vision-loss", N_("Sudden loss of sight?"), _YES_NO),
    Question("floaters", N_("New floaters, flashes or a curtain?"), _YES_NO),
    Question("eye-pain", N_("Painful red eye?"), _YES_NO),
    Question("double-vision", N_("New double vision?"), _YES_NO),
    Question("earlier-laser", N_("Laser or surgery of the eye before?"), _YES_NO),
    Question("diabetes", N_("Diabetes?"), _YES_NO),
    Question("pacemaker", N_("Pacemaker?"), _YES_NO),
    Question("pregnant", N_("Pregnant?"), _YES_NO, need="childbearing"),
    Question("on-oxygen", N_("Breathing oxygen now?"), _YES_NO),
    Question(
        "consciousness",
        N_("How awake?"),
        (
            ("alert", N_("Awake and clear")),
            ("confusion", N_("Newly confused")),
            ("voice", N_("Answers only to voice")),
            ("pain", N_("Answers only to pain")),
            ("unresponsive", N_("Does not answer")),
        ),
    ),
)


def questions_for(patient: Patient, at: Timestamp) -> list[Question]:
    """Those that make sense for this patient; where age or sex is not known, all."""
    age = age_years(patient, at)
    may_bear = patient.sex is not Sex.MALE and (age is None or 12 <= age < 56)
    return [one for one in QUESTIONS if may_bear or one.need != "childbearing"]


class Field(NamedTuple):
    """A number that is typed in: what is plausible, decimals, and how people write the unit."""

    kind: VitalKind
    label: str
    unit: str
    low: float
    high: float
    decimals: int = 0


class Measure(NamedTuple):
    """One screen of the number pad: one or two fields, the ways of measuring, and contexts where they matter."""

    code: str
    title: str
    fields: tuple[Field, ...]
    methods: tuple[tuple[str, str], ...]
    contexts: tuple[tuple[str, str], ...] = ()


_CUFF = (("cuff, automatic", N_("Automatic cuff")), ("cuff, by ear", N_("Cuff and stethoscope")))
_COUNTED = (("counted", N_("Counted")), ("device", N_("Device")))
_STRIP = (("fingerstick", N_("Finger prick")), ("laboratory", N_("Laboratory")))
_THERMOMETER = (
    ("oral", N_("Mouth")),
    ("axillary", N_("Armpit")),
    ("tympanic", N_("Ear")),
    ("forehead", N_("Forehead")),
)
MEASURES = (
    Measure(
        "blood-pressure",
        N_("Blood pressure"),
        (
            Field(VitalKind.SYSTOLIC_BP, N_("upper"), "mmHg", 40, 300),
            Field(VitalKind.DIASTOLIC_BP, N_("lower"), "mmHg", 20, 200),
        ),
        _CUFF,
    ),
    Measure("pulse", N_("Pulse"), (Field(VitalKind.PULSE_RATE, N_("Pulse"), "/min", 20, 300),), _COUNTED),
    Measure("breaths", N_("Breaths"), (Field(VitalKind.RESPIRATORY_RATE, N_("Breaths"), "/min", 3, 90),), _COUNTED),
    Measure(
        "spo2", N_("Oxygen"), (Field(VitalKind.SPO2, N_("Oxygen"), "%", 40, 100),), (("finger", N_("Finger clip")),)
    ),
    Measure(
        "temperature",
        N_("Temperature"),
        (Field(VitalKind.TEMPERATURE, N_("Temperature"), "°C", 25, 45, 1),),
        _THERMOMETER,
    ),
    Measure(
        "glucose",
        N_("Blood sugar"),
        (Field(VitalKind.GLUCOSE, N_("Blood sugar"), "mmol/L", 0.5, 60, 1),),
        _STRIP,
        (("fasting", N_("Fasting")), ("postprandial", N_("After a meal")), ("casual", N_("Any time"))),
    ),
    Measure(
        "hba1c", N_("HbA1c"), (Field(VitalKind.HBA1C, N_("HbA1c"), "%", 3, 20, 1),), (("laboratory", N_("Laboratory")),)
    ),
    Measure(
        "weight", N_("Weight"), (Field(VitalKind.WEIGHT, N_("Weight"), "kg", 0.5, 350, 1),), (("scale", N_("Scale")),)
    ),
    Measure(
        "height", N_("Height"), (Field(VitalKind.HEIGHT, N_("Height"), "cm", 30, 250),), (("measured", N_("Measured")),)
    ),
)
MG_DL = 18.016
"""mg/dL of glucose in a mmol/L: its molar mass is 180.16 g/mol."""


class Note(NamedTuple):
    """What is written down beside the vital signs, as an answer; without `choices` in free words."""

    code: str
    title: str
    choices: tuple[tuple[str, str], ...] = ()

    def in_words(self, answer: str) -> str:
        """An answer as it is shown, in English."""
        return ({"none": N_("None")} | dict(self.choices)).get(answer, answer)


_ACUITY = (
    *((line, line) for line in ("6/6", "6/9", "6/12", "6/18", "6/24", "6/36", "6/60")),
    ("counts fingers", N_("Counts fingers")),
    ("hand movements", N_("Hand movements")),
    ("light", N_("Light only")),
    ("no light", N_("No light")),
)
NOTES = (
    Note("medicines", N_("Medicines")),
    Note("acuity-right", N_("Sight, right eye"), _ACUITY),
    Note("acuity-left", N_("Sight, left eye"), _ACUITY),
)
"""Sight as a letter chart at 6 m or a hand at less gives it, each eye by itself, with the patient's own glasses."""
LONGEST_NOTE = 300
BY_CODE = {one.code: one for one in MEASURES}
METHODS = {code: text for one in MEASURES for code, text in one.methods} | {"simulated": N_("Simulated")}


def state(draft: Draft, step: str) -> str:
    """ "done", "partly", "ungradable" or "open"."""
    if step in ("right", "left"):
        eye = Eye(step)
        if draft.ungradable(eye):
            return "ungradable"
        usable = any(one.quality.usable for one in draft.photos(eye))
        return "done" if step in draft.done else "partly" if usable or draft.photos(eye) else "open"
    if step in draft.done:
        return "done"
    begun = {"questions": bool(draft.answers), "vitals": bool(draft.vitals), "ecg": bool(draft.ecg)}
    return "partly" if begun[step] else "open"
