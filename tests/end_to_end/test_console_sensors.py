"""The sensors on the screen, live in a real Chromium: a board that sends, falls silent, and is pulled out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser
from console import Running

from aidpost.firmware_bridge.simulators.boards import BoardSimulator


@pytest.fixture
def board() -> Iterator[BoardSimulator]:
    beat = [0] * 90 + [200, 900, 2600, -700, 0] + [150] * 12 + [0] * 18
    with BoardSimulator("healthypi4", beat * 3000) as made:
        yield made


def until(condition: Callable[[], bool], what: Callable[[], str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


@pytest.mark.parametrize(("width", "height"), [(800, 480), (1280, 720)])
def test_screen_says_which_sensors_are_alive_and_that_one_was_pulled_out(
    tmp_path: Path, board: BoardSimulator, width: int, height: int
) -> None:
    source = f"serial:{board.port}?device=healthypi4"
    (tmp_path / "photos").mkdir()
    configuration = (
        f'[sensors]\necg = "{source}"\nvitals = ["{source}"]\nfundus_right = "watch:{tmp_path / "photos"}"\n'
        "[sync]\nenabled = false\n"
    )
    with Running(tmp_path / "device", configuration, practice=False) as device, Browser(width, height) as screen:

        def text(of: str) -> str:
            found = screen.evaluate(f"document.querySelector('{of}').innerText")
            return re.sub(r"\s+", " ", str(found))

        screen.open(device.url)
        for field, value in (("name", "Rose"), ("pin", "2580"), ("again", "2580")):
            screen.fill(f"[name={field}]", value)
        screen.tap("footer .primary")
        assert "2 sensors" in text("#status")
        screen.tap("a[href='/more']")
        screen.tap("a[href='/sensors']")
        assert "not heard yet" in text("#numbers")
        screen.tap("footer .primary")
        until(lambda: "sends now" in text("#numbers"), lambda: text("#numbers"))
        assert "ECG, Vital signs" in text("#numbers"), "one board, two uses"
        assert "HealthyPi" in text("#numbers")
        screen.screenshot(tmp_path / "alive.png")
        # it falls silent: what was heard grows old, and trying it says so
        board.pause()
        until(
            lambda: "sends now" not in text("#numbers") and "Trying" not in text("#numbers"), lambda: text("#numbers")
        )
        screen.tap("footer .primary")
        until(lambda: "silent" in text("#numbers"), lambda: text("#numbers"))
        assert "the board sent nothing" in text("#numbers")
        # it is pulled out: page and status bar say so by themselves
        board.unplug()
        until(lambda: "unplugged" in text("#numbers"), lambda: text("#numbers"))
        until(lambda: "ECG: unplugged" in text("#status"), lambda: text("#status"))
        screen.screenshot(tmp_path / "unplugged.png")
        assert screen.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert screen.complaints == []
