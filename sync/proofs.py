"""The hub's signature over one record that it sends down, for one device: by it the hub knows the record again.

A message's signature stands over all that went with it, compressed, and is gone once the message was read. A proof goes
with its record and stays: a hub that was restored from an older backup has forgotten what it signed since, and takes it
back from the devices (`aidpost.sync.returns`) as far as its own key says that it was so.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aidpost.records import Referral, Review
from aidpost.sync.bodies import Acknowledgement, Erasure
from aidpost.sync.envelope import Envelope

KINDS: dict[str, type[Review | Referral | Acknowledgement | Erasure]] = {
    kind.__name__: kind for kind in (Review, Referral, Acknowledgement, Erasure)
}
"""What is proven. All else that goes down the hub makes anew of what it has (the patient index, settings)."""
_CONTEXT = b"aidpost proof 1\x00"


def prove(key: Ed25519PrivateKey, device: str, envelopes: Sequence[Envelope]) -> tuple[bytes, ...]:
    """The hub's proof of each envelope for a device, empty for a kind that needs none; () where none needs one."""
    proofs = tuple(key.sign(_signed(device, one)) if one.kind in KINDS else b"" for one in envelopes)
    return proofs if any(proofs) else ()


def is_proven(key: Ed25519PublicKey, device: str, envelope: Envelope, proof: bytes) -> bool:
    """Whether the hub of that key sent exactly this to that device."""
    try:
        key.verify(proof, _signed(device, envelope))
    except InvalidSignature:
        return False
    return True


def _signed(device: str, envelope: Envelope) -> bytes:
    """MessagePack of [device, epoch, class, sequence, hash] behind a context of its own."""
    return _CONTEXT + msgspec.msgpack.encode((device, *envelope.key, envelope.hash))
