"""Every page against WCAG 2.2 AA by axe-core, in a real Chromium, at the width of a desk and of a tablet.

Run by `scripts/test-web`, which fetches axe-core and says where it is in AIDPOST_NODE_MODULES.
"""

from __future__ import annotations

import pytest
from axe import violations, violations_here
from browser import Browser

from aidpost.records import TriageLevel
from aidpost.sync.hub import identity
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer
from aidpost.sync.telephone import Line

from .conftest import FakeDevice
from .web_client import PASSWORD, logged_in, whole_report


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_meets_wcag_aa(server: HubServer, device: FakeDevice, width: int, language: str) -> None:
    report = whole_report(server, device, triage=TriageLevel.URGENT)
    whole_report(server, device)
    server.notifier.turn(now_ms())
    page = f"/exams/{report.exam.id}"
    assert logged_in(server, "okoro").submit(page, f"{page}/referrals", to="Eye unit", due="2026-01-02") == 303
    paths = ["", "?show=sample", "?show=reviewed", page[1:], "alerts", "alerts?show=all", "referrals", "devices"]
    paths += [
        "quality",
        "audit?verify=1",
        "rounds",
        "patients",
        "patients?q=amina",
        f"patients/{report.patient.id}",
        "account",
        "unlock",
        "limits",
        "nowhere",
    ]
    with Browser(width, 1000) as browser:
        found = {"login": violations(browser, server.url + "login")}
        browser.open(f"{server.url}login?lang={language}")
        browser.fill("#name", "root")
        browser.fill("#password", PASSWORD)
        browser.press("button.primary")
        found |= {path: violations(browser, server.url + path) for path in paths}
        line = Line(device.key, identity.signing_key(server.config.state).public_key(), device.name)
        for name, challenge in (("code", line.challenge("Rose")), ("misheard", "0")):
            browser.open(f"{server.url}unlock")
            browser.fill("#challenge", challenge)
            browser.press("main form .primary")
            found[name] = violations_here(browser)
    assert {path: rules for path, rules in found.items() if rules} == {}
