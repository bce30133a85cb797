"""The page of clinical limits: what a change would make different, whether the golden cases hold, and who signed it.

A signature here is the one of `aidpost hub rules sign`: a password, asked for again whoever is logged in, and the code
of the second factor where the account has one. What is signed is what was looked at: where something else has come to
serve meanwhile, or a golden case breaks, nothing is signed.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from aidpost.errors import ConfigurationError, UsageError
from aidpost.sync.hub import audit, rules, schema, second_factor, users
from aidpost.sync.hub._site import Form, Site
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.rules import Proposed
from aidpost.sync.hub.users import Session
from aidpost.sync.rules import ROLES, Judged, Limits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST = 50
"""Changes that are shown of those that are settled."""
_STALE = "Something else has come to serve since. Look at the difference again."
_BROKEN = "These limits break a golden case. They cannot be signed."
_WRONG = "Password or code is wrong."
_NOT_YOURS = "You cannot sign this now: it is signed in your role, or no longer open."
_UNJUDGED = "The golden cases cannot be run on this hub. Sign with: aidpost hub rules sign"


class Row(NamedTuple):
    """One limit: as published, as it serves, as it would; None where it is as published."""

    file: str
    name: str
    unit: str
    published: float
    serving: float | None
    proposed: float | None

    @property
    def changed(self) -> bool:
        """Whether the change makes a difference here."""
        return (self.published if self.serving is None else self.serving) != (
            self.published if self.proposed is None else self.proposed
        )


class Case(NamedTuple):
    """A change that waits for signatures, as its page shows it."""

    change: Proposed
    serving: Proposed | None
    judged: Judged | None
    rows: tuple[Row, ...]
    may_sign: bool


def limits(site: Site, request: Request, session: Session) -> Response:
    """What waits for signatures, and what was settled."""
    return _page(site, request, session)


def propose(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Puts all limits that a clinic sets before those who sign, if the golden cases hold with them."""
    clinic, text, why = form.get("clinic", ""), form.get("limits", ""), form.get("why", "")
    failed = ""
    with site.database.read() as connection:
        if clinic not in _clinics(connection, session):
            raise HTTPException(404, "There is no such device or clinic.")
    try:
        wanted = msgspec.convert(tomllib.loads(text).get("limits", {}), Limits)
        if (judged := _judge(site, wanted)) is None:
            failed = _UNJUDGED
        elif judged.broken:
            failed = f"{_BROKEN} {'; '.join(judged.broken)}"
        else:
            with site.database.write() as connection:
                rules.propose(connection, clinic, wanted, why, session.user, now_ms())
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ConfigurationError, UsageError) as error:
        failed = getattr(error, "cause", "") or str(error)
    if failed:
        return _page(site, request, session, failed=failed, draft=form)
    return RedirectResponse("/limits", 303)


def sign(site: Site, request: Request, session: Session, form: Form) -> Response:
    """Signs a change as the user who is logged in; the second signature sends it."""
    number: uuid.UUID = request.path_params["change"]
    address = request.client.host if request.client else ""
    keys = (f"signature of {session.user}", f"signatures from {address}")
    if site.attempts.blocked(*keys):
        raise HTTPException(429, "Too many attempts. Wait five minutes.")
    with site.database.read() as connection:
        case = _case(site, connection, session, _get(connection, session, number))
    if case.change.state != "proposed" or not case.may_sign:
        raise HTTPException(409, _NOT_YOURS)
    if case.judged is None:
        raise HTTPException(409, _UNJUDGED)
    if form.get("serving", "") != (str(case.serving.id) if case.serving else ""):
        raise HTTPException(409, _STALE)
    if case.judged.broken:
        raise HTTPException(409, _BROKEN)
    if not _is_them(site, session, form):
        site.attempts.failed(*keys)
        with site.database.write() as connection:
            audit.append(connection, session.user, "limits-signature-refused", str(number), address)
        raise HTTPException(403, _WRONG)
    site.attempts.succeeded(*keys)
    try:
        with site.database.write() as connection:
            rules.add_signature(connection, site.database.epoch, number, session.user, now_ms())
    except UsageError:
        raise HTTPException(409, _NOT_YOURS) from None
    site.wake()
    return RedirectResponse("/limits", 303)


def withdraw(site: Site, request: Request, session: Session, _form: Form) -> Response:
    """Takes back what is not signed by both yet."""
    number: uuid.UUID = request.path_params["change"]
    with site.database.write() as connection:
        _get(connection, session, number)
        try:
            rules.withdraw(connection, number, session.user)
        except UsageError:
            raise HTTPException(409, "It is no longer open.") from None
    return RedirectResponse("/limits", 303)


def waiting(connection: Connection, session: Session) -> int:
    """How many changes this user could sign now."""
    table = schema.rule_changes
    query = select(table.c.id).where(table.c.state == "proposed", session.sees(table.c.name))
    found = (rules.get(connection, number) for number in connection.execute(query).scalars().all())
    return sum(_may_sign(session, one) for one in found)


def _page(site: Site, request: Request, session: Session, *, failed: str = "", draft: Form | None = None) -> Response:
    with site.database.read() as connection:
        found = [one for one in rules.listed(connection) if not session.clinics or one.clinic in session.clinics]
        cases = [_case(site, connection, session, one) for one in found if one.state == "proposed"]
        clinics = _clinics(connection, session)
        serving = {clinic: rules.serving(connection, clinic) for clinic in clinics}
        coded = second_factor.has_one(connection, session.user)
    draft = draft or {}
    chosen = draft.get("clinic") or request.query_params.get("clinic", "")
    now = serving.get(chosen) or next((one for one in serving.values() if one), None)
    return site.render(
        request,
        "limits.html",
        session,
        400 if failed else 200,
        cases=cases,
        settled=[one for one in found if one.state != "proposed"][:_MOST],
        serving={one.id for one in serving.values() if one},
        clinics=clinics,
        chosen=chosen,
        draft=draft.get("limits") or _toml(now.limits if now else {}),
        why=draft.get("why", ""),
        failed=failed,
        coded=coded,
        by_password=not session.issuer,
        judges=site.judge_limits is not None,
    )


def _case(site: Site, connection: Connection, session: Session, change: Proposed) -> Case:
    serving = rules.serving(connection, change.clinic)
    try:
        judged = _judge(site, change.limits)
    except ConfigurationError as error:  # proposed for another version than this
        judged = Judged({}, 0, (error.cause,))
    rows = _rows(judged, serving.limits if serving else {}, change.limits) if judged else ()
    return Case(change, serving, judged, rows, _may_sign(session, change))


def _rows(judged: Judged, serving: Limits, proposed: Limits) -> tuple[Row, ...]:
    found = []
    for file in sorted({*serving, *proposed}):
        for name in sorted({*serving.get(file, {}), *proposed.get(file, {})}):
            if (published := judged.published.get(file, {}).get(name)) is not None:
                now, then = serving.get(file, {}).get(name), proposed.get(file, {}).get(name)
                found.append(Row(file, name, published.unit, published.value, now, then))
    return tuple(sorted(found, key=lambda row: not row.changed))


def _judge(site: Site, wanted: Limits) -> Judged | None:
    return site.judge_limits(wanted) if site.judge_limits else None


def _may_sign(session: Session, change: Proposed) -> bool:
    role = session.role.value
    before = any(one.role == role or one.user == session.user for one in change.signatures)
    return role in ROLES and not before and change.state == "proposed"


def _is_them(site: Site, session: Session, form: Form) -> bool:
    """Whether the password is that of who is logged in, and the code, where the account has a second factor."""
    with site.database.read() as connection:
        good = users.check_password(connection, session.user, form.get("password", ""))
        coded = second_factor.has_one(connection, session.user)
    if good and coded:
        with site.database.write() as connection:
            good = site.factors.check(connection, session.user, form.get("code", ""))
    return good


def _get(connection: Connection, session: Session, number: uuid.UUID) -> Proposed:
    try:
        found = rules.get(connection, number)
    except UsageError:
        raise HTTPException(404, "There is no such change.") from None
    if session.clinics and found.clinic not in session.clinics:
        raise HTTPException(404, "There is no such change.")
    return found


def _clinics(connection: Connection, session: Session) -> list[str]:
    table = schema.devices
    query = select(table.c.clinic).where(
        table.c.revoked_ms.is_(None), table.c.clinic != "", session.sees(table.c.clinic)
    )
    return sorted(set(connection.execute(query).scalars()))


def _toml(found: Limits) -> str:
    tables: list[Any] = []
    for file in sorted(found):
        tables += [f"[limits.{file}]", *(f"{name} = {value:g}" for name, value in sorted(found[file].items())), ""]
    return "\n".join(tables)
