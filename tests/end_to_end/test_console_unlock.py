"""A worker who is locked out telephones: one Chromium at the device, which no network reaches, one at the hub."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from console import Running
from console_pages import too_small

from aidpost.sync import keys
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub import identity, operations, schema, users
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer
from aidpost.sync.store import Store

PASSWORD = secrets.token_urlsafe(16)
TRIES = 5


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    config = HubConfig(state_dir=str(tmp_path / "hub"), broker_host="", listen_port=0)
    made = HubServer(config)
    with made.database.write() as connection:
        users.add(connection, "okoro", PASSWORD, users.Role.CLINICIAN, "Dr Okoro", now_ms())
    made.start()
    yield made
    made.stop()


@pytest.fixture
def device(tmp_path: Path, hub: HubServer) -> Iterator[Running]:
    """Enrolled at the hub, with two workers, and no way to reach it."""
    state = tmp_path / "device" / "state"
    key = keys.from_file(state / "device.key", create=True)
    with Store.open(state, key, clock=SystemClock(), name="unit-1") as store:
        operations.enroll(hub.config, "unit-1", keys.public_bytes(store.identity.public))
    (tmp_path / "hub.pub").write_text(identity.public_key(hub.config.state).hex())
    configuration = (
        'help_telephone = "+254 700 000000"\n[device]\nname = "unit-1"\n'
        f'[sync]\nport = 1\nhub_key_file = "{tmp_path / "hub.pub"}"\n'
    )
    with Running(tmp_path / "device", configuration, practice=False) as running:
        running.set_up()
        running.tap("/workers", name="Amani", pin="3691")
        running.tap("/leave")
        yield running


def lock_out(device: Running) -> str:
    for _ in range(TRIES):
        status, _, page = device.ask("POST", "/unlock", {"worker": "Rose", "pin": "0000"})
        assert status == 401
        assert "Rose" in page, "the page stays the worker's, also where there are several"
    return page


def code_for(device: Running, browser: Browser, hub: HubServer, challenge: str) -> str:
    """What a clinician sees who types what they are told."""
    browser.open(f"{hub.url}unlock?device=unit-1")
    browser.fill("#challenge", challenge)
    browser.press("main form .primary")
    return str(browser.evaluate("document.querySelector('.digits').innerText")).strip()


def test_locked_out_worker_is_let_in_by_a_telephoned_code_and_by_nothing_else(
    tmp_path: Path, device: Running, hub: HubServer
) -> None:
    assert "Too many wrong PINs" in lock_out(device)
    with Browser(800, 480) as screen, Browser(1280, 720) as desk:
        desk.open(f"{hub.url}login")
        desk.fill("#name", "okoro")
        desk.fill("#password", PASSWORD)
        desk.press("main form .primary")
        screen.open(f"{device.url}/lock?worker=Rose")
        screen.tap("a[href^='/telephone']")
        shown = str(screen.evaluate("document.querySelector('.digits .value').innerText"))
        assert re.fullmatch(r"\d\d \d{5} \d{3}", shown)
        assert "+254 700 000000" in screen.evaluate("document.body.innerText")
        assert screen.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert too_small(screen) == []
        screen.screenshot(tmp_path / "telephone.png")
        code = code_for(device, desk, hub, shown)
        desk.screenshot(tmp_path / "hub.png")

        device.kill()  # between the call and the code
        device.start()
        screen.open(f"{device.url}/telephone?worker=Rose")
        assert screen.evaluate("document.querySelector('.digits .value').innerText") == shown
        for digit in "11111111":
            screen.tap(f"[data-key='{digit}']", leads=False)
        screen.tap("footer .primary")
        assert "not right" in screen.evaluate("document.body.innerText")
        for digit in code.replace(" ", ""):
            screen.tap(f"[data-key='{digit}']", leads=False)
        screen.tap("footer .primary")
        assert "try your PIN again" in screen.evaluate("document.body.innerText")
        device.kill()  # the code was spent before the page came
        device.start()
        status, where, _ = device.ask("POST", "/telephone", {"worker": "Rose", "code": code})
        assert (status, where) == (303, "/lock"), "spent"
        screen.open(f"{device.url}/lock?worker=Rose")
        for digit in "2580":
            screen.tap(f"[data-key='{digit}']", leads=False)
        screen.tap("footer .primary")
        assert screen.evaluate("location.pathname") == "/"
        # a wrong code answers 401, and nothing answers while there is no power
        assert not [one for one in screen.complaints if "Failed to load resource" not in one]
        assert desk.complaints == []
    with hub.database.read() as connection:
        actions = list(connection.execute(schema.audit.select()).mappings())
    assert [row["detail"].split()[0] for row in actions if row["action"] == "unlock-code"] == [shown.replace(" ", "")]
