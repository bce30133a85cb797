"""Languages of the screen: whole catalogues, nothing that a broken one may do, and old English texts read anew."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pseudo import LETTERS, pseudo, write_catalogue

from aidpost.board.console import phrases, words
from aidpost.inference import wording
from aidpost.inference.triage import triage
from aidpost.records import AbsentReason, Answer, Device, Origin, Patient, Sex, Timestamp, VitalKind, VitalSign

CATALOGUES = sorted(words.FOLDER.glob("*.po"))


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_catalogue_has_every_text_of_screen_paper_and_rules_finished_and_with_its_placeholders(path: Path) -> None:
    assert phrases.wrong(path) == [], "bring it up to date with scripts/make-catalogues, and translate what is new"


def test_chinese_spanish_and_french_are_there_and_call_themselves_so() -> None:
    names = words.Languages().names
    assert names == {"en": "English", "es": "Español", "fr": "Français", "zh": "中文"}


def test_every_text_that_a_page_marks_is_found() -> None:
    known = phrases.phrases()
    for path in (phrases.FOLDER / "templates").glob("*.html"):
        for text in re.findall(r'_\("([^"]+)"\)', path.read_text(encoding="utf-8")):
            assert text in known, (path.name, text)
    assert {text for text, _ in wording.messages()} < set(known)


def test_what_is_wrong_with_a_catalogue_is_said(tmp_path: Path) -> None:
    path = tmp_path / "sw.po"
    write_catalogue(path, without="Today")
    text = path.read_text(encoding="utf-8")
    text = text.replace('msgid "Search"', '#, fuzzy\nmsgid "Search"')
    text = re.sub(r'(msgid "it was tried \{times\} times"\nmsgstr ").*"', r'\1{time}"', text)
    path.write_text(text + '\nmsgid "Gone since"\nmsgstr "x"\n', encoding="utf-8")
    assert phrases.wrong(path) == [
        "missing: Today",
        "unfinished: Search",
        "other placeholders: it was tried {times} times",
        "said no more: Gone since",
    ]
    known = words.catalogue(path)
    assert not {"Today", "Search", "it was tried {times} times"} & set(known), "they show in English"
    assert known["Vital signs"] == pseudo("Vital signs")


def test_bringing_a_catalogue_up_to_date_keeps_what_was_translated_and_guesses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sw.po"
    write_catalogue(path, without="Today")
    before = words.catalogue(path)
    assert phrases.update(path) == 1
    assert words.catalogue(path) == before


@pytest.mark.parametrize("damage", [b"", b'msgid "Today\nmsgstr', b"\xff\xfe\x00 no text at all", b"PNG" * 50])
def test_damaged_catalogue_leaves_english(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "sw.po").write_bytes(damage)
    (tmp_path / "not a language.po").write_text("")
    languages = words.Languages(str(tmp_path))
    assert languages.names["sw"] == "Kiswahili"
    assert languages.translator("sw")("Today") == "Today"


def test_new_language_is_one_file_and_is_written_from_the_right_where_it_is(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "ar.po")
    languages = words.Languages(str(tmp_path))
    assert languages.names["ar"] == "العربية"
    assert (words.direction("ar"), words.direction("zh"), words.direction("fr")) == ("rtl", "ltr", "ltr")
    assert languages.translator("ar")("Vital signs") == pseudo("Vital signs")
    assert languages.translator("en")("Vital signs") == "Vital signs"


@pytest.fixture(scope="module")
def translate(tmp_path_factory: pytest.TempPathFactory) -> words.Translate:
    path = tmp_path_factory.mktemp("languages") / "ar.po"
    write_catalogue(path)
    return words.Translator(words.catalogue(path))


NOW = Timestamp(wall_ms=1_780_000_000_000, monotonic_ms=1, boot=1, synced=True)


@pytest.mark.parametrize("age", ["1950", "2020", None])
def test_every_word_of_a_report_has_its_translation(translate: words.Translate, age: str | None) -> None:
    patient = Patient(id=uuid.uuid4(), birth_date=age, sex=Sex.FEMALE)
    vitals = [
        VitalSign(
            id=uuid.uuid4(),
            kind=kind,
            value=value,
            unit=unit,
            at=NOW,
            device=Device(name="x"),
            origin=Origin.LIVE,
            status=status,
            absent=None if value else AbsentReason.NOT_A_NUMBER,
        )
        for kind, value, unit, status in (
            (VitalKind.SYSTOLIC_BP, 190.0, "mm[Hg]", ()),
            (VitalKind.DIASTOLIC_BP, 95.0, "mm[Hg]", ()),
            (VitalKind.GLUCOSE, 12.0, "mmol/L", ()),
            (VitalKind.TEMPERATURE, 40.2, "Cel", ()),
            (VitalKind.PULSE_RATE, None, "/min", ()),
            (VitalKind.SPO2, 85.0, "%", ("measurement unreliable",)),
        )
    ]
    answers = [Answer(question=one, answer="yes", at=NOW) for one in ("chest-pain", "vision-loss", "palpitations")]
    made = triage(patient=patient, at=NOW, vitals=vitals, answers=answers)
    said = [*made.not_assessed, *made.advice, *(one.text for one in made.findings), *made.triage.reasons]
    assert len(said) > 15
    for text in said:
        rest = re.sub(rf"[{LETTERS}\W\d_]|NEWS2|CHA2DS2|VASc|mmol|ECG", "", translate(text))
        assert rest == "", f"{text!r} became {translate(text)!r}"
    for finding in made.findings:
        assert re.sub(rf"[{LETTERS}\W\d_]", "", wording.word(finding, translate)) == ""


@given(st.text(max_size=80))
def test_any_text_comes_through(text: str) -> None:
    translator = words.Translator({"{a} of {b} ended": "{b}: {a}", "left, right": "l, r", "left": "l"})
    made = translator(text)
    assert made == text or re.fullmatch(r".* of .* ended|left.*", text, re.DOTALL)


@given(first=st.text(max_size=20), second=st.text(max_size=20))
def test_values_of_a_text_that_was_put_together_stay(first: str, second: str) -> None:
    translator = words.Translator({"the {a} board of {b} ended": "{b}: {a}"})
    made = translator(f"the {first} board of {second} ended")
    assert sorted(made) == sorted(f"{second}: {first}")
