"""Every page of the device's screen, with something on each: for tests that look at all of them."""

from __future__ import annotations

from urllib.parse import urlsplit

from browser import Browser
from console import Running

SMALLEST = 56
"""Pixels: on a 5 inch screen of 800x480 that is 7.6 mm, a gloved finger."""
TARGETS = """[...document.querySelectorAll('main a, button, footer a, main input:not([type=hidden])')]
    .map((one) => [one, (one.closest('.check, .choice label, .consents label') || one).getBoundingClientRect()])
    .filter(([one, box]) => box.width && box.height < %d)
    .map(([one, box]) => one.outerHTML.slice(0, 80) + ' ' + box.height)"""
PARTS = ("result", "eyes", "heart", "vitals", "missing")


def prepared(device: Running) -> dict[str, str]:
    """Pages by name, of a device that somebody set up; their addresses."""
    device.tap("/workers", name="Amani", pin="3691")
    exam, finished, urgent = device.register("Amina Yusuf"), device.register("Joseph"), device.register("Zawadi")
    device.tap(f"{exam}/questions", question="diabetes", answer="yes")
    device.tap(f"{exam}/vitals/read")
    device.tap(f"{exam}/eye/right")
    device.record_ecg(exam)
    device.tap(f"{finished}/questions", question="palpitations", answer="yes")
    device.tap(f"{finished}/vitals/read")
    device.tap(f"{finished}/eye/right")
    device.tap(f"{finished}/finish")
    device.tap(f"{urgent}/questions", question="fainting", answer="yes")
    if device.ask("GET", urgent)[1].endswith("/alarm"):
        device.tap(f"{urgent}/acknowledge")
    pages = {
        "home": "/",
        "find": "/find",
        "register": "/patients/new",
        "more": "/more",
        "unassigned": "/unassigned",
        "thrown": "/unassigned/thrown",
        "sensors": "/sensors",
    }
    steps = (
        "",
        "/watch",
        "/notes/medicines",
        "/notes/acuity-left",
        "/give-up",
        "/questions",
        "/questions?q=chest-pain",
        "/vitals",
        "/ecg",
        "/ecg?again=1",
        "/eye/right",
        "/eye/left",
    )
    pages |= {f"exam{step}": exam + step for step in (*steps, "/eye/right", "/eye/left")}
    pages |= {f"measure {code}": f"{exam}/vitals/{code}" for code in ("blood-pressure", "breaths", "glucose")}
    pages |= {f"{part}, open": f"{exam}/result?part={part}" for part in PARTS}
    pages |= {f"{part}, finished": f"{finished}/result?part={part}" for part in PARTS}
    return pages | {"problem": f"{finished}/vitals", "refused": f"{exam}/vitals/nothing"}


def sign_in(browser: Browser, device: Running) -> None:
    """The browser takes over the client's session."""
    name, _, value = device.cookie.partition("=")
    browser.call("Network.setCookie", name=name, value=value, url=device.url, httpOnly=True, sameSite="Strict")
    assert urlsplit(device.url).hostname == "127.0.0.1"


def too_small(browser: Browser) -> list[str]:
    """What on this page is too small for a gloved finger."""
    return list(browser.evaluate(TARGETS % SMALLEST))
