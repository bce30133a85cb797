"""Logging in by OpenID Connect: authorization code with PKCE, by Authlib.

Discovery, keys, state, nonce, PKCE and the ID token's claims are Authlib's work; held to here are the issuer that was
configured, signatures that a key of the provider's makes and no shared secret, and that keys are asked for anew, so
that one that the provider withdrew counts no longer than ten minutes.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from typing import Any

import anyio.from_thread
import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth, StarletteOAuth2App
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.errors import ConfigurationError
from aidpost.sync.hub import audit, oidc, users
from aidpost.sync.hub._site import Site
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.oidc import Refused

CALLBACK = "/login/oidc/callback"
_log = logging.getLogger(__name__)
_RENEW_S = 600.0
_TIMEOUT_S = _KEYS_EVERY_S = 10.0
LEEWAY_S = 60
LONGEST_SUBJECT = 255  # OpenID Connect Core 1.0, 2
_ALGORITHMS = {f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)} | {"EdDSA", "Ed25519"}
_NO_ANSWER = "The login provider does not answer. Try again, or log in with a password."
_NOT_VALID = "The login provider's answer is not valid. Log in again."


class Provider:
    """One hub's login provider. Its discovery document and keys are read when somebody first logs in.

    Raises
    ------
    ConfigurationError
        `hub.oidc_ca` cannot be read.
    """

    def __init__(self, config: HubConfig) -> None:
        self._config = config
        self._tls = _tls(config)
        self._made: tuple[float, StarletteOAuth2App] | None = None
        self._asked_anew = -_KEYS_EVERY_S

    async def client(self) -> StarletteOAuth2App:
        """Authlib's client with the provider's metadata.

        Raises
        ------
        httpx2.HTTPError, ValueError
            The provider does not answer, or not as the configured issuer.
        """
        if self._made and time.monotonic() - self._made[0] < _RENEW_S:
            return self._made[1]
        config = self._config
        made = OAuth().register(
            "oidc",
            client_id=config.oidc_client_id,
            client_secret=config.oidc_client_secret or None,
            server_metadata_url=f"{config.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": config.oidc_scope,
                "code_challenge_method": "S256",
                "token_endpoint_auth_method": "client_secret_basic" if config.oidc_client_secret else "none",
                "verify": self._tls,
                "timeout": _TIMEOUT_S,
            },
        )
        metadata = await made.load_server_metadata()
        if metadata.get("issuer") != config.oidc_issuer:
            raise ValueError(f"it says that it is {metadata.get('issuer')!r}, not {config.oidc_issuer!r}")
        offered = metadata.get("id_token_signing_alg_values_supported", ["RS256"])
        made.server_metadata["id_token_signing_alg_values_supported"] = sorted(_ALGORITHMS.intersection(offered))
        self._made = time.monotonic(), made
        return made

    def forget(self) -> None:
        """Asks the provider anew for its keys at the next login."""
        self._made = None

    async def claims(self, request: Request) -> dict[str, Any]:
        """What the ID token says of who came back from the provider.

        Raises
        ------
        AuthlibBaseError, JoseError, ValueError
            The answer belongs to no login begun in this browser, or the token is not one of the provider's for it.
        httpx2.HTTPError
            The provider does not answer.
        """
        client = await self.client()
        if request.query_params.get("iss", self._config.oidc_issuer) != self._config.oidc_issuer:
            raise ValueError("the answer comes from another issuer")  # RFC 9207
        options = {"iss": {"essential": True, "values": [self._config.oidc_issuer]}}
        options["aud"] = {"essential": True, "values": [self._config.oidc_client_id]}
        token = await client.authorize_access_token(request, claims_options=options, leeway=LEEWAY_S)
        claims = dict(token.get("userinfo") or {})
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
            raise ValueError("it sent no ID token, or one without a subject")
        return claims

    async def signed(self, token: str) -> dict[str, Any]:
        """What a token says that a key of the provider's signed. Keys are asked for anew at an unknown one, but not
        more than once in ten seconds: anybody may send tokens.

        Raises
        ------
        JoseError, ValueError
            It is not signed so, or is no token.
        httpx2.HTTPError
            The provider does not answer.
        """
        client = await self.client()
        registry = JWSRegistry(
            algorithms=client.server_metadata["id_token_signing_alg_values_supported"], strict_check_header=False
        )
        keys = KeySet.import_key_set(await client.fetch_jwk_set())
        try:
            return jwt.decode(token, keys, registry=registry).claims
        except InvalidKeyIdError:
            if time.monotonic() - self._asked_anew < _KEYS_EVERY_S:
                raise
            self._asked_anew = time.monotonic()
            keys = KeySet.import_key_set(await client.fetch_jwk_set(force=True))
            return jwt.decode(token, keys, registry=registry).claims

    async def logout_url(self) -> str:
        """Where the user's login at the provider ends, too (RP-Initiated Logout 1.0); empty: it has no such place."""
        try:
            client = await self.client()
        except (httpx2.HTTPError, ValueError) as error:
            _log.warning("the login provider %s: %s", self._config.oidc_issuer, error)
            return ""
        if not client.server_metadata.get("end_session_endpoint"):
            return ""
        back = f"{self._config.public_url.rstrip('/')}/login"
        made = await client.create_logout_url(back, client_id=self._config.oidc_client_id)
        return str(made["url"])


def begin(site: Site, provider: Provider) -> Callable[[Request], Any]:
    """Sends who asks to the provider."""

    async def endpoint(request: Request) -> Response:
        try:
            client = await provider.client()
            made: Response = await client.authorize_redirect(request, f"{site.config.public_url.rstrip('/')}{CALLBACK}")
        except (httpx2.HTTPError, ValueError) as error:
            _log.error("the login provider %s: %s", site.config.oidc_issuer, error)
            return site.render(request, "login.html", None, 503, failed=_NO_ANSWER)
        return made

    return endpoint


def finish(site: Site, provider: Provider) -> Callable[[Request], Any]:
    """Takes who comes back from the provider."""

    async def endpoint(request: Request) -> Response:
        address = request.client.host if request.client else ""
        if site.attempts.blocked(f"oidc {address}"):
            return site.render(request, "login.html", None, 429, failed="Too many attempts. Wait five minutes.")
        try:
            claims = await provider.claims(request)
        except httpx2.HTTPError as error:
            _log.error("the login provider %s: %s", site.config.oidc_issuer, error)
            return site.render(request, "login.html", None, 503, failed=_NO_ANSWER)
        except (AuthlibBaseError, JoseError, ValueError) as error:
            provider.forget()
            _log.warning("a login by %s failed: %s", site.config.oidc_issuer, error)
            return await run_in_threadpool(_refuse, site, request, Refused(_NOT_VALID, "oidc", str(error)))
        return await run_in_threadpool(_log_in, site, request, claims)

    return endpoint


def _log_in(site: Site, request: Request, claims: dict[str, Any]) -> Response:
    address = request.client.host if request.client else ""
    try:
        with site.database.write() as connection:
            try:
                name = oidc.enter(connection, site.config, claims, now_ms())
            except Refused as refused:
                return _refuse(site, request, refused, connection)
            sid = claims.get("sid")
            known = sid if isinstance(sid, str) and 0 < len(sid) <= LONGEST_SUBJECT else None
            token = users.log_in(connection, name, now_ms(), site.config.oidc_issuer, known)
            audit.append(connection, name, "logged-in", name, f"{address} by {site.config.oidc_issuer}")
    except IntegrityError:  # two first logins of one person at once
        return RedirectResponse("/login", 303)
    site.attempts.succeeded(f"oidc {address}")
    # a redirect would still be the provider's doing, and a browser sends no SameSite=Strict cookie with it
    response = site.render(request, "onward.html", None, url="/", text="You are logged in.")
    return site.give_session(response, token)


def _refuse(site: Site, request: Request, refused: Refused, connection: Any = None) -> Response:
    address = request.client.host if request.client else ""
    site.attempts.failed(f"oidc {address}")
    row = ("hub", "login-failed", refused.who, f"{address} by {site.config.oidc_issuer}: {refused.detail}")
    if connection is None:
        with site.database.write() as own:
            audit.append(own, *row)
    else:
        audit.append(connection, *row)
    return site.render(request, "login.html", None, 403, failed=str(refused))


def log_out_there(site: Site, request: Request, provider: Provider) -> Response:
    """The page that leads from this hub's logout to the provider's; called on a worker thread."""
    url = anyio.from_thread.run(provider.logout_url) or "/login"
    # by a page of our own: the pages' policy lets forms lead nowhere else
    return site.render(request, "onward.html", None, url=url, text="You are logged out here.")


def _tls(config: HubConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.oidc_ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            operation="preparing the login provider",
            target=config.oidc_ca,
            cause=str(error),
            remedy="Name the PEM file of its authority in hub.oidc_ca.",
        ) from None


def cookie_key(hub_key: bytes) -> str:
    """Signs the cookie that ties a login to the browser that began it, by the hub's key: any worker takes it."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, None, b"aidpost hub logins by OpenID Connect").derive(hub_key).hex()
