"""Small on the wire: ten vital signs in 200 bytes each, signature included; and what the dictionary may not break."""

from __future__ import annotations

import contextlib
import os
import random
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from aidpost.errors import EnvelopeError
from aidpost.records import Device, Origin, Timestamp, VitalKind, VitalSign, encode
from aidpost.sync import _compression
from aidpost.sync.envelope import Envelope, Records, pack_message, unpack_message

KEY = Ed25519PrivateKey.generate()
BODY = b"id kind value unit at wall_ms monotonic_ms boot synced utc_offset_min origin live device Nonin 3230"


def vital(rng: random.Random) -> VitalSign:
    kind, unit = rng.choice([(VitalKind.SPO2, "%"), (VitalKind.PULSE_RATE, "/min"), (VitalKind.TEMPERATURE, "Cel")])
    now, device = rng.randrange(10**9), Device(name="Nonin 3230", serial=str(rng.randrange(10**8)))
    at = Timestamp(wall_ms=1_760_000_000_000 + now, monotonic_ms=now, boot=12, synced=True)
    value = round(rng.uniform(35, 150), 1)
    return VitalSign(id=uuid.uuid4(), kind=kind, value=value, unit=unit, at=at, origin=Origin.LIVE, device=device)


@pytest.mark.parametrize("seed", range(5))
def test_ten_vital_signs_of_ten_patients_take_200_bytes_each_with_the_signature(seed: int) -> None:
    rng, epoch = random.Random(seed), os.urandom(8)
    envelopes = tuple(
        Envelope(epoch, "vitals", 1000 + i, "VitalSign", uuid.uuid4(), uuid.uuid4(), encode(vital(rng)))
        for i in range(10)
    )
    message = pack_message(Records(envelopes), sender="kisumu-3", key=KEY)
    assert len(message) <= 10 * 200
    assert unpack_message(message, {"kisumu-3": KEY.public_key()}.get).content == Records(envelopes)


@given(st.binary(max_size=2000), st.booleans())
def test_any_payload_comes_back_with_the_dictionary_or_without(data: bytes, dictionary: bool) -> None:
    plain = data * 3
    codec, payload = _compression.compress(plain, dictionary=dictionary)
    assert _compression.decompress(codec, payload, len(plain), "unit-1") == plain
    assert len(payload) <= len(plain)


@given(st.data())
def test_a_damaged_payload_is_refused_or_bounded(data: st.DataObject) -> None:
    codec, payload = _compression.compress(BODY * 3)
    assert codec == _compression.ZSTD_WIRE
    at = data.draw(st.integers(0, len(payload) - 1))
    broken = payload[:at] + bytes([payload[at] ^ data.draw(st.integers(1, 255))]) + payload[at + 1 :]
    with contextlib.suppress(EnvelopeError):
        # the signature, not the codec, finds an altered byte; here it may only fail or stay within its bound
        assert len(_compression.decompress(codec, broken, 4000, "unit-1")) <= 4000
