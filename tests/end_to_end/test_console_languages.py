"""The screen in other languages, in a real Chromium: switched by touch, from the right, nothing left English."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from console import SENSORS, Running
from console_pages import prepared, sign_in
from pseudo import write_catalogue

# what is the same in every language: names, units, abbreviations of medicine, addresses and numbers of the device
KEPT = (
    r"Amina Yusuf|Joseph|Zawadi|Amani|Rose|Kisumu East|A-17|mmHg|mmol/L|mg/dL|/min|°C|kg|cm|ms|mV|mm/s|mm/mV"
    r"|sim:[a-z]+|DR|QRS|QTcF|PR|HbA1c|NEWS2|CHA2DS2-VASc|English|Español|Français|ECG|SpO₂|PIN|GMT|UTC|USB|PDF"
)

LABELS = """[...document.querySelectorAll('[aria-label],[alt],[title]')].flatMap((one) =>
    ['aria-label', 'alt', 'title'].map((name) => one.getAttribute(name) || '')).join(' ')"""
VISIBLE = """[...document.querySelectorAll('[lang=en]')].forEach((one) => one.remove()); document.body.innerText"""


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("device")
    write_catalogue(folder / "languages/ar.po")
    configuration = f'{SENSORS}\n[console]\nlanguages_dir = "{folder / "languages"}"\nlock_minutes = 60\n'
    with Running(folder, configuration) as running:
        running.set_up()
        yield running


def test_no_page_keeps_an_english_word_and_none_breaks_when_written_from_the_right(
    device: Running, tmp_path: Path
) -> None:
    pages = prepared(device)
    device.tap("/language", language="ar")
    with Browser(800, 480) as browser:
        sign_in(browser, device)
        forgotten, broken = {}, {}
        for name, path in {
            **pages,
            "lock": "/lock",
            "pin": "/lock?worker=Rose",
            "languages": "/lock?language=choose",
        }.items():
            browser.open(device.url + path)
            assert browser.evaluate("document.documentElement.dir") == "rtl", name
            browser.screenshot(tmp_path / f"{re.sub('[^a-z]+', '-', name)}.png")
            text = re.sub(KEPT, "", f"{browser.evaluate(VISIBLE)} {browser.evaluate(LABELS)}")
            text = re.sub(r"\b[0-9A-F]{4}\b", "", text)  # the first four of a patient's number
            if found := re.findall(r"[A-Za-z]{2,}", text):
                forgotten[name] = found
            if not browser.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                broken[name] = "wider than the screen"
        assert forgotten == {}
        assert broken == {}


def test_language_is_switched_by_touch_on_the_locked_screen_and_stays(device: Running) -> None:
    device.tap("/workers", name="Juma", pin="1357")  # of two the screen asks who it is
    device.tap("/leave")
    with Browser(800, 480) as browser:
        browser.open(f"{device.url}/lock")
        for language, word in (
            ("zh", "您是谁"),
            ("es", "Quién es usted"),
            ("fr", "Qui êtes-vous"),
            ("en", "Who are you"),
            ("zh", "您是谁"),
        ):
            browser.tap("[href='/lock?language=choose']")
            browser.tap(f"[value={language}]")
            assert browser.evaluate("document.documentElement.lang") == language
            assert word in str(browser.evaluate("document.body.innerText"))
        browser.tap("a[href='/lock?worker=Rose']")
        for digit in "2580":
            browser.tap(f"[data-key='{digit}']", leads=False)
        browser.tap("footer .primary")
        assert "今天" in str(browser.evaluate("document.body.innerText"))
        assert browser.complaints == []
