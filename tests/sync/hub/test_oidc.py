"""People who log in by an OpenID Connect provider on loopback, and tokens that it should not have signed."""

from __future__ import annotations

import http.client
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest
from browser import Browser, chromium
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from oidc_provider import CLIENT_ID, CLIENT_SECRET, Claims, Provider
from ports import free_port
from sqlalchemy import select

from aidpost.errors import ConfigurationError, UsageError
from aidpost.sync.hub import accounts, operations, schema
from aidpost.sync.hub.config import HubConfig, OidcGrant
from aidpost.sync.hub.oidc import grant
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, hub_with, make_report
from .web_client import Client, send

GRANTS = {
    "readers-north": OidcGrant(role="clinician", clinics=("North clinic",), reads=("eyes",)),
    "readers-south": OidcGrant(role="clinician", clinics=("South clinic",)),
    "watchers": OidcGrant(role="viewer"),
    "it": OidcGrant(role="administrator"),
}
PEOPLE: dict[str, Claims] = {
    "amina": {"sub": "a-1", "preferred_username": "Amina", "name": "Dr Amina", "groups": ["readers-north", "x"]},
    "bo": {"sub": "b-2", "preferred_username": "bo", "groups": []},
}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def provider(port: int) -> Iterator[Provider]:
    made = Provider(f"http://127.0.0.1:{port}/login/oidc/callback", {name: dict(one) for name, one in PEOPLE.items()})
    yield made
    made.stop()


@pytest.fixture
def config(config: HubConfig, provider: Provider, port: int, changes: dict[str, Any]) -> HubConfig:
    known = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET}
    known |= {"public_url": f"http://127.0.0.1:{port}/", "listen_port": port}
    return msgspec.structs.replace(config, **({"oidc_grants": GRANTS, "oidc_create": True} | changes | known))


def follow(provider: Provider, url: str, user: str) -> str:
    """What a browser does at the provider: the page is shown, `user` logs in there; returns where that leads back."""
    for method, body in (("GET", None), ("POST", urlencode({"user": user}))):
        connection = http.client.HTTPConnection(urlsplit(provider.issuer).netloc, timeout=30)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(method, url.removeprefix(provider.issuer), body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status in (200, 302)
    back = answer.headers["location"]
    assert back is not None
    return back


def come_back(server: HubServer, provider: Provider, user: str, client: Client | None = None) -> tuple[int, Client]:
    client = client or Client(server.url)
    assert client.get("/login/oidc") == 302
    back = follow(provider, client.headers["location"], user)
    return client.get(back.removeprefix(server.url.rstrip("/"))), client


def audited(server: HubServer, action: str) -> list[tuple[str, str]]:
    table = schema.audit
    with server.database.read() as connection:
        rows = connection.execute(select(table.c.target, table.c.detail).where(table.c.action == action))
        return [(row.target, row.detail) for row in rows]


def account(server: HubServer, name: str) -> Any:
    with server.database.read() as connection:
        return connection.execute(select(schema.users).where(schema.users.c.name == name)).one_or_none()


def is_in(client: Client) -> bool:
    return client.get("/") == 200


def test_reader_comes_in_by_the_provider_with_the_role_and_limits_of_their_claims(
    server: HubServer, provider: Provider, device: FakeDevice
) -> None:
    report = make_report()
    send(server, device, device.message(device.envelope(report)))
    status, client = come_back(server, provider, "amina")
    assert status == 200
    assert 'http-equiv="refresh" content="0; url=/"' in client.text, "a redirect would carry no strict cookie"
    assert is_in(client)
    assert "Dr Amina" in client.text
    assert client.get(f"/exams/{report.exam.id}") == 200
    assert client.get("/audit") == 403
    assert account(server, "amina").role == "clinician"
    with server.database.read() as connection:
        scopes = connection.execute(select(schema.user_scopes).order_by(schema.user_scopes.c.kind)).all()
    assert [tuple(scope) for scope in scopes] == [("amina", "clinic", "North clinic"), ("amina", "part", "eyes")]
    [asked] = provider.asked
    assert asked["code_challenge_method"] == "S256"
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 20
    assert audited(server, "logged-in") == [("amina", f"127.0.0.1 by {provider.issuer}")]
    assert Client(server.url).log_in("amina", "") == 401, "an account without a password is opened by none"


FOREIGN = RSAKey.generate_key(2048, private=True)


def of_secret(provider: Provider, claims: Claims) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET), algorithms=["HS256"])


def not_signed(provider: Provider, claims: Claims, kid: str | None = None) -> str:
    header = {"alg": "none"} | ({"kid": kid} if kid else {})
    parts = (urlsafe_b64encode(msgspec.json.encode(part)).rstrip(b"=").decode() for part in (header, claims))
    return ".".join([*parts, ""])


def of_public_key(provider: Provider, claims: Claims) -> str:
    """The old confusion: the public key taken for a shared secret."""
    public = provider.keys[0].as_pem(private=False)
    header = {"alg": "HS256", "kid": provider.keys[0].kid or ""}
    return jwt.encode(header, claims, OctKey.import_key(public.hex()), algorithms=["HS256"])


FORGED: dict[str, Callable[[Provider, Claims], str]] = {
    "signed by another key under the same id": lambda p, c: p.sign(c, FOREIGN, kid=p.keys[0].kid or ""),
    "signed by an unknown key": lambda p, c: p.sign(c, FOREIGN, kid="elsewhere"),
    "altered": lambda p, c: p.sign(c)[:-6] + "AAAAAA",
    "not signed": not_signed,
    "not signed, under the key's id": lambda p, c: not_signed(p, c, p.keys[0].kid or ""),
    "signed by the client's secret": of_secret,
    "signed by the public key as a secret": of_public_key,
    "expired": lambda p, c: p.sign(c | {"exp": int(time.time()) - 120}),
    "not yet valid": lambda p, c: p.sign(c | {"nbf": int(time.time()) + 600}),
    "without an end": lambda p, c: p.sign({name: value for name, value in c.items() if name != "exp"}),
    "of another login": lambda p, c: p.sign(c | {"nonce": secrets.token_urlsafe()}),
    "without a nonce": lambda p, c: p.sign({name: value for name, value in c.items() if name != "nonce"}),
    "for another program": lambda p, c: p.sign(c | {"aud": "mail"}),
    "for several, made for another": lambda p, c: p.sign(c | {"aud": [CLIENT_ID, "mail"], "azp": "mail"}),
    "of another issuer": lambda p, c: p.sign(c | {"iss": "https://id.example"}),
    "about nobody": lambda p, c: p.sign(c | {"sub": ""}),
    "about no text": lambda p, c: p.sign(c | {"sub": 7}),
    "with another access token": lambda p, c: p.sign(c | {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}),
    "no token at all": lambda p, c: "not.a.token",
}


@pytest.mark.parametrize("how", FORGED)
def test_token_that_is_not_the_providers_for_this_login_opens_nothing(
    server: HubServer, provider: Provider, how: str
) -> None:
    provider.forge = lambda claims: FORGED[how](provider, claims)
    status, client = come_back(server, provider, "amina")
    assert status == 403
    assert "not valid" in client.text
    assert not is_in(client)
    assert account(server, "amina") is None
    assert len(audited(server, "login-failed")) == 1
    provider.forge = None
    assert come_back(server, provider, "amina")[0] == 200, "and the next one that is whole opens"


def test_answer_to_a_login_that_this_browser_did_not_begin_is_refused(server: HubServer, provider: Provider) -> None:
    victim, thief = Client(server.url), Client(server.url)
    assert thief.get("/login/oidc") == 302
    back = follow(provider, thief.headers["location"], "bo").removeprefix(server.url.rstrip("/"))
    assert victim.get(back) == 403, "the thief's code in the victim's browser"
    assert victim.get("/login/oidc") == 302
    assert victim.get(back) == 403
    assert victim.get("/login/oidc/callback") == 403
    assert victim.get("/login/oidc/callback?error=access_denied&state=x") == 403
    assert not is_in(victim)


def test_code_counts_once_and_an_answer_of_another_issuer_is_refused(server: HubServer, provider: Provider) -> None:
    client = Client(server.url)
    assert client.get("/login/oidc") == 302
    cookie = dict(client.cookies)
    back = follow(provider, client.headers["location"], "amina").removeprefix(server.url.rstrip("/"))
    elsewhere = re.sub(r"iss=[^&]+", "iss=https%3A%2F%2Fid.example", back)
    assert client.get(elsewhere) == 403
    assert client.get(back) == 200
    client.cookies = cookie
    assert client.get(back) == 403
    assert not is_in(client)


def test_failed_answers_are_limited_by_address(server: HubServer) -> None:
    client = Client(server.url)
    statuses = [client.get("/login/oidc/callback?code=x&state=y") for _ in range(6)]
    assert statuses == [403] * 5 + [429]


def test_new_key_of_the_provider_is_taken_at_once(server: HubServer, provider: Provider) -> None:
    old = provider.keys[0]
    assert come_back(server, provider, "amina")[0] == 200
    provider.rotate()
    assert come_back(server, provider, "amina")[0] == 200
    provider.forge = lambda claims: provider.sign(claims, old)
    assert come_back(server, provider, "amina")[0] == 403, "the key that it withdrew"


@hub_with(oidc_create=False)
def test_no_account_is_made_beyond_what_is_configured(server: HubServer, provider: Provider) -> None:
    status, client = come_back(server, provider, "amina")
    assert (status, account(server, "amina")) == (403, None)
    assert "no account here" in client.text
    accounts.add_oidc_user(server.config, "reader7", "a-1", "viewer")
    status, client = come_back(server, provider, "amina")
    assert status == 200
    assert is_in(client)
    assert account(server, "reader7").role == "clinician", "the grants decide where there are any"
    with pytest.raises(UsageError, match="already"):
        accounts.add_oidc_user(server.config, "reader8", "a-1", "viewer")


@hub_with(oidc_grants={}, oidc_create=False)
def test_without_grants_the_role_is_the_one_that_an_administrator_gave(server: HubServer, provider: Provider) -> None:
    assert come_back(server, provider, "amina")[0] == 403
    accounts.add_oidc_user(server.config, "amina", "a-1", "viewer", clinics=("South clinic",))
    assert come_back(server, provider, "amina")[0] == 200
    assert account(server, "amina").role == "viewer"


def test_who_has_no_grant_is_refused_and_who_lost_it_is_put_out(server: HubServer, provider: Provider) -> None:
    assert come_back(server, provider, "bo")[0] == 403
    assert account(server, "bo") is None
    _, client = come_back(server, provider, "amina")
    assert is_in(client)
    provider.people["amina"]["groups"] = ["watchers"]
    assert come_back(server, provider, "amina")[0] == 200
    assert account(server, "amina").role == "viewer"
    provider.people["amina"]["groups"] = "it-was"
    assert come_back(server, provider, "amina")[0] == 403
    assert not is_in(client), "sessions from before end, too"


def test_account_of_the_same_name_is_not_given_over(server: HubServer, provider: Provider) -> None:
    provider.people["amina"]["preferred_username"] = "root"
    status, client = come_back(server, provider, "amina")
    assert status == 403
    assert "has your name" in client.text
    assert account(server, "root").subject is None
    provider.people["amina"]["preferred_username"] = "  <b>"
    assert come_back(server, provider, "amina")[0] == 403
    assert come_back(server, provider, "bo")[0] == 403
    provider.people["amina"]["preferred_username"] = "amina"
    assert come_back(server, provider, "amina")[0] == 200
    provider.people["amina"]["preferred_username"] = "somebody-else"
    assert come_back(server, provider, "amina")[0] == 200, "who was renamed there is the same here"
    assert account(server, "somebody-else") is None


def test_disabled_user_is_out_at_once_and_stays_out(server: HubServer, provider: Provider) -> None:
    _, client = come_back(server, provider, "amina")
    accounts.disable_user(server.config, "amina")
    assert not is_in(client)
    assert come_back(server, provider, "amina")[0] == 403
    with pytest.raises(UsageError, match="no such user"):
        accounts.disable_user(server.config, "nobody")


@hub_with(second_factor=True)
def test_hub_that_asks_for_a_second_factor_wants_it_of_the_provider(
    server: HubServer, provider: Provider, device: FakeDevice
) -> None:
    assert come_back(server, provider, "amina")[0] == 403
    assert audited(server, "login-failed")[0][1].endswith("no second factor")
    provider.people["amina"]["amr"] = ["pwd", "mfa"]
    status, client = come_back(server, provider, "amina")
    assert status == 200
    assert is_in(client)


@hub_with(passwords="administrators", oidc_issuer="http://localhost:1", oidc_client_id="x", public_url="http://x")
def test_administrator_comes_in_by_password_when_the_provider_is_away(server: HubServer, provider: Provider) -> None:
    provider.stop()
    client = Client(server.url)
    assert client.get("/login/oidc") == 503
    assert "does not answer" in client.text
    assert Client(server.url).log_in("okoro") == 401, "passwords are the administrators' alone"
    assert client.log_in("root") == 303
    assert is_in(client)


def test_provider_that_is_another_than_it_should_be_is_refused(server: HubServer, provider: Provider) -> None:
    provider.issuer = "https://id.example"
    assert Client(server.url).get("/login/oidc") == 503


def test_logging_out_ends_the_session_here_and_leads_to_the_providers_end(
    server: HubServer, provider: Provider
) -> None:
    _, client = come_back(server, provider, "amina")
    stolen = Client(server.url)
    stolen.cookies = dict(client.cookies)
    assert client.submit("/account", "/logout") == 200
    url = re.search(r'content="0; url=([^"]+)"', client.text)
    assert url is not None
    assert url[1].startswith(f"{provider.issuer}/logout?")
    follow_logout = http.client.HTTPConnection(urlsplit(provider.issuer).netloc, timeout=30)
    follow_logout.request("GET", url[1].removeprefix(provider.issuer).replace("&amp;", "&"))
    assert follow_logout.getresponse().headers["location"].startswith(f"{server.url}login")
    follow_logout.close()
    assert provider.logged_out[0]["client_id"] == CLIENT_ID
    assert not is_in(stolen)


def tell(server: HubServer, token: str) -> int:
    """What a provider does when a login ends there."""
    return Client(server.url).post("/login/oidc/logout", {"logout_token": token})


def test_login_that_ended_at_the_provider_ends_here_and_others_stay(server: HubServer, provider: Provider) -> None:
    _, first = come_back(server, provider, "amina")
    _, second = come_back(server, provider, "amina")
    provider.people["bo"]["groups"] = ["watchers"]
    _, other = come_back(server, provider, "bo")
    by_password = Client(server.url)
    assert by_password.log_in("okoro") == 303
    assert tell(server, provider.sign(provider.logout_token("amina"))) == 200
    assert [is_in(one) for one in (first, second, other, by_password)] == [True, False, True, True]
    assert tell(server, provider.sign(provider.logout_token("amina", sid=None), typ="logout+jwt")) == 200
    assert [is_in(one) for one in (first, other, by_password)] == [False, True, True]
    assert tell(server, provider.sign(provider.logout_token("bo", sub=None))) == 200
    assert [is_in(one) for one in (other, by_password)] == [False, True]
    assert audited(server, "logged-out-by-provider") == [(name, provider.issuer) for name in ("amina", "amina", "bo")]


def test_provider_that_ends_a_login_unknown_here_is_answered_that_it_is_over(
    server: HubServer, provider: Provider
) -> None:
    assert tell(server, provider.sign(provider.logout_token("amina", sid="unheard-of"))) == 200
    assert audited(server, "logged-out-by-provider") == []


def test_logout_token_is_taken_once(server: HubServer, provider: Provider) -> None:
    _, client = come_back(server, provider, "amina")
    token = provider.sign(provider.logout_token("amina", sid=None))
    assert tell(server, token) == 200
    _, client = come_back(server, provider, "amina")
    assert tell(server, token) == 400
    assert is_in(client)


LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "another-client"},
        {"aud": None},
        {"iat": 1_700_000_000},
        {"iat": None},
        {"exp": 1_700_000_000},
        {"exp": 4_000_000_000},
        {"exp": True},
        {"nonce": "n"},
        {"events": None},
        {"events": {LOGOUT_EVENT: "yes"}},
        {"events": {"http://schemas.openid.net/event/other": {}}},
        {"jti": None},
        {"sub": None, "sid": None},
        {"sid": 7},
        {"sub": "x" * 300},
    ],
    ids=str,
)
def test_logout_token_that_is_not_one_ends_nothing(
    server: HubServer, provider: Provider, wrong: dict[str, Any]
) -> None:
    _, client = come_back(server, provider, "amina")
    assert tell(server, provider.sign(provider.logout_token("amina", **wrong))) == 400
    assert is_in(client)
    assert audited(server, "logout-refused")


@pytest.mark.parametrize("forge", [of_secret, not_signed, of_public_key])
def test_logout_token_that_the_provider_did_not_sign_ends_nothing(
    server: HubServer, provider: Provider, forge: Callable[[Provider, Claims], str]
) -> None:
    _, client = come_back(server, provider, "amina")
    assert tell(server, forge(provider, provider.logout_token("amina"))) == 400
    assert tell(server, "") == 400
    assert tell(server, "not.a.token") == 400
    assert is_in(client)


def test_logout_by_a_new_key_counts_and_forgeries_by_anybody_keep_none_out(
    server: HubServer, provider: Provider
) -> None:
    _, client = come_back(server, provider, "amina")
    for _ in range(8):
        assert tell(server, "x.y.z") == 400
    assert len(audited(server, "logout-refused")) == 5, "a flood does not fill the log"
    provider.rotate()
    assert tell(server, provider.sign(provider.logout_token("amina"))) == 200
    assert not is_in(client)


def test_logout_is_answered_503_while_the_provider_does_not_answer(server: HubServer, provider: Provider) -> None:
    token = provider.sign(provider.logout_token("amina", sid="s"))
    provider.stop()
    assert tell(server, token) == 503


def test_who_came_by_password_is_not_sent_to_the_provider_at_the_end(server: HubServer) -> None:
    client = Client(server.url)
    assert client.log_in("okoro") == 303
    assert client.submit("/account", "/logout") == 303
    assert client.headers["location"] == "/login"


def test_cookie_of_a_begun_login_is_kept_from_scripts(server: HubServer) -> None:
    client = Client(server.url)
    assert client.get("/login/oidc") == 302
    assert "httponly" in client.headers["set-cookie"].lower()
    assert "samesite=lax" in client.headers["set-cookie"].lower()
    client.cookies["oidc"] = client.cookies["oidc"][::-1]
    assert client.get("/login/oidc/callback?code=x&state=y") == 403


@pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (apt-get install chromium)")
def test_in_a_browser_the_provider_leads_in_and_out(server: HubServer, provider: Provider, tmp_path: Path) -> None:
    with Browser() as browser:
        browser.open(f"{server.url}login")
        browser.screenshot(tmp_path / "login.png")
        browser.press('a[href="/login/oidc"]')
        assert browser.evaluate("location.origin") == provider.issuer
        browser.evaluate("document.querySelector('button[value=amina]').click()")
        # the page after the provider's leads on by itself, with a cookie that a redirect from there would not carry
        go_until(browser, "location.pathname === '/' && document.readyState === 'complete'")
        assert "Dr Amina" in browser.evaluate("document.body.innerText")
        browser.evaluate("document.querySelector('form[action=\"/logout\"] button').click()")
        go_until(browser, "location.pathname === '/login' && document.readyState === 'complete'")
        assert len(provider.logged_out) == 1
        browser.open(server.url)
        assert browser.evaluate("location.pathname") == "/login"
        assert [one for one in browser.complaints if "404" not in one] == [], "the provider has no icon"


def go_until(browser: Browser, condition: str) -> None:
    deadline = time.monotonic() + 60
    while not browser.evaluate(condition):
        assert time.monotonic() < deadline, browser.evaluate("document.documentElement.outerHTML")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"oidc_issuer": "http://id.example"}, "oidc_issuer"),
        ({"oidc_issuer": "https://id.example?x"}, "oidc_issuer"),
        ({"public_url": ""}, "oidc_issuer"),
        ({"oidc_client_id": ""}, "oidc_issuer"),
        ({"oidc_scope": "profile"}, "oidc_scope"),
        ({"oidc_grants": {}}, "oidc_create"),
        ({"oidc_issuer": "", "passwords": "administrators"}, "passwords"),
    ],
)
def test_configuration_that_would_let_anybody_in_or_nobody_is_refused(changes: dict[str, Any], key: str) -> None:
    whole = {"state_dir": "x", "oidc_issuer": "https://id.example", "oidc_client_id": "hub", "oidc_create": True}
    whole |= {"public_url": "https://hub.example", "oidc_grants": GRANTS}
    HubConfig(**whole)
    with pytest.raises(ConfigurationError, match=key):
        HubConfig(**(whole | changes))


@given(st.lists(st.sampled_from([*GRANTS, "unknown"])))
def test_several_values_never_entitle_to_more_than_one_of_them_does(values: list[str]) -> None:
    config = HubConfig(state_dir="x", oidc_grants=GRANTS, oidc_grant_claim="realm_access.roles")
    found = grant(config, {"realm_access": {"roles": values}})
    known = [GRANTS[value] for value in values if value in GRANTS]
    assert (found is None) == (not known)
    for clinic in ("North clinic", "South clinic", "elsewhere") if found else ():
        if not found.clinics or clinic in found.clinics:
            assert any(one.role == found.role.value and (not one.clinics or clinic in one.clinics) for one in known), (
                "this role in this clinic is one value's own"
            )


def test_unreadable_authority_is_said(config: HubConfig) -> None:
    operations.enroll(config, "unit-1", FakeDevice().public_key)
    broken = msgspec.structs.replace(config, oidc_ca="/nowhere.pem")
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem"):
        HubServer(broken)
