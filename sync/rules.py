"""A change of clinical limits as it goes down: which, why, and who signed it. Both ends hold it to two people of two
roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from aidpost.errors import InvalidRecordError

SUBJECT = "rules"
ROLES = ("clinician", "administrator")
"""One signature of each, by different people."""

Limits = dict[str, dict[str, float]]
"""Rule file -> limit -> value: all that differs from what is published."""


class Published(NamedTuple):
    """A limit as the rule files have it."""

    value: float
    unit: str


class Judged(NamedTuple):
    """What limits come to: all published ones by rule file and name, how many golden cases there are, and which of them
    these limits break, in words."""

    published: Mapping[str, Mapping[str, Published]]
    cases: int
    broken: tuple[str, ...]


Judge = Callable[[Limits], Judged]
"""Holds limits to the golden cases; raises ConfigurationError where one of them is not there. The rules are not the
hub's, so whoever starts it gives this."""


class RuleSignature(msgspec.Struct, frozen=True):
    """Who signed, in which role, when by the hub's clock."""

    user: str
    name: str
    role: str
    at_ms: int


class RuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """The whole set of limits that a clinic sets; an earlier change is replaced by it."""

    limits: Limits
    why: str
    signatures: tuple[RuleSignature, ...] = ()


def lacking(signatures: tuple[RuleSignature, ...]) -> str:
    """Why these signatures are not enough; empty where they are."""
    for role in ROLES:
        if not any(one.role == role for one in signatures):
            return f"the signature of a {role} is missing"
    by = {role: {one.user for one in signatures if one.role == role} for role in ROLES}
    if len(by[ROLES[0]] | by[ROLES[1]]) < 2:
        return "one person signed in both roles"
    return ""


def unpack(body: bytes) -> RuleChange:
    """The change in a delivery.

    Raises
    ------
    InvalidRecordError
        It is none, or not signed by two people of two roles.
    """
    try:
        change = msgspec.json.decode(body, type=RuleChange)
    except msgspec.DecodeError as error:
        raise _invalid(str(error)) from None
    if cause := lacking(change.signatures):
        raise _invalid(cause)
    return change


def _invalid(cause: str) -> InvalidRecordError:
    return InvalidRecordError(operation="reading a change of clinical limits", target="rules", cause=cause)
