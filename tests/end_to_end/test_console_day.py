"""Days at the screen that are not all smooth: several exams, a retake, another language, a sensor pulled out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from console import SENSORS, Running
from console_day import Day

from aidpost.firmware_bridge.simulators.boards import BoardSimulator

MOST_TAPS, MOST_SCREENS = 36, 28
"""Of an exam of a new patient with every step: with 1.1 s a tap and 1.35 s a screen that leaves 10 s of 90 for waits
(benchmarks/console_day.py measures them)."""


def signed_in(browser: Browser, device: Running) -> None:
    browser.open(device.url)
    browser.fill("[name=name]", "Rose")
    browser.fill("[name=pin]", "2580")
    browser.fill("[name=again]", "2580")
    browser.tap("footer .primary")


def test_exams_of_a_day_with_a_retake_and_another_language_stay_within_their_taps(tmp_path: Path) -> None:
    with Running(tmp_path / "device", SENSORS) as device, Browser(800, 480) as browser:
        signed_in(browser, device)
        day = Day(browser, device, 9)
        first = day.exam("Amina Yusuf")
        browser.open(f"{device.url}/more")
        browser.tap("[value=zh]")
        second = day.exam("Joseph Otieno", retakes=1)
        browser.open(device.url + "/")
        assert "Amina Yusuf" in day.text()
        assert "Joseph Otieno" in day.text()
        assert "今天" in day.text()
        assert browser.complaints == []
    assert first.taps <= MOST_TAPS
    assert first.screens <= MOST_SCREENS
    assert second.taps == first.taps + 2, "a retake is two taps"


@pytest.fixture
def board() -> Iterator[BoardSimulator]:
    beat = [0] * 90 + [200, 900, 2600, -700, 0] + [150] * 12 + [0] * 18
    with BoardSimulator("healthypi4", (beat * 300)) as made:
        yield made


def test_board_unplugged_while_it_records_is_said_and_the_exam_goes_on(tmp_path: Path, board: BoardSimulator) -> None:
    times = "[exam]\necg_seconds = 40\nsensor_deadline_s = 8\n"
    sensors = f'[sensors]\necg = "serial:{board.port}?device=healthypi4"\n'
    with (
        Running(tmp_path / "device", sensors, practice=False, exam=times) as device,
        Browser(800, 480) as browser,
    ):
        signed_in(browser, device)
        day = Day(browser, device, 9)
        day.register("Amina Yusuf")
        exam = str(browser.evaluate("location.pathname"))
        day.questions()
        day.tap("a[href$='/ecg']")
        day.tap("#start", leads=False)
        wait_for(lambda: board.sent > 500)
        puller = threading.Thread(target=board.unplug)
        puller.start()
        puller.join()
        wait_for(lambda: "/ecg" in str(browser.evaluate("location.pathname")) and said(browser))
        browser.open(f"{device.url}{exam}")
        browser.tap("a[href$='/questions']")
        assert "Chest pain" in day.text(), "what was answered is there"
        browser.open(f"{device.url}{exam}/result")
        browser.tap("form[action$='/finish'] button")
        assert "Amina Yusuf" in day.text()


def said(browser: Browser) -> bool:
    """Whether the screen says that something is wrong, or that the recording is not good enough."""
    shown = "!!document.querySelector('#trouble:not([hidden]), .verdict.bad')"
    return bool(browser.evaluate(shown))


def wait_for(condition: object, seconds: float = 120) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)
