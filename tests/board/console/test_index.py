"""Patients whom this device knows only from its hub: found, shown with their last visit, asked for consent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from console import SENSORS, Running

from aidpost.board.configuration import load
from aidpost.board.device import device_key, open_store
from aidpost.records import Identifier, Patient, Sex, Timestamp, TriageLevel, encode
from aidpost.sync.bodies import Erasure, IndexEntry, LastVisit, OverdueReferral
from aidpost.sync.envelope import Envelope

PATIENT = Patient(
    id=uuid.uuid4(), name="Zawadi Otieno", birth_date="1958", sex=Sex.FEMALE,
    identifiers=(Identifier(system="north", value="N-204"),),
)  # fmt: skip
AT = Timestamp(wall_ms=1_790_000_000_000, monotonic_ms=1, boot=0, synced=True)
LAST = LastVisit(exam=uuid.uuid4(), day="2026-09-01", triage=TriageLevel.SOON, result="Raised blood pressure")
LATE = OverdueReferral(to="Kisumu eye unit", due="2026-09-15", reason="retinopathy")


class Device:
    """A running device, and the hub's word to it as a stick would bring it."""

    def __init__(self, running: Running) -> None:
        self.running, self.sent = running, 0

    def get(self, record: IndexEntry | Erasure, patient: uuid.UUID) -> None:
        self.sent += 1
        kind, cls = type(record).__name__, "index" if isinstance(record, IndexEntry) else "erasure"
        configuration = load(self.running.folder / "aidpost.toml")
        key = device_key(configuration, self.running.state, lambda: "")
        with open_store(configuration, self.running.state, key) as store:
            envelope = Envelope(b"hub-epoc", cls, self.sent, kind, patient, None, encode(record))
            assert store.inbox.keep([envelope], 1).rejected == ()

    def find(self, text: str) -> str:
        status, _, page = self.running.ask("POST", "/find", {"text": text})
        assert status == 200
        return page


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder: Path = tmp_path_factory.mktemp("device")
    with Running(folder, SENSORS + "[sync]\nenabled = false\n", practice=False) as running:
        running.set_up()
        yield Device(running)


def test_a_patient_of_the_clinic_is_found_shown_examined_and_gone_with_their_erasure(device: Device) -> None:
    assert "Zawadi" not in device.find("zawadi")
    entry = IndexEntry(patient=PATIENT, at=AT, last=LAST, overdue=(LATE,))
    device.get(entry, PATIENT.id)
    for text in ("zawadi", "N-204"):
        assert f'href="/patients/{PATIENT.id}"' in device.find(text)
    page = device.running.page(f"/patients/{PATIENT.id}")
    for said in (
        "2026-09-01",
        "Raised blood pressure",
        "Kisumu eye unit",
        "From the hub, as of",
        "not confirmed it yet",
    ):
        assert said in page, said
    # nobody is examined whose consent was not asked for here
    assert device.running.tap(f"/patients/{PATIENT.id}/exams") == f"/patients/{PATIENT.id}/correct"
    form = device.running.page(f"/patients/{PATIENT.id}/correct")
    assert "Zawadi Otieno" in form
    assert "N-204" in form
    refused = device.running.ask("POST", f"/patients/{PATIENT.id}/correct", {"name": "Zawadi Otieno", "sex": "female"})
    assert refused[0] == 400
    device.running.tap(
        f"/patients/{PATIENT.id}/correct", name="Zawadi Otieno", born="1958", sex="female", screening="yes"
    )
    assert device.running.tap(f"/patients/{PATIENT.id}/exams").startswith("/exams/")
    device.get(Erasure(patient=PATIENT.id, at=AT), PATIENT.id)
    assert "Zawadi" not in device.find("zawadi")
    assert device.running.ask("GET", f"/patients/{PATIENT.id}")[0] == 409


def test_an_open_exam_of_somebody_whom_another_process_erases_is_gone_from_the_screen(device: Device) -> None:
    exam = device.running.register(name="Baraka Ouma")
    other = device.running.register(name="Juma Kamau")
    assert "Baraka" in device.running.page("/")
    patient = uuid.UUID(device.find("baraka").split('href="/patients/')[1][:36])
    device.running.tap(f"{exam}/questions", question="chest-pain", answer="no")
    device.get(Erasure(patient=patient, at=AT), patient)
    page = device.running.page("/")
    assert "Baraka" not in page
    assert "Juma" in page
    status, _, said = device.running.ask("GET", exam)
    assert status >= 400
    assert "Baraka" not in said
    assert device.running.ask("POST", f"{exam}/questions", {"question": "chest-pain", "answer": "no"})[0] == 409
    assert device.running.ask("GET", other)[0] == 200


def test_one_person_under_two_numbers_is_found_once_as_this_device_knows_them(device: Device) -> None:
    device.running.register(name="Neema Achieng")
    own = device.find("neema")
    assert own.count("Neema Achieng") == 1
    local = uuid.UUID(own.split('href="/patients/')[1][:36])
    other = Patient(id=uuid.uuid4(), name="Neema Achieng")
    device.get(IndexEntry(patient=other, at=AT, last=LAST, same_as=(local,)), other.id)
    found = device.find("neema")
    assert found.count("Neema Achieng") == 1
    assert str(local) in found
    assert "Raised blood pressure" in device.running.page(f"/patients/{local}")
