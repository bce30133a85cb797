"""A device in a clinic in shadow, in a real Chromium: the worker sees no answer of a model, and all the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from console import Running
from console_pages import sign_in

CONFIGURATION = """
[sensors]
ecg = "sim:ecg?rhythm=af&fs=250"
fundus_right = "sim:fundus?eye=right&grade=4&seed=3"
fundus_left = "sim:fundus?eye=left&darkness=0.95"
vitals = ["sim:vitals"]
[inference]
shadow = true
[console]
lock_minutes = 60
"""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("device"), CONFIGURATION, practice=False) as running:
        running.set_up()
        yield running


def test_result_of_an_exam_in_shadow_shows_no_answer_of_a_model(device: Running, tmp_path: Path) -> None:
    exam = device.register()
    device.tap(f"{exam}/questions", question="vision-loss", answer="yes")
    device.tap(f"{exam}/acknowledge")
    device.tap(f"{exam}/eye/right")
    device.tap(f"{exam}/eye/left")
    device.record_ecg(exam)
    device.tap(f"{exam}/vitals/read")
    if device.ask("GET", exam)[1].endswith("/alarm"):
        device.tap(f"{exam}/acknowledge")
    device.tap(f"{exam}/finish")
    with Browser(800, 480) as browser:
        sign_in(browser, device)
        told = ""
        for part in ("result", "eyes", "heart", "vitals", "missing"):
            browser.open(f"{device.url}{exam}/result?part={part}")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), part
            browser.screenshot(tmp_path / f"{part}.png")
            assert browser.evaluate("document.querySelectorAll('img.heat').length") == 0
            told += " " + re.sub(r"\s+", " ", str(browser.evaluate("document.body.innerText")))
    assert "a clinician reads it" in told
    assert "what the model found is not shown here yet" in told
    assert "/min" in told
    assert not re.search(r"\bDR \d|fibrillation|retinopathy", told.replace("diabetic retinopathy", ""), re.IGNORECASE)
    assert re.search("vision|sight", told, re.IGNORECASE), "the red flag is there"
    assert "ungradable" in told, "quality is not the model's answer"
