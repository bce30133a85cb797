"""What came back from the hub, by touch in a real Chromium: from today's list to the review, which is then read."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from browser import Browser
from console import SENSORS, Running
from console_pages import sign_in, too_small

from aidpost.records import Referral, ReferralStatus, Review, ReviewDecision, encode
from aidpost.sync import keys
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import Envelope
from aidpost.sync.store import Store


def answered(device: Running) -> None:
    """The hub's word on the device's one report, as the sender leaves it in the store."""
    key = keys.from_file(device.state / "device.key")
    with Store.open(device.state, key, clock=SystemClock(), name="aidpost") as store:
        [report] = store.reports(1)
        about = {"exam": report.exam.id, "patient": report.patient.id, "at": store.now()}
        review = Review(
            id=uuid.uuid4(),
            report=report.id,
            reviewer="Dr Achieng",
            decision=ReviewDecision.CONFIRMED,
            text="laser within the month",
            **about,
        )
        referral = Referral(
            id=uuid.uuid4(),
            to="Eye unit, Kisumu",
            due="2020-01-02",
            reason="retinopathy",
            status=ReferralStatus.DUE,
            telephone="+254 700 111111",
            **about,
        )
        for number, one in enumerate((review, referral), 1):
            kind = type(one).__name__
            sent = Envelope(b"hub-epoc", "review", number, kind, report.patient.id, report.exam.id, encode(one))
            store.inbox.keep([sent], number)


@pytest.mark.parametrize(("width", "height"), [(800, 480), (1280, 720)])
def test_review_is_found_from_todays_list_and_is_not_new_once_read(tmp_path: Path, width: int, height: int) -> None:
    device = Running(tmp_path / "device", f"{SENSORS}[sync]\nenabled = false\n", practice=False)
    with device:
        device.set_up()
        exam = device.register("Amina Yusuf")
        device.tap(f"{exam}/finish")
    answered(device)
    with device, Browser(width, height) as browser:
        device.unlock()
        sign_in(browser, device)
        browser.open(device.url)
        said = str(browser.evaluate("document.body.innerText"))
        assert "answers from the hub: 1" in said
        assert "referrals overdue: 1" in said
        assert "1 new" in str(browser.evaluate("document.getElementById('status').innerText"))
        browser.screenshot(tmp_path / "home.png")
        browser.tap("a[href='/answers']")
        listed = str(browser.evaluate("document.body.innerText"))
        assert "laser within the month" in listed
        assert "2020-01-02" in listed
        assert "+254 700 111111" in listed
        assert too_small(browser) == []
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.screenshot(tmp_path / "answers.png")
        browser.tap("main li:nth-child(2) a")
        assert "laser within the month" in str(browser.evaluate("document.body.innerText"))
        browser.open(device.url)
        assert "answers from the hub" not in str(browser.evaluate("document.body.innerText"))
        assert browser.complaints == []
        device.tap("/break-glass")
        assert device.ask("GET", "/answers")[0] == 403, "an emergency exam opens no other patient"
