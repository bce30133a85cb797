"""A device as a clinic has it, not for practice: a hub's key, a camera for codes, a stick, speech, two workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import Browser
from console import SENSORS, Running
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

STICK = Path("/dev/shm")
"""Mounted wherever Linux runs, as a stick would be."""
NAME = "pages-of-a-clinic"
TRIES = 5


@contextmanager
def clinic_device(folder: Path) -> Iterator[Running]:
    """Somebody is signed in, one patient is registered as A-17, and the other worker is locked out."""
    folder.mkdir(parents=True, exist_ok=True)
    hub = Ed25519PrivateKey.generate().public_key()
    (folder / "hub.pub").write_text(hub.public_bytes_raw().hex())
    configuration = (
        f'help_telephone = "+254 700 000000"\n{SENSORS}code = "sim:fundus?code=A-17"\n'
        f'[device]\nname = "{NAME}"\n[sync]\nport = 1\nhub_key_file = "{folder / "hub.pub"}"\n'
        f'[console]\nspeak = true\nlock_minutes = 60\nstick_dir = "{STICK}"\n'
    )
    try:
        with Running(folder, configuration, practice=False) as running:
            running.set_up()
            running.tap("/workers", name="Amani", pin="3691")
            exam = running.register("Amina Yusuf")
            running.tap(f"{exam}/finish")
            for _ in range(TRIES):
                assert running.ask("POST", "/unlock", {"worker": "Amani", "pin": "0000"})[0] == 401
            yield running
    finally:
        for left in STICK.glob(f"{NAME}-*"):
            left.unlink()


def results_of_forms(browser: Browser, device: Running) -> Iterator[str]:
    """Leads the browser to each page that only a form leads to, and says which it is on."""
    browser.open(f"{device.url}/find")
    browser.tap("footer form button")
    yield "found by a code"
    browser.open(f"{device.url}/more")
    browser.tap("form[action='/stick/copy'] button")
    yield "copied to the stick"
    browser.open(f"{device.url}/more")
    browser.tap("form[action='/stick/load'] button")
    yield "nothing to load from the stick"
    browser.open(f"{device.url}/sensors")
    browser.tap("footer form button")
    yield "sensors tried"
    browser.open(f"{device.url}/lock?worker=Amani")
    yield "locked out"
    browser.tap("a[href^='/telephone']")
    yield "telephone"
    browser.fill("#code", "11111111")
    browser.tap("footer .primary")
    yield "wrong code"
