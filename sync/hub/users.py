"""Who may log in, and how long a login lasts. Passwords are kept as Argon2id hashes, session tokens as SHA-256."""

from __future__ import annotations

import enum
import functools
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import argon2
from sqlalchemy import ColumnElement, Connection, delete, insert, select, true, update

from aidpost.errors import UsageError
from aidpost.sync.hub import schema
from aidpost.sync.hub.readings import PARTS

# OWASP's password storage sheet, November 2026: 19 MiB, two passes, one lane is its first setting for Argon2id
_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 3, "maxmem": 64 << 20, "dklen": 32}
"""How passwords were kept before."""
MIN_PASSWORD = 12
_MAX_PASSWORD = 200
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


class Role(enum.Enum):
    """What a user may do: a viewer reads, a clinician signs reviews, an administrator also sees the audit log."""

    VIEWER = "viewer"
    CLINICIAN = "clinician"
    ADMINISTRATOR = "administrator"


class Session(NamedTuple):
    """A login. `csrf` stands in every form of it. `parts` are those that the user reads; `clinics` those whose patients
    they see, all where it is empty."""

    user: str
    full_name: str
    role: Role
    csrf: str
    used_ms: int
    parts: tuple[str, ...] = PARTS
    clinics: tuple[str, ...] = ()
    issuer: str = ""
    """The login provider by which they came; empty: by password."""

    @property
    def may_review(self) -> bool:
        """Whether this user signs reviews."""
        return self.role is not Role.VIEWER

    def sees(self, clinic: ColumnElement[str]) -> ColumnElement[bool]:
        """The condition that rows of the clinic in that column are this user's to see."""
        return clinic.in_(self.clinics) if self.clinics else true()


def add(
    connection: Connection,
    name: str,
    password: str,
    role: Role,
    full_name: str,
    now_ms: int,
    *,
    parts: Sequence[str] = (),
    clinics: Sequence[str] = (),
) -> None:
    """Adds a user, or gives an existing one a new password, role, name and limits; logins that are open end.

    Parameters
    ----------
    parts
        What the user is trained to read, of `readings.PARTS`; empty: everything.
    clinics
        Whose patients they see; empty: all.

    Raises
    ------
    UsageError
        The name has other characters than a-z 0-9 . _ @ -, or the password is short, or there is no such part.
    """
    if not MIN_PASSWORD <= len(password) <= _MAX_PASSWORD:
        raise _unusable(
            name, f"the password has {len(password)} characters", f"Take {MIN_PASSWORD} to {_MAX_PASSWORD}."
        )
    values = {"full_name": full_name, "role": role.value, "password": hash_password(password), "disabled_ms": None}
    put(connection, name, now_ms, values, parts, clinics)
    end_sessions(connection, name)


def put(
    connection: Connection,
    name: str,
    now_ms: int,
    values: Mapping[str, object],
    parts: Sequence[str],
    clinics: Sequence[str],
) -> None:
    """Adds a user or changes the row of one, and sets their limits; raises UsageError as `add` does."""
    if unknown := set(parts) - set(PARTS):
        raise _unusable(name[:64], f"{', '.join(sorted(unknown))} is no part", f"Take of {', '.join(PARTS)}.")
    if not is_name(name):
        raise _unusable(name[:64], "a name has 1 to 64 of a-z 0-9 . _ @ -", "Choose another name.")
    changed = connection.execute(update(schema.users).where(schema.users.c.name == name).values(**values))
    if changed.rowcount == 0:
        connection.execute(
            insert(schema.users).values(**{"name": name, "created_ms": now_ms, "password": "", **values})
        )
    scopes = schema.user_scopes
    connection.execute(delete(scopes).where(scopes.c.user == name))
    rows = [("part", part) for part in dict.fromkeys(parts)] + [("clinic", clinic) for clinic in dict.fromkeys(clinics)]
    if rows:
        connection.execute(insert(scopes), [{"user": name, "kind": kind, "value": value} for kind, value in rows])


def is_name(name: str) -> bool:
    """Whether a user may be called so."""
    return _NAME.fullmatch(name) is not None


def disable(connection: Connection, name: str, now_ms: int) -> bool:
    """Lets a user in no longer, and ends their logins; what they signed stays. False: there is no such user."""
    changed = connection.execute(update(schema.users).where(schema.users.c.name == name).values(disabled_ms=now_ms))
    end_sessions(connection, name)
    return bool(changed.rowcount)


def end_sessions(connection: Connection, name: str) -> None:
    """Ends all logins of a user."""
    connection.execute(delete(schema.sessions).where(schema.sessions.c.user == name))


def hash_password(password: str) -> str:
    """Argon2id in its PHC string."""
    return _hasher.hash(password)


@functools.cache
def _nobodys_password() -> str:
    return hash_password(secrets.token_urlsafe(16))


def check_password(connection: Connection, name: str, password: str) -> bool:
    """Whether the password is this user's. Takes as long for a user who does not exist."""
    row = connection.execute(
        select(schema.users.c.password).where(schema.users.c.name == name, schema.users.c.disabled_ms.is_(None))
    ).one_or_none()
    # who comes by a login provider may have no password
    stored = row.password if row and row.password else _nobodys_password()
    return _matches(stored, password[:_MAX_PASSWORD]) and row is not None and bool(row.password)


def _matches(stored: str, password: str) -> bool:
    if stored.startswith("scrypt$"):
        _, salt, expected = stored.split("$")
        made = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), **_SCRYPT)
        return hmac.compare_digest(made, bytes.fromhex(expected))
    try:
        return _hasher.verify(stored, password)
    except argon2.exceptions.VerificationError:
        return False


def renew_hash(connection: Connection, name: str, password: str) -> None:
    """Keeps a password that has just been checked as passwords are kept now."""
    table = schema.users
    stored = connection.execute(select(table.c.password).where(table.c.name == name)).scalar_one()
    if stored.startswith("scrypt$") or _hasher.check_needs_rehash(stored):
        connection.execute(update(table).where(table.c.name == name).values(password=hash_password(password)))


def role_of(connection: Connection, name: str) -> Role | None:
    """The role of a user; None: there is no such user."""
    role = connection.execute(select(schema.users.c.role).where(schema.users.c.name == name)).scalar_one_or_none()
    return None if role is None else Role(role)


def log_in(connection: Connection, name: str, now_ms: int, issuer: str | None = None, sid: str | None = None) -> str:
    """A new session's token, for the cookie. `issuer`: the login provider that said who this is; `sid`: its name."""
    token = secrets.token_urlsafe(32)
    connection.execute(
        insert(schema.sessions).values(
            token_hash=_token_hash(token),
            user=name,
            csrf=secrets.token_urlsafe(32),
            created_ms=now_ms,
            used_ms=now_ms,
            issuer=issuer,
            sid=sid,
        )
    )
    return token


def end_by_provider(connection: Connection, issuer: str, subject: str | None, sid: str | None) -> list[str]:
    """Ends the sessions that a login provider says are over: that of `sid`, or all of `subject`, or what both name.
    Who came by password stays. Returns whose they were."""
    table, people = schema.sessions, schema.users
    query = select(table.c.token_hash, table.c.user).join(people, people.c.name == table.c.user)
    query = query.where(table.c.issuer == issuer)
    if subject is not None:
        query = query.where(people.c.issuer == issuer, people.c.subject == subject)
    if sid is not None:
        query = query.where(table.c.sid == sid)
    rows = connection.execute(query).all()
    connection.execute(delete(table).where(table.c.token_hash.in_([row.token_hash for row in rows])))
    return sorted({row.user for row in rows})


def session_of(connection: Connection, token: str, now_ms: int, idle_ms: int, longest_ms: int) -> Session | None:
    """The session of a token, if it is known, not too old and its user may still log in."""
    sessions, people = schema.sessions, schema.users
    row = connection.execute(
        select(sessions, people.c.full_name, people.c.role)
        .join(people, people.c.name == sessions.c.user)
        .where(sessions.c.token_hash == _token_hash(token), people.c.disabled_ms.is_(None))
    ).one_or_none()
    if row is None or now_ms - row.created_ms > longest_ms or now_ms - row.used_ms > idle_ms:
        return None
    scopes: dict[str, list[str]] = {"part": [], "clinic": []}
    table = schema.user_scopes
    for scope in connection.execute(select(table).where(table.c.user == row.user).order_by(table.c.value)):
        scopes[scope.kind].append(scope.value)
    parts, clinics = tuple(scopes["part"]) or PARTS, tuple(scopes["clinic"])
    about = (row.full_name or row.user, Role(row.role), row.csrf, row.used_ms, parts, clinics, row.issuer or "")
    return Session(row.user, *about)


def touch(connection: Connection, token: str, now_ms: int) -> None:
    """Notes that a session is in use, and forgets those of long ago."""
    table = schema.sessions
    connection.execute(update(table).where(table.c.token_hash == _token_hash(token)).values(used_ms=now_ms))
    connection.execute(delete(table).where(table.c.created_ms < now_ms - 7 * 86_400_000))


def log_out(connection: Connection, token: str) -> None:
    """Ends a session."""
    connection.execute(delete(schema.sessions).where(schema.sessions.c.token_hash == _token_hash(token)))


def _token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _unusable(name: str, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="adding a user", target=name, cause=cause, remedy=remedy)
