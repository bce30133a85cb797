"""Clinical limits signed on a page: what is shown is what is signed, by two people who prove again that it is them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest
from browser import Browser, chromium
from sqlalchemy import select

from aidpost.board.remote_rules import judge
from aidpost.inference import golden_rules
from aidpost.sync import rules as wire
from aidpost.sync.hub import identity, operations, outgoing, schema, second_factor
from aidpost.sync.hub._chinese import CHINESE
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.second_factor import SecondFactors
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice
from .web_client import PASSWORD, Client, add_people, logged_in

LIMITS = {"vitals": {"hypoxaemia": 88.0}}
BROKEN = {"vitals": {"severe_hypoxaemia": 60.0, "hypoxaemia": 61.0}}
DRAFT = "[limits.vitals]\nhypoxaemia = 88"


@pytest.fixture
def server(config: HubConfig, request: pytest.FixtureRequest) -> Iterator[HubServer]:
    for name, clinic in (("unit-1", "north"), ("unit-2", "south")):
        operations.enroll(config, name, FakeDevice(name).public_key, clinic=clinic)
    made = HubServer(config, judge_limits=getattr(request, "param", judge))
    add_people(made.database)
    made.start()
    yield made
    made.stop()


def propose(server: HubServer, limits: wire.Limits = LIMITS, clinic: str = "north") -> uuid.UUID:
    return operations.propose_limits(server.config, clinic, limits, "altitude 2,400 m")


def sign(client: Client, number: uuid.UUID, password: str = PASSWORD, **more: str) -> int:
    """As the page's form does it."""
    assert client.get("/limits") == 200
    form = re.search(rf'action="/limits/{number}/signatures".*?</form>', client.text, re.DOTALL)
    hidden = dict(re.findall(r'name="(csrf|serving)" value="([^"]*)"', form.group() if form else client.text))
    return client.post(f"/limits/{number}/signatures", {"serving": "", **hidden, "password": password, **more})


def sent(server: HubServer, device: str) -> int:
    with server.database.read() as connection:
        return sum(one.cls == "rules" for one in outgoing.waiting_for(connection, device))


def audited(server: HubServer, action: str) -> list[str]:
    table = schema.audit
    with server.database.read() as connection:
        return list(connection.execute(select(table.c.actor).where(table.c.action == action)).scalars())


def test_two_people_of_two_roles_sign_on_the_page_and_it_goes_to_the_clinics_devices(server: HubServer) -> None:
    okoro, root = logged_in(server, "okoro"), logged_in(server, "root")
    number = propose(server)
    assert root.get("/devices") == 200
    assert "to be signed by you" in root.text
    assert sign(okoro, number) == 303
    assert sent(server, "unit-1") == 0
    assert sign(okoro, number) == 409, "one person once"
    assert sign(logged_in(server, "adeyemi"), number) == 409, "one of a role"
    assert sign(root, number) == 303
    assert (sent(server, "unit-1"), sent(server, "unit-2")) == (1, 0)
    assert audited(server, "limits-signed") == ["okoro", "root"]
    assert sign(root, number) == 409
    root.get("/limits")
    assert "Nothing waits for a signature." in root.text
    assert "Dr Okoro (clinician)" in root.text


def test_the_page_shows_who_why_the_difference_and_what_the_golden_cases_say(server: HubServer) -> None:
    first = propose(server)
    for user in ("okoro", "root"):
        operations.sign_limits(server.config, first, user, PASSWORD)
    propose(server, {"vitals": {"hypoxaemia": 87.0}, "ecg": {}})
    okoro = logged_in(server, "okoro")
    assert okoro.get("/limits") == 200
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", okoro.text))
    published = judge({}).published["vitals"]["hypoxaemia"].value
    assert f"hypoxaemia vitals {published:g} % 88 87" in text
    assert f"All golden cases hold: {len(golden_rules.cases())}" in text
    assert "altitude 2,400 m" in text
    assert "command-line" in text


def test_limits_that_break_a_golden_case_are_shown_with_it_and_signed_by_nobody(server: HubServer) -> None:
    number = propose(server, BROKEN)
    root = logged_in(server, "root")
    root.get("/limits")
    assert judge(BROKEN).broken
    for case in judge(BROKEN).broken:
        assert case in root.text
    assert f"/limits/{number}/signatures" not in root.text
    assert sign(root, number) == 409
    assert audited(server, "limits-signed") == []
    unknown = propose(server, {"vitals": {"no_such_limit": 1.0}})
    assert root.get("/limits") == 200
    assert "no_such_limit" in root.text
    assert sign(root, unknown) == 409


def test_a_wrong_password_signs_nothing_is_audited_and_soon_blocked(server: HubServer) -> None:
    number, root = propose(server), logged_in(server, "root")
    assert [sign(root, number, "something else") for _ in range(6)] == [403] * 5 + [429]
    assert sign(root, number) == 429
    assert audited(server, "limits-signed") == []
    assert audited(server, "limits-signature-refused") == ["root"] * 5


def test_who_has_a_second_factor_signs_with_it_too(server: HubServer) -> None:
    factors = SecondFactors(identity.signing_key(server.config.state).private_bytes_raw())
    with server.database.write() as connection:
        secret = factors.offer(connection, "root")
        second_factor.confirm(connection, "root", now_ms())
    number, root = propose(server), logged_in(server, "root")
    assert sign(root, number) == 403
    root.get("/limits")
    assert 'name="code"' in root.text
    assert sign(root, number, code="000000") == 403
    assert sign(root, number, code=pyotp.TOTP(secret).now()) == 303
    assert audited(server, "limits-signed") == ["root"]


def test_what_is_signed_is_what_was_looked_at(server: HubServer) -> None:
    number, root = propose(server), logged_in(server, "root")
    root.get("/limits")
    csrf = re.search(r'name="csrf" value="([^"]*)"', root.text)
    assert csrf is not None
    other = propose(server, {"vitals": {"hypoxaemia": 89.0}})
    for user in ("okoro", "root"):
        operations.sign_limits(server.config, other, user, PASSWORD)
    fields = {"csrf": csrf.group(1), "serving": "", "password": PASSWORD}
    assert root.post(f"/limits/{number}/signatures", fields) == 409
    assert "Look at the difference again" in root.text
    assert sign(root, number) == 303, "after another look"


def test_access_is_by_role_clinic_and_form(server: HubServer) -> None:
    number = propose(server)
    viewer = logged_in(server, "viewer")
    assert viewer.get("/limits") == 403
    assert viewer.get("/devices") == 200
    assert "/limits" not in viewer.text
    assert Client(server.url).get("/limits") == 303
    root = logged_in(server, "root")
    for path in ("", f"/{number}/signatures", f"/{number}/withdrawal"):
        assert root.post(f"/limits{path}", {"password": PASSWORD, "csrf": "of another login"}) == 403
    with server.database.write() as connection:
        connection.execute(schema.user_scopes.insert().values(user="okoro", kind="clinic", value="south"))
    okoro = logged_in(server, "okoro")
    assert okoro.get("/limits") == 200
    assert "altitude" not in okoro.text
    assert sign(okoro, number) == 404
    assert okoro.submit("/limits", f"/limits/{number}/withdrawal") == 404
    assert okoro.submit("/limits", "/limits", clinic="north", limits=DRAFT, why="because") == 404
    assert sign(root, uuid.uuid4()) == 404


def test_limits_are_proposed_on_the_page_held_to_the_golden_cases_and_taken_back(server: HubServer) -> None:
    okoro = logged_in(server, "okoro")
    assert okoro.submit("/limits", "/limits", clinic="north", limits=DRAFT, why="altitude") == 303
    [made] = operations.limit_changes(server.config)
    assert (made.clinic, made.limits, made.why, made.proposed_by) == ("north", LIMITS, "altitude", "okoro")
    for limits, why, said in (
        ("[limits.vitals]\nsevere_hypoxaemia = 60\nhypoxaemia = 61", "x", "break a golden case"),
        ("[limits.vitals]\nhypoxia = 88", "x", "hypoxia"),
        ("[limits.vitals]\nhypoxaemia = 'low'", "x", "float"),
        ("limits =", "x", "Invalid value"),
        (DRAFT, " ", "no reason"),
    ):
        assert okoro.submit("/limits", "/limits", clinic="north", limits=limits, why=why) == 400, limits
        assert said in okoro.text
    assert len(operations.limit_changes(server.config)) == 1
    assert okoro.submit("/limits", f"/limits/{made.id}/withdrawal") == 303
    assert okoro.submit("/limits", f"/limits/{made.id}/withdrawal") == 409
    assert [one.state for one in operations.limit_changes(server.config)] == ["withdrawn"]
    assert audited(server, "limits-proposed") == audited(server, "limits-withdrawn") == ["okoro"]


@pytest.mark.parametrize("server", [None], indirect=True)
def test_a_hub_that_cannot_run_the_golden_cases_signs_on_no_page(server: HubServer) -> None:
    number, root = propose(server), logged_in(server, "root")
    assert root.get("/limits") == 200
    assert "aidpost hub rules sign" in root.text
    assert sign(root, number) == 409
    assert root.submit("/limits", "/limits", clinic="north", limits=DRAFT, why="x") == 400
    assert audited(server, "limits-signed") == []


def test_every_golden_case_and_refusal_is_in_chinese(server: HubServer) -> None:
    shown = {case.name for case in golden_rules.cases()} | {"replaced", "withdrawn", "clinician", "administrator"}
    assert sorted(shown - CHINESE.keys()) == []
    propose(server, BROKEN)
    root = logged_in(server, "root")
    root.get("/limits?lang=zh")
    assert "临床界值" in root.text
    assert CHINESE[judge(BROKEN).broken[0]] in root.text


@pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (apt-get install chromium)")
def test_signing_in_a_browser(server: HubServer, tmp_path: Path) -> None:
    first = propose(server, {"vitals": {"hypoxaemia": 89.0}})
    for user in ("okoro", "root"):
        operations.sign_limits(server.config, first, user, PASSWORD)
    propose(server, BROKEN, "south")
    number = propose(server, LIMITS | {"ecg": {"tachycardia": 105.0}})
    operations.sign_limits(server.config, number, "adeyemi", PASSWORD)
    with Browser(1280, 1000) as browser:
        browser.open(f"{server.url}login")
        browser.fill("#name", "root")
        browser.fill("#password", PASSWORD)
        browser.press("button.primary")
        browser.open(f"{server.url}limits")
        browser.screenshot(tmp_path / "limits.png")
        browser.open(f"{server.url}limits?lang=zh")
        browser.screenshot(tmp_path / "limits-zh.png")
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.fill(f"[id='p{number}']", PASSWORD)
        browser.press(f"form[action='/limits/{number}/signatures'] button")
        assert browser.evaluate("location.pathname") == "/limits"
        assert browser.complaints == []
    assert operations.limit_changes(server.config)[0].state == "sent"
    assert sent(server, "unit-1") == 1, "the one before, which nobody had taken, is withdrawn"
