"""Exams at another FHIR server: once each whatever happens on the way, and up to date."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from fhir.resources.R4B import get_fhir_model_class
from sqlalchemy import select

from aidpost.kernels import codec
from aidpost.records import BlobRef, Consent, ConsentPurpose, ExamReport, Origin
from aidpost.sync.hub import schema
from aidpost.sync.hub._exporter import Exporter
from aidpost.sync.hub._fhir_push import FhirPush
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, at, make_report, wait_for
from .fhir_server import FhirServer, serving
from .web_client import Client, send, send_blob, whole_report

SECOND = 1000


@pytest.fixture
def other() -> FhirServer:
    return FhirServer()


@pytest.fixture
def config(config: HubConfig, other: FhirServer) -> Iterator[HubConfig]:
    with serving(other) as url:
        yield msgspec.structs.replace(config, fhir_url=url, fhir_token="a token", public_url="https://hub.example")


@pytest.fixture
def exporter(server: HubServer) -> Exporter:
    """Turned by hand: the hub's own has been stopped."""
    for running in server.exporters:
        running.stop()
    return Exporter(server.database, FhirPush(server.config, server.database, server.files))


def with_consent(server: HubServer, device: FakeDevice) -> ExamReport:
    report = whole_report(server, device)
    given = Consent(
        id=uuid.uuid4(), patient=report.patient.id, purpose=ConsentPurpose.RESEARCH, version="1", language="en",
        given=True, at=at(),
    )  # fmt: skip
    newer = msgspec.structs.replace(report, id=uuid.uuid4(), supersedes=report.id, consents=(given,))
    send(server, device, device.message(device.envelope(newer)))
    return newer


def kinds(other: FhirServer) -> dict[str, int]:
    names = [kind for kind, _ in other.resources]
    return {kind: names.count(kind) for kind in sorted(set(names))}


WHOLE = {"Consent": 1, "Device": 4, "DiagnosticReport": 1, "Media": 1, "Observation": 5, "Patient": 1}
"""Of the exam of `with_consent`: two vital signs, one eye, one ECG and its trace."""


def test_exam_arrives_whole_and_its_traces_apart(
    server: HubServer, device: FakeDevice, other: FhirServer, exporter: Exporter
) -> None:
    report = with_consent(server, device)
    assert exporter.turn(now_ms()) == 1
    assert kinds(other) == WHOLE
    assert [len(bundle["entry"]) for bundle in other.transactions] == [12, 1]
    assert other.authorization == "Bearer a token"
    (wave,) = [
        item for item in other.of_kind("Observation") if any("valueSampledData" in c for c in item.get("component", ()))
    ]
    lead = wave["component"][0]["valueSampledData"]
    words = lead["data"].split()
    assert (len(words), words[250], words[0], words[1000], lead["period"]) == (6000, "1000", "0", "E", 2.0)
    (media,) = other.of_kind("Media")
    assert report.fundus[0].body is not None
    assert media["content"]["url"].endswith(f"{report.exam.id}/blobs/{report.fundus[0].body.sha256}")
    assert exporter.turn(now_ms()) == 0


def test_lost_answer_and_refused_transaction_are_tried_again_and_double_nothing(
    server: HubServer, device: FakeDevice, other: FhirServer, exporter: Exporter
) -> None:
    with_consent(server, device)
    other.answers = [0, 503, 200, 500]
    now = now_ms()
    assert exporter.turn(now) == 1  # taken, and the answer lost
    assert exporter.turn(now + 9 * SECOND) == 0
    assert exporter.turn(now + 10 * SECOND) == 1  # refused
    with server.database.read() as connection:
        row = connection.execute(select(schema.exports).where(schema.exports.c.target == "fhir")).one()
    assert row.attempts == 2
    assert "503" in row.error
    assert exporter.turn(now + 30 * SECOND) == 1  # results taken, trace refused
    assert exporter.turn(now + 70 * SECOND) == 1
    assert kinds(other) == WHOLE
    with server.database.read() as connection:
        row = connection.execute(select(schema.exports).where(schema.exports.c.target == "fhir")).one()
    assert (row.next_ms, row.error) == (None, "")


def test_review_and_referral_update_what_is_there(
    server: HubServer, device: FakeDevice, other: FhirServer, exporter: Exporter, reader: Client
) -> None:
    report = with_consent(server, device)
    exporter.turn(now_ms())
    (before,) = other.of_kind("DiagnosticReport")
    assert before["status"] == "preliminary"
    page = f"/exams/{report.exam.id}"
    assert reader.submit(page, f"{page}/reviews", decision="confirmed", parts="eyes", dr_right="2") == 303
    exporter.turn(now_ms())
    assert other.of_kind("DiagnosticReport")[0]["status"] == "preliminary", "the heart was not read yet"
    assert reader.submit(page, f"{page}/reviews", decision="confirmed", parts="heart", rhythm="af") == 303
    assert reader.submit(page, f"{page}/referrals", to="Eye unit", due="2027-01-02") == 303
    with server.database.read() as connection:
        first = connection.execute(select(schema.referrals.c.id)).scalar_one()
    exporter.turn(now_ms())
    (after,) = other.of_kind("DiagnosticReport")
    assert (after["id"], after["status"]) == (before["id"], "final")
    assert after["resultsInterpreter"] == [{"display": "Dr Okoro"}]
    assert other.of_kind("Task")[0]["status"] == "requested"
    done = {"to": "Eye unit", "due": "2027-01-02", "status": "attended", "supersedes": str(first)}
    assert reader.submit(page, f"{page}/referrals", **done) == 303
    exporter.turn(now_ms())
    assert [item["status"] for item in other.of_kind("Task")] == ["completed"]
    assert kinds(other) == WHOLE | {"Task": 1}


def test_trace_that_arrives_after_the_report_is_sent_when_it_is_whole(
    server: HubServer, device: FakeDevice, other: FhirServer, exporter: Exporter
) -> None:
    report = whole_report(server, device)
    data = codec.encode(np.arange(6000, dtype=np.int32).reshape(2, 3000))
    body = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data), media_type="application/octet-stream")
    ecg = msgspec.structs.replace(report.ecg[0], body=body)
    newer = msgspec.structs.replace(report, id=uuid.uuid4(), supersedes=report.id, ecg=(ecg,))
    send(server, device, device.message(device.envelope(newer)))
    exporter.turn(now_ms())
    assert kinds(other)["Observation"] == 4
    send_blob(server, device, data, body.media_type, newer)
    exporter.turn(now_ms())
    assert kinds(other)["Observation"] == 5


def test_running_hub_sends_by_itself_and_keeps_what_is_not_live(
    server: HubServer, device: FakeDevice, other: FhirServer
) -> None:
    simulated, live = make_report(origin=Origin.SIMULATED), make_report()
    send(server, device, device.message(device.envelope(simulated), device.envelope(live)))
    wait_for(lambda: other.of_kind("DiagnosticReport"), "the exam was sent")
    (sent,) = other.of_kind("DiagnosticReport")
    assert sent["identifier"][0]["value"] == f"urn:uuid:{live.id}"


def test_every_resource_that_is_sent_is_valid_r4(
    server: HubServer, device: FakeDevice, exporter: Exporter, reader: Client
) -> None:
    for resource in every_resource(server, device, reader):
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)


def every_resource(server: HubServer, device: FakeDevice, reader: Client) -> list[dict[str, Any]]:
    """One of each kind, reviewed, referred, and the transactions around them."""
    report = with_consent(server, device)
    page = f"/exams/{report.exam.id}"
    assert reader.submit(page, f"{page}/reviews", decision="corrected", text="More.", dr_right="3", rhythm="af") == 303
    assert reader.submit(page, f"{page}/referrals", to="Eye unit", due="2027-01-02") == 303
    bundles = FhirPush(server.config, server.database, server.files).bundles(report.exam.id)
    return [*bundles, *(entry["resource"] for bundle in bundles for entry in bundle["entry"])]
