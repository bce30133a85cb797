"""Spoken prompts in a real Chromium, with the real espeak-ng: what a page says is played, and again on a touch."""

from __future__ import annotations

import time
from pathlib import Path

from browser import Browser
from console import SENSORS, Running
from console_pages import sign_in


def test_question_and_emergency_are_played_and_again_by_a_touch(tmp_path: Path) -> None:
    configuration = f'{SENSORS}[console]\nspeak = true\nlanguage = "es"\n'
    with Running(tmp_path / "device", configuration) as device, Browser(800, 480) as browser:
        device.set_up()
        exam = device.register()
        sign_in(browser, device)
        browser.open(f"{device.url}{exam}")
        browser.tap("a[href$='/questions']")  # a touch: from now on the browser lets pages be heard
        played(browser, 1)
        browser.tap("#say", leads=False)
        played(browser, 2)
        browser.screenshot(tmp_path / "question.png")
        box = browser.evaluate("JSON.stringify(document.getElementById('say').getBoundingClientRect())")
        assert '"height":56' in box, box
        device.tap(f"{exam}/questions", question="chest-pain", answer="yes")
        browser.tap("footer a")
        assert str(browser.evaluate("location.pathname")).endswith("/alarm")
        played(browser, 1)
        browser.screenshot(tmp_path / "alarm.png")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert browser.complaints == []


def played(browser: Browser, times: int) -> None:
    deadline = time.monotonic() + 60
    while int(browser.evaluate("document.body.dataset.said || 0")) < times:
        assert time.monotonic() < deadline, f"it was not played {times} times"
        time.sleep(0.1)
