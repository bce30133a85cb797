"""The page of federated rounds, for administrators: how far each is, who was refused, what became of its head."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from browser import Browser, chromium

from aidpost.sync.hub import _round_phases, operations, rounds
from aidpost.sync.hub._chinese import CHINESE
from aidpost.sync.hub._rounds_page import PHASES
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.rounds import Plan
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice
from .web_client import PASSWORD, Client, logged_in

PLAN = Plan("ecg-rhythm", "ab" * 32, "softmax", (4, 33), minimum=2, noise=2.33)


def open_one(server: HubServer, device: FakeDevice, **changes: object) -> None:
    other = FakeDevice("unit-9")
    operations.enroll(server.config, other.name, other.public_key)
    with server.database.write() as connection:
        plan = PLAN._replace(**changes)  # type: ignore[arg-type]
        rounds.open_round(connection, server.database.epoch, plan, "root", now_ms())


def test_only_an_administrator_sees_it(reader: Client, server: HubServer) -> None:
    assert reader.get("/rounds") == 403
    root = logged_in(server, "root")
    assert root.get("/rounds") == 200
    assert "No round was opened." in root.text


def test_a_round_is_shown_with_what_it_waits_for_and_then_why_it_made_nothing(
    server: HubServer, device: FakeDevice
) -> None:
    open_one(server, device, secure=True)
    root = logged_in(server, "root")
    root.get("/rounds")
    assert "ecg-rhythm 1" in root.text
    assert "Waiting for keys" in root.text
    assert "The hub sees only the sum." in root.text
    with server.database.write() as connection:
        _round_phases.advance(connection, server.database.epoch, now_ms() + 30 * 86_400_000)
    root.get("/rounds")
    assert "without result" in root.text
    assert "0 devices sent keys of 2 needed" in root.text


def test_why_a_candidate_failed_is_shown(server: HubServer, device: FakeDevice) -> None:
    open_one(server, device)
    with server.database.write() as connection:
        row = rounds.find(connection, "ecg-rhythm/1")
        connection.execute(rounds._rows.update().values(state="closed", head=bytes(4 * 132), answers=2))
        verdict = msgspec.json.encode({"margin": 0.02, "rows": [], "reasons": ["sex female: the loss rises"]}).decode()
        rounds.set_candidate(connection, row.id, "failed", verdict)
    root = logged_in(server, "root")
    root.get("/rounds")
    assert "failed a check" in root.text
    assert "sex female: the loss rises" in root.text


def test_every_word_of_its_states_is_in_chinese() -> None:
    shown = {*PHASES.values(), "running", "ended", "without result", "not judged yet", "no worse on reviewed cases"}
    shown |= {"failed a check", "no worse in shadow, too", "given out to be signed", "Learning", "Learning together"}
    assert sorted(shown - CHINESE.keys()) == []


@pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (apt-get install chromium)")
def test_the_page_in_a_browser(server: HubServer, device: FakeDevice, tmp_path: Path) -> None:
    open_one(server, device)
    with Browser(1280, 800) as browser:
        browser.open(f"{server.url}login")
        browser.fill("#name", "root")
        browser.fill("#password", PASSWORD)
        browser.press("button.primary")
        browser.open(f"{server.url}rounds")
        assert "ecg-rhythm 1" in browser.evaluate("document.querySelector('main').innerText")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.screenshot(tmp_path / "rounds.png")
