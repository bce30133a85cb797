"""Every page of the device's screen against WCAG 2.2 AA by axe-core: both sizes of screen, and written from the right.

Run by `scripts/test-web`, which fetches axe-core and says where it is in AIDPOST_NODE_MODULES.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe import violations, violations_here
from browser import Browser
from console import SENSORS, Running
from console_clinic import clinic_device, results_of_forms
from console_pages import prepared, sign_in
from pseudo import write_catalogue


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("device")
    write_catalogue(folder / "languages/ar.po")
    configuration = f'{SENSORS}\n[console]\nlanguages_dir = "{folder / "languages"}"\nlock_minutes = 60\n'
    with Running(folder, configuration) as running, Browser(800, 480) as browser:
        setup = violations(browser, running.url + "/lock")
        assert setup == [], "the first start"
        running.set_up()
        yield running, prepared(running)


@pytest.mark.parametrize(("width", "height"), [(800, 480), (1280, 720)])
@pytest.mark.parametrize("language", ["en", "zh", "ar"])
def test_every_page_meets_wcag_aa(
    device: tuple[Running, dict[str, str]], width: int, height: int, language: str
) -> None:
    running, pages = device
    running.tap("/language", language=language)
    pages = {**pages, "lock": "/lock", "pin": "/lock?worker=Rose", "languages": "/lock?language=choose"}
    with Browser(width, height) as browser:
        sign_in(browser, running)
        found = {name: violations(browser, running.url + path) for name, path in pages.items()}
        exam = running.register("Neema")
        running.tap(f"{exam}/questions", question="chest-pain", answer="yes")
        found["alarm"] = violations(browser, f"{running.url}{exam}/alarm")
        running.tap(f"{exam}/acknowledge")
    assert {name: rules for name, rules in found.items() if rules} == {}


@pytest.mark.parametrize(("width", "height"), [(800, 480), (1280, 720)])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_forms_lead_to_meets_wcag_aa(tmp_path: Path, width: int, height: int, language: str) -> None:
    with clinic_device(tmp_path) as running, Browser(width, height) as browser:
        running.tap("/language", language=language)
        sign_in(browser, running)
        found = {name: violations_here(browser) for name in results_of_forms(browser, running)}
    assert len(found) == 7
    assert {name: rules for name, rules in found.items() if rules} == {}
