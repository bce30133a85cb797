"""An OpenID Connect provider on loopback: authorization code with PKCE, signed ID tokens, keys that rotate, logout.

It is as strict as the standards want (exact redirect addresses, single-use codes, S256 only, a client secret), and a
test may have it sign something else than it should: `forge`. By hand: `python tests/support/oidc_provider.py URI`, the
hub's `…/login/oidc/callback`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "aidpost-hub", "s3cret-of-the-hub"
Claims = dict[str, Any]


class Provider:
    """Runs in a thread until `stop`.

    Attributes
    ----------
    people
        Claims by name: who can log in there.
    forge
        Makes the ID token from its claims in place of `sign`.
    sids
        The last login of each, as the provider names it.
    asked
        The parameters of every authorization request.
    """

    def __init__(self, redirect_uri: str, people: dict[str, Claims]) -> None:
        self.redirect_uri, self.people = redirect_uri, people
        self.forge: Callable[[Claims], str] | None = None
        self.asked: list[dict[str, str]] = []
        self.logged_out: list[dict[str, str]] = []
        self.sids: dict[str, str] = {}
        self._codes: dict[str, tuple[dict[str, str], str]] = {}
        self.keys: list[RSAKey] = []
        self.rotate()
        self._socket = socket.create_server(("127.0.0.1", 0))
        # another site than the hub's 127.0.0.1, as a real provider is
        self.issuer = f"http://localhost:{self._socket.getsockname()[1]}"
        self._start()

    def _start(self) -> None:
        routes = [
            Route("/.well-known/openid-configuration", self._configuration),
            Route("/jwks", self._jwks),
            Route("/authorize", self._ask),
            Route("/authorize", self._decide, methods=["POST"]),
            Route("/token", self._token, methods=["POST"]),
            Route("/logout", self._logout),
        ]
        settings = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off")
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=lambda: self._server.run(sockets=[self._socket]), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def rotate(self) -> None:
        """Signs with a new key from now on; the old one is no longer published."""
        self.keys = [RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"}, private=True)]

    def logout_token(self, user: str, **changes: Any) -> Claims:
        """The claims of a token that says that a login of theirs is over; None takes one away."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 120, "jti": secrets.token_hex(8)}
        event = "http://schemas.openid.net/event/backchannel-logout"
        claims |= {"sub": self.people[user]["sub"], "sid": self.sids.get(user), "events": {event: {}}} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: Claims, key: RSAKey | None = None, **header: str) -> str:
        key = key or self.keys[0]
        return jwt.encode({"alg": "RS256", "kid": key.kid or ""} | header, claims, key)

    async def _configuration(self, _request: Request) -> Response:
        known: dict[str, object] = {"issuer": self.issuer, "response_types_supported": ["code"]}
        known |= {"authorization_endpoint": f"{self.issuer}/authorize", "token_endpoint": f"{self.issuer}/token"}
        known |= {"jwks_uri": f"{self.issuer}/jwks", "end_session_endpoint": f"{self.issuer}/logout"}
        # as careless providers say it: what a client takes must not depend on it
        known |= {"id_token_signing_alg_values_supported": ["RS256", "HS256", "none"]}
        return JSONResponse(known | {"subject_types_supported": ["public"]})

    async def _jwks(self, _request: Request) -> Response:
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def _ask(self, request: Request) -> Response:
        asked = dict(request.query_params)
        wanted = {"client_id": CLIENT_ID, "redirect_uri": self.redirect_uri, "response_type": "code"}
        wanted |= {"code_challenge_method": "S256"}
        wrong = [name for name, value in wanted.items() if asked.get(name) != value]
        if wrong or "openid" not in asked["scope"].split() or not {"state", "nonce", "code_challenge"} <= asked.keys():
            return Response(f"invalid request: {wrong}", 400)
        self.asked.append(asked)
        buttons = "".join(f'<button name="user" value="{html.escape(one)}">{one}</button>' for one in self.people)
        return HTMLResponse(f'<form method="post" action="/authorize?{html.escape(urlencode(asked))}">{buttons}</form>')

    async def _decide(self, request: Request) -> Response:
        user = dict(parse_qsl((await request.body()).decode()))["user"]
        asked, code = dict(request.query_params), secrets.token_urlsafe()
        self._codes[code] = asked, user
        back = {"code": code, "state": asked["state"], "iss": self.issuer}
        return RedirectResponse(f"{self.redirect_uri}?{urlencode(back)}", 302)

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        given = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
        if [unquote(part) for part in given.split(":", 1)] != [CLIENT_ID, CLIENT_SECRET]:
            return JSONResponse({"error": "invalid_client"}, 401)
        asked, user = self._codes.pop(form.get("code", ""), ({}, ""))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        proven = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked.get("code_challenge")
        if not user or not proven or form.get("redirect_uri") != self.redirect_uri:
            return JSONResponse({"error": "invalid_grant"}, 400)
        access, now = secrets.token_urlsafe(), int(time.time())
        half = base64.urlsafe_b64encode(hashlib.sha256(access.encode()).digest()[:16]).rstrip(b"=").decode()
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        self.sids[user] = secrets.token_urlsafe(8)
        claims |= {"at_hash": half, "sid": self.sids[user]} | self.people[user]
        token = (self.forge or self.sign)(claims)
        return JSONResponse({"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": token})

    async def _logout(self, request: Request) -> Response:
        self.logged_out.append(dict(request.query_params))
        return RedirectResponse(request.query_params["post_logout_redirect_uri"], 302)


if __name__ == "__main__":
    provider = Provider(sys.argv[1], {"okoro": {"sub": "7", "preferred_username": "okoro", "groups": ["readers"]}})
    print(f"issuer {provider.issuer}, client {quote(CLIENT_ID)}", flush=True)
    threading.Event().wait()
