"""People who log in by an OpenID Connect provider: which account is theirs, and what they may do in it.

An account belongs to the pair of issuer and subject, which never changes and is never given to somebody else, and not
to a name or an address, which may be (OpenID Connect Core 1.0, 5.7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from aidpost.sync.hub import schema, users
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.users import Role

_RANK = (Role.VIEWER, Role.CLINICIAN, Role.ADMINISTRATOR)


class Refused(Exception):
    """Why somebody whom the provider knows does not get in here. `str` is for them, `detail` for the audit log."""

    def __init__(self, message: str, who: str, detail: str) -> None:
        super().__init__(message)
        self.who, self.detail = who, detail


class Grant(NamedTuple):
    """What somebody is entitled to; empty limits: everything."""

    role: Role
    parts: tuple[str, ...]
    clinics: tuple[str, ...]


def grant(config: HubConfig, claims: Mapping[str, Any]) -> Grant | None:
    """What the claims entitle to; None: nothing.

    The highest role of all counts, with the limits of the values that give it: a value that shows a viewer all clinics
    does not let them sign there, because another makes them a clinician of one.
    """
    values = _values(claims, config.oidc_grant_claim)
    granted = [one for value, one in config.oidc_grants.items() if value in values]
    if not granted:
        return None
    role = max((Role(one.role) for one in granted), key=_RANK.index)
    best = [one for one in granted if one.role == role.value]
    parts = () if any(not one.reads for one in best) else tuple(sorted({part for one in best for part in one.reads}))
    unlimited = any(not one.clinics for one in best)
    clinics = () if unlimited else tuple(sorted({clinic for one in best for clinic in one.clinics}))
    return Grant(role, parts, clinics)


def enter(connection: Connection, config: HubConfig, claims: Mapping[str, Any], now_ms: int) -> str:
    """The name of the account of somebody whose ID token was checked, made or brought up to date as configured.

    Raises
    ------
    Refused
        They have no account and get none, or no grant, or were disabled, or brought no second factor.
    """
    subject = claims["sub"]
    table = schema.users
    mine = (table.c.issuer == config.oidc_issuer) & (table.c.subject == subject)
    row = connection.execute(select(table).where(mine)).one_or_none()
    who = row.name if row else subject
    if config.second_factor and not _second_factor(config, claims):
        raise Refused("The login provider did not ask you for a second factor.", who, "no second factor")
    if row is not None and row.disabled_ms is not None:
        raise Refused("Your account here is disabled.", who, "disabled")
    if not config.oidc_grants:
        if row is None:
            raise Refused("You have no account here. Ask an administrator for one.", who, "no account")
        return str(row.name)
    granted = grant(config, claims)
    if granted is None:
        if row is not None:
            users.end_sessions(connection, row.name)
        raise Refused("Your account at the login provider gives you no access here.", who, "no grant")
    if row is None and not config.oidc_create:
        raise Refused("You have no account here. Ask an administrator for one.", who, "no account")
    name = row.name if row else _new_name(connection, config, claims)
    values = {"role": granted.role.value, "issuer": config.oidc_issuer, "subject": subject}
    if full_name := _text(claims.get("name"), 200):
        values["full_name"] = full_name
    users.put(connection, name, now_ms, values, granted.parts, granted.clinics)
    return str(name)


def _new_name(connection: Connection, config: HubConfig, claims: Mapping[str, Any]) -> str:
    name = _text(claims.get(config.oidc_name_claim), 200).lower()
    if not users.is_name(name):
        raise Refused("The login provider names no user that this hub can take.", claims["sub"], "no usable name")
    if users.role_of(connection, name) is not None:
        # never given over: who has that name here is somebody else until an administrator says otherwise
        raise Refused("Another account here has your name. Ask an administrator.", claims["sub"], f"{name} is taken")
    return name


def _second_factor(config: HubConfig, claims: Mapping[str, Any]) -> bool:
    said = _values(claims, "amr") | _values(claims, "acr")
    return not said.isdisjoint(config.oidc_second_factor)


def _values(claims: Mapping[str, Any], name: str) -> set[str]:
    found: Any = claims.get(name)
    if name not in claims:  # a dot may also be part of a claim's name
        found = claims
        for step in name.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
    listed = found if isinstance(found, list) else [found]
    return {value for value in listed if isinstance(value, str)}


def _text(value: Any, longest: int) -> str:
    return value.replace("\0", "").strip()[:longest] if isinstance(value, str) else ""
