"""The hub's tables, as SQLAlchemy Core, a module for each subject.

`streams` and `envelopes` are what devices sent, kept for ever as it came. `exams`, `reports` and `vitals` are views of
them for listing, made in the same transaction; they can be made again from the envelopes. Times are milliseconds of
Unix time by the hub's clock unless the name says `device`.
"""

from __future__ import annotations

from aidpost.sync.hub.schema.base import metadata
from aidpost.sync.hub.schema.fleet import (
    certificates,
    deliveries,
    delivery_bodies,
    device_settings,
    device_updates,
    enrolment_tokens,
    index_due,
    index_entries,
    outgoing,
    rule_changes,
    rule_signatures,
    update_halts,
    workers,
)
from aidpost.sync.hub.schema.people import (
    audit,
    logout_tokens,
    patient_links,
    patient_words,
    second_factors,
    sessions,
    user_scopes,
    users,
    withdrawals,
    withdrawn_consents,
)
from aidpost.sync.hub.schema.quality import quality_counts, quality_due, quality_facts
from aidpost.sync.hub.schema.reading import (
    alert_steps,
    alerts,
    calls,
    dicom_objects,
    exports,
    leases,
    readings,
    referrals,
    reviews,
)
from aidpost.sync.hub.schema.records import (
    anchors,
    blobs,
    conflicts,
    devices,
    envelopes,
    exams,
    hub,
    manifests,
    partials,
    rejects,
    reports,
    streams,
    tombstones,
    vitals,
)
from aidpost.sync.hub.schema.rounds import round_devices, round_records, rounds

__all__ = [
    "REVISION",
    "SCHEMA_VERSION",
    "alert_steps",
    "alerts",
    "anchors",
    "audit",
    "blobs",
    "calls",
    "certificates",
    "conflicts",
    "deliveries",
    "delivery_bodies",
    "device_settings",
    "device_updates",
    "devices",
    "dicom_objects",
    "enrolment_tokens",
    "envelopes",
    "exams",
    "exports",
    "hub",
    "index_due",
    "index_entries",
    "leases",
    "logout_tokens",
    "manifests",
    "metadata",
    "outgoing",
    "partials",
    "patient_links",
    "patient_words",
    "quality_counts",
    "quality_due",
    "quality_facts",
    "readings",
    "referrals",
    "rejects",
    "reports",
    "reviews",
    "round_devices",
    "round_records",
    "rounds",
    "rule_changes",
    "rule_signatures",
    "second_factors",
    "sessions",
    "streams",
    "tombstones",
    "update_halts",
    "user_scopes",
    "users",
    "vitals",
    "withdrawals",
    "withdrawn_consents",
    "workers",
]

SCHEMA_VERSION = 15
"""Raised with each migration (migrations/README.md); a hub refuses a database with a higher one."""
REVISION = f"{SCHEMA_VERSION:04d}"
"""The same as Alembic names it."""
