"""A health worker's day at the device's screen, by touch in a real Chromium, and what the software took of each exam.

Counted are taps, screens and the waits between a tap and the next screen. A tap costs 1.1 s and a new screen 1.35 s of
looking (pointing and mental preparation of the keystroke-level model: Card, Moran and Newell 1980), a letter on the
screen's keyboard 0.5 s. The recording of the ECG itself is the exam and not the software, and is left out.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from browser import Browser
from console import Running

TAP_S, SCREEN_S, LETTER_S = 1.1, 1.35, 0.5


@dataclass
class Overhead:
    """Of one exam. `waited_s` is measured, the rest counted."""

    taps: int = 0
    screens: int = 0
    letters: int = 0
    waited_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Taps, looks, letters and waits together."""
        return self.taps * TAP_S + self.screens * SCREEN_S + self.letters * LETTER_S + self.waited_s


class Day:
    """Exams one after the other on a device that somebody set up and unlocked in this browser."""

    def __init__(self, browser: Browser, device: Running, ecg_seconds: float) -> None:
        self.browser, self.device, self._ecg_seconds = browser, device, ecg_seconds
        self._now = Overhead()

    def text(self) -> str:
        """What is on the screen."""
        return re.sub(r"\s+", " ", str(self.browser.evaluate("document.body.innerText")))

    def tap(self, selector: str, *, leads: bool = True) -> None:
        """A tap, and the wait for the screen that it leads to."""
        began = time.monotonic()
        self.browser.tap(selector, leads=leads)
        self._now.taps += 1
        if leads:
            self._now.screens += 1
            self._now.waited_s += time.monotonic() - began

    def type(self, selector: str, text: str) -> None:
        """Letters on the screen's keyboard."""
        self.browser.fill(selector, text)
        self._now.letters += len(text)

    def exam(self, name: str, *, retakes: int = 0) -> Overhead:
        """A new patient, every step, and the report queued."""
        self._now = Overhead()
        self.browser.open(self.device.url + "/")
        self.register(name)
        self.questions()
        self.tap("a[href$='/vitals']")
        self.tap("form[action$='/read'] button")
        self.tap("form[action$='/close'] button")
        self.heart()
        self.eye("right", retakes)
        self.eye("left", 0)
        self.tap("a[href$='/result']")
        self.tap("form[action$='/finish'] button")
        return self._now

    def register(self, name: str) -> None:
        """Search first, then register, and begin."""
        self.tap("a[href='/find']")
        self.type("[name=text]", name[:4])
        self.tap(".search button")
        self.tap("a[href='/patients/new']")
        self.type("[name=name]", name)
        self.type("[name=born]", "61")
        for choice in ("[value=female]", "[name=screening]", "[name=sharing]"):
            self.tap(choice, leads=False)
        self.tap("footer .primary")
        self.tap("footer .primary")

    def questions(self) -> None:
        """No to everything, awake."""
        self.tap("a[href$='/questions']")
        self.tap(".answer.no")
        self.tap("form[action$='/none'] button")
        self.tap(".answer.alert")
        self.tap("footer .primary")

    def heart(self) -> None:
        """An ECG; what is longer than the recording is the software's wait."""
        self.tap("a[href$='/ecg']")
        began = time.monotonic()
        self.tap("#start", leads=False)
        self.browser.wait_for_page()
        self._now.screens += 1
        self._now.waited_s += max(0.0, time.monotonic() - began - self._ecg_seconds)
        self.tap("form[action$='/close'] button")

    def eye(self, side: str, retakes: int) -> None:
        """A photograph, taken again that often, and kept."""
        self.tap(f"a[href$='/eye/{side}']")
        self.tap("form.once button")
        for _ in range(retakes):
            self.tap("a[href*='again']")
            self.tap("form.once button")
        self.tap("form[action$='/close'] button")
