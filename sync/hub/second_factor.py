"""A second factor: one-time codes by time (RFC 6238) from an app on the user's telephone. Each code counts once."""

from __future__ import annotations

import os
import time

import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, delete, insert, select, update

from aidpost.sync.hub import schema

_STEP_S = 30


class SecondFactors:
    """The users' secrets, sealed under a key made from the hub's own, so that a copied database alone tells no code."""

    def __init__(self, hub_key: bytes) -> None:
        self._cipher = AESGCM(HKDF(SHA256(), 32, None, b"aidpost hub second factors").derive(hub_key))

    def offer(self, connection: Connection, user: str) -> str:
        """A new secret for a user who has none that is confirmed, in base32."""
        secret = pyotp.random_base32()
        nonce = os.urandom(12)
        sealed = nonce + self._cipher.encrypt(nonce, secret.encode(), user.encode())
        table = schema.second_factors
        connection.execute(delete(table).where(table.c.user == user, table.c.confirmed_ms.is_(None)))
        connection.execute(insert(table).values(user=user, secret=sealed, confirmed_ms=None, last_step=0))
        return secret

    def check(self, connection: Connection, user: str, code: str) -> bool:
        """Whether the code is the user's now, or of the step before or after, and was not used yet; it is then."""
        table = schema.second_factors
        row = connection.execute(select(table).where(table.c.user == user)).one_or_none()
        if row is None:
            return False
        sealed = bytes(row.secret)
        try:
            secret = self._cipher.decrypt(sealed[:12], sealed[12:], user.encode()).decode()
        except InvalidTag:
            return False  # another hub's key: the administrator resets it
        now = int(time.time()) // _STEP_S
        for step in (now, now - 1, now + 1):
            if step > row.last_step and pyotp.TOTP(secret).verify(code.replace(" ", ""), for_time=step * _STEP_S):
                used = connection.execute(
                    update(table).where(table.c.user == user, table.c.last_step < step).values(last_step=step)
                )
                return bool(used.rowcount)
        return False


def has_one(connection: Connection, user: str) -> bool:
    """Whether the user must give a code."""
    table = schema.second_factors
    query = select(table.c.user).where(table.c.user == user, table.c.confirmed_ms.is_not(None))
    return connection.execute(query).one_or_none() is not None


def confirm(connection: Connection, user: str, now_ms: int) -> None:
    """The user has given a first code: from now on one is asked for."""
    table = schema.second_factors
    connection.execute(update(table).where(table.c.user == user).values(confirmed_ms=now_ms))


def reset(connection: Connection, user: str) -> bool:
    """Forgets a lost telephone. False: there was none."""
    table = schema.second_factors
    return bool(connection.execute(delete(table).where(table.c.user == user)).rowcount)


def uri(secret: str, user: str, hub: str) -> str:
    """What an app reads."""
    return pyotp.TOTP(secret).provisioning_uri(name=user, issuer_name=f"Aidpost {hub}")
