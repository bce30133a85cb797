"""What only a form leads to, looked at in a real Chromium: found by a code, the stick, the telephone."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import Browser
from console_clinic import clinic_device, results_of_forms
from console_pages import sign_in, too_small

HIDDEN = "((main) => main.scrollHeight - main.clientHeight)(document.querySelector('main'))"
EXPECTED = {
    "found by a code": "Amina Yusuf",
    "copied to the stick": "records are on the stick",
    "nothing to load from the stick": "no answer of the hub",
    "sensors tried": "Sensors",
    "locked out": "Locked for",
    "telephone": "Type the 8 digits",
    "wrong code": "not right",
}


@pytest.mark.parametrize(("width", "height"), [(800, 480), (1280, 720)])
def test_pages_behind_forms_say_what_was_done_and_fit_the_screen(tmp_path: Path, width: int, height: int) -> None:
    with clinic_device(tmp_path / "device") as device, Browser(width, height) as browser:
        sign_in(browser, device)
        seen = {}
        for name in results_of_forms(browser, device):
            browser.screenshot(tmp_path / f"{name.replace(' ', '-')}.png")
            seen[name] = str(browser.evaluate("document.body.innerText"))
            assert too_small(browser) == [], name
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            assert browser.evaluate(HIDDEN) <= 4, f"{name} does not fit"
        assert {name: text in seen[name] for name, text in EXPECTED.items()} == dict.fromkeys(seen, True)
        # what is refused answers 401 or 409
        assert [one for one in browser.complaints if "status of 4" not in one] == []
