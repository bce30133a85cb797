"""Who, where and when: moments, devices, clinics, workers, patients, what they agreed to, and their visits."""

from __future__ import annotations

import re
import uuid

from aidpost._record import Record, require
from aidpost._terms import (
    ConsentPurpose,
    Sex,
)


class Timestamp(Record, frozen=True, kw_only=True):
    """A moment, told by a clock that may be wrong.

    `wall_ms` is milliseconds of Unix time (UTC) as the device believed it, `monotonic_ms` milliseconds since its
    boot, `boot` its ordered boot counter and `synced` whether a trusted source had set the clock by then.
    `utc_offset_min` is the zone shown to people, where known. The hub corrects by clock anchors and keeps both.
    """

    wall_ms: int
    monotonic_ms: int
    boot: int
    synced: bool
    utc_offset_min: int | None = None

    def _check(self) -> None:
        require(self.monotonic_ms >= 0 and self.boot >= 0, self, "monotonic_ms and boot cannot be negative")
        require(abs(self.utc_offset_min or 0) <= 16 * 60, self, "utc_offset_min is beyond 16 hours")


class Device(Record, frozen=True, kw_only=True):
    """A sensor, camera or the handheld itself: what made a value."""

    name: str
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    address: str = ""


class Clinic(Record, frozen=True, kw_only=True):
    """Where the device is in use."""

    id: str
    name: str = ""
    telephone: str = ""


class Operator(Record, frozen=True, kw_only=True):
    """The health worker. `id` is the site's own short code."""

    id: str
    name: str = ""


class Identifier(Record, frozen=True, kw_only=True):
    """A number that somebody gave a patient, with the system that gave it (a URI or the clinic's own name for it)."""

    system: str
    value: str


PARTIAL_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
"""YYYY, YYYY-MM or YYYY-MM-DD."""


class Patient(Record, frozen=True, kw_only=True):
    """A person. The UUID is made on the device; local numbers are identifiers. A correction is a new record that
    names the one it `supersedes`. `birth_date` is as exact as is known: YYYY, YYYY-MM or YYYY-MM-DD."""

    id: uuid.UUID
    name: str = ""
    birth_date: str | None = None
    sex: Sex = Sex.UNKNOWN
    identifiers: tuple[Identifier, ...] = ()
    telephone: str = ""
    language: str = ""
    supersedes: uuid.UUID | None = None

    def _check(self) -> None:
        valid = self.birth_date is None or PARTIAL_DATE.fullmatch(self.birth_date) is not None
        require(valid, self, f"birth_date {self.birth_date!r} is not YYYY, YYYY-MM or YYYY-MM-DD")


class Consent(Record, frozen=True, kw_only=True):
    """What the patient, or a guardian for them, agreed to or withdrew; the text's version and language are kept."""

    id: uuid.UUID
    patient: uuid.UUID
    purpose: ConsentPurpose
    version: str
    language: str
    given: bool
    at: Timestamp
    given_by: str = "patient"
    operator: str = ""


class Exam(Record, frozen=True, kw_only=True):
    """One visit of one patient at one device."""

    id: uuid.UUID
    patient: uuid.UUID
    device: Device
    clinic: Clinic
    operator: Operator
    started: Timestamp
    ended: Timestamp | None = None
