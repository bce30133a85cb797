"""Exams of a device that a clinician at the hub has confirmed: what a model may learn from."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import msgspec
import numpy as np
from device_records import make_item

from aidpost.kernels import codec
from aidpost.records import (
    Beats,
    BlobRef,
    Consent,
    ConsentPurpose,
    Device,
    EcgMeasurements,
    EcgResult,
    Origin,
    Quality,
    Review,
    ReviewDecision,
    Rhythm,
    Timestamp,
    encode,
)
from aidpost.sync.envelope import Envelope
from aidpost.sync.store import Blob, Store

AT = Timestamp(wall_ms=1, monotonic_ms=1, boot=1, synced=True)


def consent(patient: uuid.UUID, *, given: bool = True, boot: int = 1) -> Consent:
    at = msgspec.structs.replace(AT, boot=boot)
    return Consent(
        id=uuid.uuid4(),
        patient=patient,
        purpose=ConsentPurpose.MODEL_TRAINING,
        version="1",
        language="en",
        given=given,
        at=at,
    )


def keep_exam(
    store: Store,
    *consents: bool,
    patient: uuid.UUID | None = None,
    rhythm: str = "sinus",
    seed: int = 1,
    origin: Origin = Origin.LIVE,
) -> Any:
    """An exam with one ECG of a simulated rhythm; consents in the order of boots."""
    from aidpost.firmware_bridge.simulators.ecg import simulate_ecg

    made = simulate_ecg(rhythm, seconds=12, fs_hz=250.0, leads=("II",), seed=seed)
    body = codec.encode(np.rint(made.millivolts * 1000).astype(np.int32))
    item = make_item(patient=patient)
    report = item.record
    ref = BlobRef(sha256=hashlib.sha256(body).hexdigest(), size=len(body), media_type="application/x-waveform")
    ecg = EcgResult(
        id=uuid.uuid4(),
        fs_hz=250.0,
        duration_s=12.0,
        leads=("II",),
        lsb_mv=(0.001,),
        baseline=(0,),
        lead="II",
        at=AT,
        origin=Origin.LIVE,
        device=Device(name="d"),
        quality=Quality(usable=True, score=1.0),
        beats=Beats(),
        rhythm=Rhythm(label="N", probability={"N": 1.0}),
        measurements=EcgMeasurements(),
        body=ref,
    )
    told = tuple(consent(report.patient.id, given=one, boot=boot) for boot, one in enumerate(consents, 1))
    report = msgspec.structs.replace(report, ecg=(ecg,), consents=told, origin=origin)
    store.append(item._replace(record=report, blobs=[Blob(ref, body, Origin.LIVE)]))
    return report


def review(store: Store, report: Any, seq: int, grade: str, **changes: Any) -> Review:
    fields: dict[str, Any] = {
        "id": uuid.uuid4(),
        "report": report.id,
        "exam": report.exam.id,
        "patient": report.patient.id,
        "reviewer": "dr.okoro",
        "decision": ReviewDecision.CONFIRMED,
        "at": AT,
        "grades": {"rhythm": grade},
    }
    made = Review(**(fields | changes))
    sent = Envelope(b"hub-epoc", "review", seq, "Review", made.patient, made.exam, encode(made))
    assert store.inbox.keep([sent], 1).rejected == ()
    return made
