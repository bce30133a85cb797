"""A login provider that says that somebody's login is over: OpenID Connect Back-Channel Logout 1.0."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx2
from joserfc.errors import JoseError
from sqlalchemy import Connection, delete
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from aidpost.sync.hub import audit, schema, users
from aidpost.sync.hub._oidc_login import LEEWAY_S, LONGEST_SUBJECT, Provider
from aidpost.sync.hub._site import Site, read_form
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms

PATH = "/login/oidc/logout"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
_log = logging.getLogger(__name__)
_LONGEST_LIFE_S = 600
"""A token that says that it holds for longer is refused: it would have to be remembered as long."""


class Logout(NamedTuple):
    """Whose login is over. At least one of `subject` and `sid` is there."""

    subject: str | None
    sid: str | None
    jti: str
    until_s: float


def endpoint(site: Site, provider: Provider) -> Callable[[Request], Any]:
    """Takes logout tokens. Whoever asks, they are told 200 only where the sessions have ended (2.8)."""

    async def respond(request: Request) -> Response:
        form = await read_form(request)
        try:
            claims = await provider.signed(form.get("logout_token", ""))
            logout = read(site.config, claims, now_ms() / 1000)
        except (httpx2.HTTPError, RuntimeError) as error:
            # the provider sends it again, or not; the sessions end by themselves
            _log.error("the login provider %s: %s", site.config.oidc_issuer, error)
            return _answer(503, "temporarily_unavailable", "this hub cannot read the provider's keys")
        except (JoseError, ValueError) as error:
            return await run_in_threadpool(_refuse, site, request, str(error))
        return await run_in_threadpool(_end, site, request, logout)

    return respond


def read(config: HubConfig, claims: Mapping[str, Any], now_s: float) -> Logout:
    """The claims of a logout token whose signature was checked (2.4, 2.6).

    Raises
    ------
    ValueError
        It is not one for this hub, not from now, or an ID token.
    """
    audience = claims.get("aud")
    if claims.get("iss") != config.oidc_issuer:
        raise ValueError("it is another issuer's")
    if config.oidc_client_id not in (audience if isinstance(audience, list) else [audience]):
        raise ValueError("it is for somebody else")
    issued = _time(claims, "iat")
    if not now_s - LEEWAY_S - _LONGEST_LIFE_S <= issued <= now_s + LEEWAY_S:
        raise ValueError("it was not issued now")
    until = _time(claims, "exp")
    if not now_s - LEEWAY_S < until <= issued + _LONGEST_LIFE_S:
        raise ValueError("it has ended, or would hold for more than ten minutes")
    if "nonce" in claims:
        raise ValueError("it has a nonce, as an ID token has")
    events = claims.get("events")
    if not (isinstance(events, dict) and isinstance(events.get(EVENT), dict)):
        raise ValueError("it is about no logout")
    subject, sid, jti = (_text(claims, name) for name in ("sub", "sid", "jti"))
    if jti is None or (subject is None and sid is None):
        raise ValueError("it names nobody, or not itself")
    return Logout(subject, sid, jti, until)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"its {name} is not a time")
    return value


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= LONGEST_SUBJECT):
        raise ValueError(f"its {name} is not a name")
    return value


def _end(site: Site, request: Request, logout: Logout) -> Response:
    issuer = site.config.oidc_issuer
    try:
        with site.database.write() as connection:
            _spend(connection, issuer, logout, now_ms())
            ended = users.end_by_provider(connection, issuer, logout.subject, logout.sid)
            for name in ended:
                audit.append(connection, "hub", "logged-out-by-provider", name, issuer)
    except IntegrityError:
        return _refuse(site, request, "it was taken before")
    return Response(status_code=200)


def _spend(connection: Connection, issuer: str, logout: Logout, now: int) -> None:
    table = schema.logout_tokens
    connection.execute(delete(table).where(table.c.until_ms < now))
    digest = hashlib.sha256(f"{issuer}\n{logout.jti}".encode()).digest()
    # as long as it would be taken
    until = int(1000 * (logout.until_s + LEEWAY_S))
    connection.execute(table.insert().values(token_hash=digest, until_ms=until))


def _refuse(site: Site, request: Request, cause: str) -> Response:
    """Refuses a token. Of one address's, five in five minutes go to the audit log; a good one is always taken."""
    address = request.client.host if request.client else ""
    key = f"oidc logout {address}"
    if not site.attempts.blocked(key):
        site.attempts.failed(key)
        with site.database.write() as connection:
            audit.append(connection, "hub", "logout-refused", "oidc", f"{address}: {cause}"[:1000])
    return _answer(400, "invalid_request", "the logout token is not valid")


def _answer(status: int, error: str, description: str) -> Response:
    return JSONResponse({"error": error, "error_description": description}, status)
