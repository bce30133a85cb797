"""A whole exam by touch in a real Chromium, on both screens that devices have."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from browser import Browser
from console import Running
from console_pages import too_small

CONFIGURATION = """
[sensors]
ecg = "sim:ecg?rhythm=sinus&fs=250"
fundus_right = "sim:fundus?eye=right&grade=0"
fundus_left = "sim:fundus?eye=left&darkness=0.95"
vitals = ["sim:vitals"]
"""


class Walk:
    """The health worker: goes through an exam, looking at each screen."""

    def __init__(self, browser: Browser, device: Running, shots: Path) -> None:
        self.browser, self.device, self.shots = browser, device, shots

    def look(self, name: str) -> None:
        """What holds for every screen: nothing too small to touch, nothing cut off to the side."""
        self.browser.screenshot(self.shots / f"{name}.png")
        assert too_small(self.browser) == [], name
        assert self.browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"

    def text(self) -> str:
        return re.sub(r"\s+", " ", str(self.browser.evaluate("document.body.innerText")))

    def arrive(self) -> str:
        browser = self.browser
        browser.open(self.device.url)
        browser.fill("[name=name]", "Rose Banda")
        browser.fill("[name=pin]", "2580")
        browser.fill("[name=again]", "2580")
        self.look("setup")
        browser.tap("footer .primary")
        self.look("home")
        browser.tap("footer form button")
        for digit in "2580":
            browser.tap(f"[data-key='{digit}']", leads=False)
        browser.tap("[name=clock]", leads=False)
        self.look("lock")
        browser.tap("footer .primary")
        browser.tap("a[href='/find']")
        browser.fill("[name=text]", "amina")
        browser.tap(".search button")
        browser.tap("a[href='/patients/new']")
        browser.fill("[name=name]", "Amina Yusuf")
        browser.fill("[name=born]", "1961")
        for choice in ("[value=female]", "[name=screening]", "[name=sharing]"):
            browser.tap(choice, leads=False)
        self.look("register")
        browser.tap("footer .primary")
        browser.tap("footer .primary")
        self.look("path")
        return str(browser.evaluate("location.pathname"))

    def questions(self, exam: str) -> None:
        self.browser.open(f"{self.device.url}{exam}/questions")
        self.look("question")
        self.browser.tap(".answer.no")
        self.browser.tap("form[action$='/none'] button")
        self.browser.tap(".answer.alert")
        self.look("answers")

    def vitals(self, exam: str) -> None:
        browser = self.browser
        browser.open(f"{self.device.url}{exam}/vitals/blood-pressure")
        for digit in "141":
            browser.tap(f"[data-key='{digit}']", leads=False)
        browser.tap("#field2", leads=False)
        for digit in "85":
            browser.tap(f"[data-key='{digit}']", leads=False)
        self.look("measure")
        browser.tap("footer .primary")
        assert "141/85" in self.text()
        browser.open(f"{self.device.url}{exam}/vitals/breaths")
        for _ in range(6):
            browser.tap("#tapper", leads=False)
        assert int(browser.evaluate("document.getElementById('field1').value")) > 0
        browser.open(f"{self.device.url}{exam}/vitals")
        browser.tap("form[action$='/read'] button")
        self.look("vitals")
        browser.tap("footer .primary")

    def eyes(self, exam: str) -> None:
        browser = self.browser
        browser.open(f"{self.device.url}{exam}/eye/right")
        deadline = time.monotonic() + 30
        while not browser.evaluate("window.frames_drawn > 3") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert browser.evaluate("window.frames_drawn > 3")
        self.look("eye")
        browser.tap("footer .primary")
        self.look("eye-kept")
        assert "Good photograph" in self.text()
        browser.tap("form[action$='/close'] button")
        browser.open(f"{self.device.url}{exam}/eye/left")
        for attempt in (1, 2, 3):
            browser.tap("form.once button")
            assert f"Attempt {attempt} / 3" in self.text()
            if attempt < 3:
                self.look("eye-again")
                browser.tap("a[href*='again']")
        assert "Ungradable" in self.text()
        self.look("eye-ungradable")
        browser.tap("form[action$='/close'] button")

    def heart(self, exam: str) -> None:
        self.browser.open(f"{self.device.url}{exam}/ecg")
        self.browser.tap("#start", leads=False)
        deadline = time.monotonic() + 60
        while "Good signal" not in self.text():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.2)
        self.look("ecg")
        self.browser.wait_for_page()
        self.look("ecg-kept")
        self.browser.tap("form[action$='/close'] button")

    def result(self, exam: str) -> None:
        for part in ("result", "eyes", "heart", "vitals", "missing"):
            self.browser.open(f"{self.device.url}{exam}/result?part={part}")
            self.look(f"result-{part}")
        self.browser.open(f"{self.device.url}{exam}/result")
        assert "Preliminary" in self.text()
        self.browser.tap("footer .primary")
        assert "Finish" not in self.text()
        self.browser.open(self.device.url)
        assert "Amina Yusuf" in self.text()
        assert "Soon" in self.text()


@pytest.mark.parametrize(("width", "height"), [(800, 480), (1280, 720)])
def test_whole_exam_by_touch(tmp_path: Path, width: int, height: int) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    with Running(tmp_path / "device", CONFIGURATION) as device, Browser(width, height) as browser:
        walk = Walk(browser, device, shots)
        exam = walk.arrive()
        walk.questions(exam)
        walk.vitals(exam)
        walk.eyes(exam)
        walk.heart(exam)
        walk.result(exam)
        assert browser.complaints == []
