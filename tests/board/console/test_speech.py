"""What is spoken: real espeak-ng, in the screen's language, never a name, and no harm where it is missing."""

from __future__ import annotations

import io
import os
import re
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from console import SENSORS, Running
from console_pages import prepared
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.board.console import speech
from aidpost.board.console.speech import Speech, lacking, synthesise

NAMES = ("Amina", "Yusuf", "Joseph", "Zawadi", "A-17", "1961")


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    lacking.cache_clear()
    yield
    lacking.cache_clear()


def seconds(sound: bytes) -> float:
    with wave.open(io.BytesIO(sound)) as file:
        assert file.getnchannels() == 1
        assert len(file.readframes(file.getnframes())) == file.getnframes() * file.getsampwidth()
        return file.getnframes() / file.getframerate()


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Emergency. Act now."),
        ("zh", "紧急情况。立即处理。"),
        ("es", "Emergencia. Actúe ahora."),
        ("fr", "Urgence vitale. Agissez maintenant."),
    ],
)
def test_every_language_of_the_screen_is_spoken_by_espeak(language: str, text: str) -> None:
    assert lacking(language) == ""
    assert seconds(synthesise(text, language)) > 0.8
    assert synthesise(text, language) != synthesise(text, "en" if language != "en" else "fr"), "with its own voice"


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=40))
def test_whatever_the_text_is_it_is_a_whole_file_or_none(text: str) -> None:
    made = synthesise(text, "en")
    assert made == b"" or seconds(made) >= 0


def test_language_without_a_voice_and_a_missing_program_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no voice" in lacking("xx")
    assert Speech(on=True).address("hello", "xx") == ""
    monkeypatch.setattr(speech, "PROGRAM", "no-such-program")
    lacking.cache_clear()
    assert "not installed" in lacking("en")
    assert Speech(on=True).address("hello", "en") == ""
    assert synthesise("hello", "en") == b""


def test_nothing_is_kept_where_a_site_wants_no_speech_and_old_texts_go() -> None:
    assert Speech(on=False).address("hello", "en") == ""
    made = Speech(on=True)
    first = made.address("hello", "en").rpartition("/")[2]
    sound = made.sound(first)
    assert sound is not None
    assert made.sound(first) is sound, "made once"
    for number in range(40):
        made.address(f"text {number}", "en")
    assert made.sound(first) is None
    assert made.sound("0" * 32) is None


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the device gives espeak-ng to say: the real one, with somebody who writes down."""
    log, program = tmp_path / "heard", tmp_path / "bin" / "espeak-ng"
    program.parent.mkdir()
    real = shutil.which("espeak-ng")
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *--stdin*) tee -a {log} | {real} "$@"; echo >> {log};; *) exec {real} "$@";; esac\n'
    )
    program.chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


def test_steps_questions_triage_and_emergency_are_spoken_and_never_a_name(tmp_path: Path, heard: Path) -> None:
    with Running(tmp_path / "device", f"{SENSORS}[console]\nspeak = true\n") as device:
        device.set_up()
        spoken = {}
        for name, path in prepared(device).items():
            _, _, page = device.ask("GET", path)
            if found := re.search(r'data-say="(/speech/[0-9a-f]{32})"', page):
                assert not re.search("|".join(NAMES), found[1])
                spoken[name] = found[1]
                assert device.ask("GET", found[1])[0] == 200
        assert {"exam", "exam/questions?q=chest-pain", "result, open", "exam/eye/right", "measure glucose"} <= set(
            spoken
        )
        assert not {"home", "find", "register", "unassigned"} & set(spoken), "lists of patients say nothing"
        exam = device.register("Zawadi Amina")
        device.tap(f"{exam}/questions", question="chest-pain", answer="yes")
        alarm = device.page(f"{exam}/alarm")
        found = re.search(r'data-say="([^"]*)"', alarm)
        assert found is not None
        assert device.ask("GET", found[1])[0] == 200
        device.tap(f"{exam}/acknowledge")
        device.tap("/leave")
        assert device.ask("GET", found[1])[:2] == (303, "/lock"), "who has locked the screen hears nothing"
        assert "data-say" not in device.page("/lock")
    said = heard.read_text()
    assert "Emergency. Act now." in said
    assert "9 9 9" in said
    assert "chest pain" in said.lower()
    assert not re.findall("|".join(NAMES), said)


def test_without_espeak_the_device_works_says_so_and_speaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Running(tmp_path / "device", f"{SENSORS}[console]\nspeak = true\n") as device:
        device.set_up()
        assert "espeak-ng is not installed" in device.page("/more")
        exam = device.register()
        assert "data-say" not in device.page(exam)
