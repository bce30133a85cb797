"""Bytes on the wire: an exam and ten vital signs, signed, beside JSON, gzip JSON and protobuf.

    python benchmarks/sync_wire.py STATE_DIR

STATE_DIR is a device's state folder with exams (`aidpost exam`), its key in a file. Every form gets the same 64-byte
signature a message; the peers carry no keys of records, which ours do. An exam is its report and waveforms, without
images. Protobuf is of the vital sign alone, with ids as 16 bytes.
"""

from __future__ import annotations

import gzip
import os
import random
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from aidpost.records import Device, ExamReport, Origin, Timestamp, VitalKind, VitalSign, decode, encode
from aidpost.sync import keys
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import Envelope, Records, pack_message
from aidpost.sync.store import Store

SIGNATURE = 64
KEY = Ed25519PrivateKey.generate()
UNITS = {
    VitalKind.SPO2: "%",
    VitalKind.PULSE_RATE: "/min",
    VitalKind.SYSTOLIC_BP: "mm[Hg]",
    VitalKind.TEMPERATURE: "Cel",
}


def vitals(number: int, seed: int) -> list[VitalSign]:
    """Readings of mixed kinds, as a clinic's afternoon gives them."""
    rng, began = random.Random(seed), 1_760_000_000_000
    made = []
    for index in range(number):
        kind = rng.choice(list(UNITS))
        at = Timestamp(wall_ms=began + index * 61_437, monotonic_ms=9_123_456 + index * 61_437, boot=12, synced=True)
        device = Device(name=rng.choice(["Nonin 3230", "Omron HEM-7322T"]), serial=f"50{rng.randint(1000, 9999)}")
        value, unit = round(rng.uniform(35, 150), 1), UNITS[kind]
        made.append(
            VitalSign(id=uuid.uuid4(), kind=kind, value=value, unit=unit, at=at, origin=Origin.LIVE, device=device)
        )
    return made


def ours(records: list[VitalSign]) -> int:
    """Bytes of one signed message, each record of another patient and exam."""
    epoch = os.urandom(8)
    envelopes = [
        Envelope(epoch, "vitals", 41 + i, "VitalSign", uuid.uuid4(), uuid.uuid4(), encode(record))
        for i, record in enumerate(records)
    ]
    return len(pack_message(Records(tuple(envelopes)), sender="kisumu-3", key=KEY))


def protobuf(records: list[VitalSign]) -> int:
    """Bytes of a repeated message with the fields that the readings have."""
    file = descriptor_pb2.FileDescriptorProto(name="vital.proto", package="v", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    fields = {
        "id": kinds.TYPE_BYTES,
        "patient": kinds.TYPE_BYTES,
        "exam": kinds.TYPE_BYTES,
        "kind": kinds.TYPE_INT32,
        "value": kinds.TYPE_DOUBLE,
        "unit": kinds.TYPE_STRING,
        "wall_ms": kinds.TYPE_INT64,
        "monotonic_ms": kinds.TYPE_INT64,
        "boot": kinds.TYPE_INT32,
        "synced": kinds.TYPE_BOOL,
        "origin": kinds.TYPE_INT32,
        "device": kinds.TYPE_STRING,
        "serial": kinds.TYPE_STRING,
    }
    vital = file.message_type.add(name="Vital")
    for number, (name, kind) in enumerate(fields.items(), 1):
        vital.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    batch = file.message_type.add(name="Batch")
    batch.field.add(name="vitals", number=1, type=kinds.TYPE_MESSAGE, type_name=".v.Vital", label=kinds.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("v.Batch"))()
    for one in records:
        made.vitals.add(
            id=one.id.bytes,
            patient=os.urandom(16),
            exam=os.urandom(16),
            kind=1 + list(VitalKind).index(one.kind),
            value=one.value,
            unit=one.unit,
            wall_ms=one.at.wall_ms,
            monotonic_ms=one.at.monotonic_ms,
            boot=one.at.boot,
            synced=one.at.synced,
            origin=1,
            device=one.device.name,
            serial=one.device.serial,
        )
    return len(made.SerializeToString()) + SIGNATURE


def exams(folder: Path) -> None:
    """Each report in the store with its waveforms, in every form."""
    with Store.open(folder, keys.from_file(folder / "device.key"), clock=SystemClock()) as store:
        print(f"{'exam':>8} {'JSON':>8} {'gzip':>8} {'ours':>8} {'waveforms':>10} {'together':>9}   bytes")
        for cls, seq in store.read("SELECT cls, seq FROM record WHERE kind = 'ExamReport' ORDER BY at_ms"):
            (envelope,) = store.envelopes(cls, [seq])
            report = msgspec.json.encode(decode(ExamReport, envelope.body))
            signed = len(pack_message(Records((envelope,)), sender="kisumu-3", key=KEY))
            (waves,) = store.read(
                "SELECT coalesce(sum(b.size), 0), count(*) FROM blob b WHERE cls = 'waveform' AND patient = ?",
                (envelope.patient.bytes if envelope.patient else b"",),
            )
            sizes = len(report) + SIGNATURE, len(gzip.compress(report, 9)) + SIGNATURE, signed, waves[0]
            print(f"{seq:>8} {sizes[0]:>8} {sizes[1]:>8} {sizes[2]:>8} {sizes[3]:>10} {sizes[2] + sizes[3]:>9}")


def main() -> None:
    """Prints both tables."""
    if len(sys.argv) > 1:
        exams(Path(sys.argv[1]))
    print(f"\n{'vitals a message':>17} {'JSON':>7} {'gzip':>7} {'protobuf':>9} {'ours':>7}   bytes a record, signed")
    for number in (1, 10, 100):
        records = vitals(number, seed=number)
        # as the envelope does, the peer says whose it is
        whose = [{"patient": uuid.uuid4(), "exam": uuid.uuid4(), **msgspec.structs.asdict(one)} for one in records]
        text = msgspec.json.encode(whose)
        sizes = len(text) + SIGNATURE, len(gzip.compress(text, 9)) + SIGNATURE, protobuf(records), ours(records)
        print(
            f"{number:>17} "
            + " ".join(f"{size / number:>{width}.0f}" for size, width in zip(sizes, (7, 7, 9, 7), strict=True))
        )


if __name__ == "__main__":
    main()
