"""Who may log in at a hub: one call each, for the command line."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sqlalchemy import select

from aidpost.errors import UsageError
from aidpost.sync.hub import audit, schema, second_factor, users
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.operations import opened


def add_user(
    config: HubConfig,
    name: str,
    password: str,
    role: str = "clinician",
    full_name: str = "",
    *,
    parts: Sequence[str] = (),
    clinics: Sequence[str] = (),
) -> None:
    """Adds a user, or gives one a new password, role and limits: the parts they read, the clinics they see.

    Raises
    ------
    UsageError
        The role is not one of viewer, clinician, administrator; the name or password cannot be used.
    """
    wanted = _role(name, role)
    with opened(config) as database, database.write() as connection:
        users.add(connection, name, password, wanted, full_name, now_ms(), parts=parts, clinics=clinics)
        audit.append(connection, "command-line", "user-added", name, " ".join((role, *parts, *clinics)))


def add_oidc_user(
    config: HubConfig,
    name: str,
    subject: str,
    role: str = "clinician",
    full_name: str = "",
    *,
    parts: Sequence[str] = (),
    clinics: Sequence[str] = (),
) -> None:
    """Adds a user who logs in by the login provider, where they are `subject`; or lets an existing one do so, who keeps
    their password.

    Raises
    ------
    UsageError
        As `add_user`; or no provider is configured, or another user is that subject.
    """
    wanted, table = _role(name, role), schema.users
    if not config.oidc_issuer:
        raise _unusable(name, "no login provider is configured", "Set hub.oidc_issuer.")
    values = {"full_name": full_name, "role": wanted.value, "disabled_ms": None}
    values |= {"issuer": config.oidc_issuer, "subject": subject}
    with opened(config) as database, database.write() as connection:
        same = (table.c.issuer == config.oidc_issuer) & (table.c.subject == subject) & (table.c.name != name)
        if other := connection.execute(select(table.c.name).where(same)).scalar_one_or_none():
            raise _unusable(name, f"{other} is that subject already", "Check the subject at the provider.")
        users.put(connection, name, now_ms(), values, parts, clinics)
        users.end_sessions(connection, name)
        detail = " ".join((role, *parts, *clinics, f"{config.oidc_issuer} {subject}"))
        audit.append(connection, "command-line", "user-added", name, detail)


def disable_user(config: HubConfig, name: str) -> None:
    """Lets a user in no longer, and ends their logins. What they signed stays.

    Raises
    ------
    UsageError
        No such user.
    """
    with opened(config) as database, database.write() as connection:
        if not users.disable(connection, name, now_ms()):
            raise UsageError(
                operation="disabling a user", target=name, cause="there is no such user", remedy="Check the name."
            )
        audit.append(connection, "command-line", "user-disabled", name)


def _role(name: str, role: str) -> users.Role:
    try:
        return users.Role(role)
    except ValueError:
        roles = ", ".join(known.value for known in users.Role)
        raise _unusable(name, f"{role!r} is no role", f"Take one of {roles}.") from None


def reset_second_factor(config: HubConfig, name: str) -> None:
    """Forgets a user's second factor: their telephone was lost.

    Raises
    ------
    UsageError
        They had none.
    """
    with opened(config) as database, database.write() as connection:
        if not second_factor.reset(connection, name):
            raise UsageError(
                operation="resetting a second factor", target=name, cause="this user has none", remedy="Check the name."
            )
        audit.append(connection, "command-line", "second-factor-reset", name)


def first_user(config: HubConfig) -> tuple[str, str] | None:
    """Name and new password of an administrator, where the hub has no user yet; else None."""
    with opened(config) as database, database.read() as connection:
        if connection.execute(select(schema.users.c.name).limit(1)).first() is not None:
            return None
    name, password = "admin", secrets.token_urlsafe(12)
    add_user(config, name, password, users.Role.ADMINISTRATOR.value)
    return name, password


def _unusable(name: str, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="adding a user", target=name, cause=cause, remedy=remedy)
