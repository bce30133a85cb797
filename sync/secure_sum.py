"""A sum of which nobody sees a part: pairwise masks that cancel, own masks, and shares of both for who drops out.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017
(10.1145/3133956.3133982), figure 4, with a hub that is curious and keeps to the protocol: keys come over the hub, which
vouches for who has them, as it does for all devices. Masks: X25519, HKDF-SHA256, ChaCha20. Shares: Shamir's over the
prime 2^256 + 297, sealed with ChaCha20-Poly1305. Values are fixed-point, modulo 2^64, so that a sum is exact.

The rule that all rests on: of one member nobody gives both the seed's share and the key's (`reveal`), and over half of
the members are needed for either.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aidpost.errors import SyncError

__all__ = ["Member", "Secrets", "combine", "decode_sum", "encode_vector", "mask", "open_share", "seal_shares", "split"]

Ring = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Roster = Mapping[str, tuple[bytes, bytes]]
"""By name, the public keys for masks and for shares."""

PRIME = 2**256 + 297
_SHARE = 33
_SCALE = float(1 << 24)
LARGEST = float(1 << 28)
"""Values beyond are refused: a thousand of them still add up within the ring."""


class Secrets(msgspec.Struct, frozen=True):
    """What a device keeps of a round until it is over: two X25519 private keys and the seed of its own mask, 32 bytes
    each."""

    mask: bytes
    share: bytes
    seed: bytes

    @classmethod
    def make(cls) -> Secrets:
        """New ones."""
        return cls(*(secrets.token_bytes(32) for _ in range(3)))

    @property
    def public(self) -> tuple[bytes, bytes]:
        """The public keys, for masks and for shares."""
        return _public(self.mask), _public(self.share)


class Member(NamedTuple):
    """One member's shares of another's secrets."""

    seed: bytes
    key: bytes


def encode_vector(values: Floats) -> Ring:
    """Fixed-point in the ring of 2^64, (n,).

    Raises
    ------
    SyncError
        A value is not finite, or beyond `LARGEST`.
    """
    if not np.isfinite(values).all() or np.abs(values).max(initial=0.0) > LARGEST:
        raise _wrong("encoding an answer", "answer", "a value is not finite, or too large")
    out: Ring = np.rint(values * _SCALE).astype(np.int64).view(np.uint64)
    return out


def decode_sum(total: Ring) -> Floats:
    """Values of an unmasked sum, (n,)."""
    out: Floats = total.view(np.int64).astype(np.float64) / _SCALE
    return out


def mask(values: Ring, me: str, mine: Secrets, roster: Roster, peers: Iterable[str], round_: uuid.UUID) -> Ring:
    """The vector under this device's own mask and one with each peer, which that peer takes away again."""
    out = values + _stream(mine.seed, values.size)
    for peer in peers:
        if peer != me:
            shared = _stream(_pairwise(mine.mask, roster[peer][0], round_), values.size)
            out = out + shared if me < peer else out - shared
    return out


def unmask(
    total: Ring,
    seeds: Mapping[str, bytes],
    keys: Mapping[str, bytes],
    roster: Roster,
    round_: uuid.UUID,
) -> Ring:
    """The sum of the answers without their masks.

    Parameters
    ----------
    total
        The masked answers of those in `seeds`, added up.
    seeds, keys
        Seeds of those who answered, mask keys of those who shared and did not.

    Raises
    ------
    SyncError
        A key that was put together is not the one of the roster: somebody gave wrong shares.
    """
    for seed in seeds.values():
        total = total - _stream(seed, total.size)
    for gone, key in keys.items():
        if _public(key) != roster[gone][0]:
            raise _wrong("unmasking a sum", gone, "its shares do not give its key")
        for peer in seeds:
            shared = _stream(_pairwise(key, roster[peer][0], round_), total.size)
            total = total - shared if peer < gone else total + shared
    return total


def seal_shares(me: str, mine: Secrets, roster: Roster, threshold: int, round_: uuid.UUID) -> dict[str, bytes]:
    """By member's name, itself included, shares of this device's seed and mask key, sealed for that member."""
    names = sorted(roster)
    seeds, keys = split(mine.seed, threshold, len(names)), split(mine.mask, threshold, len(names))
    return {
        name: ChaCha20Poly1305(_sealing(mine.share, roster[name][1], me, name, round_)).encrypt(
            bytes(12), seeds[i] + keys[i], None
        )
        for i, name in enumerate(names)
    }


def open_share(sealed: bytes, me: str, mine: Secrets, sender: str, roster: Roster, round_: uuid.UUID) -> Member:
    """What `sender` sealed for this device.

    Raises
    ------
    SyncError
        It does not open: altered, or for somebody else.
    """
    try:
        key = _sealing(mine.share, roster[sender][1], sender, me, round_)
        plain = ChaCha20Poly1305(key).decrypt(bytes(12), sealed, None)
    except (InvalidTag, KeyError):
        raise _wrong("opening a share", sender, "it does not open") from None
    return Member(plain[:_SHARE], plain[_SHARE:])


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """`count` shares of 32 bytes, any `threshold` of which give it back, and fewer nothing (Shamir, CACM 1979). The
    i-th is the polynomial's value at i + 1."""
    terms = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    out = []
    for x in range(1, count + 1):
        value = 0
        for term in reversed(terms):
            value = (value * x + term) % PRIME
        out.append(value.to_bytes(_SHARE, "big"))
    return out


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from `threshold` shares by their number, from 0.

    Raises
    ------
    SyncError
        They are not of one secret.
    """
    total = 0
    for i, share in shares.items():
        above = below = 1
        for j in shares:
            if j != i:
                above, below = above * (j + 1) % PRIME, below * (j - i) % PRIME
        total = (total + int.from_bytes(share, "big") * above * pow(below, -1, PRIME)) % PRIME
    if total >> 256:
        raise _wrong("putting shares together", f"{len(shares)} shares", "they are not of one secret")
    return total.to_bytes(32, "big")


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _pairwise(private: bytes, public: bytes, round_: uuid.UUID) -> bytes:
    return _derived(private, public, b"aidpost round mask\0" + round_.bytes)


def _sealing(private: bytes, public: bytes, sender: str, recipient: str, round_: uuid.UUID) -> bytes:
    # of one pair each direction has a key of its own, used once: the nonce may be nought
    names = f"{sender}\0{recipient}".encode()
    return _derived(private, public, b"aidpost round share\0" + round_.bytes + names)


def _derived(private: bytes, public: bytes, info: bytes) -> bytes:
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise _wrong("agreeing on a key", public.hex()[:16], str(error)) from None
    return HKDF(SHA256(), 32, None, info).derive(shared)


def _stream(seed: bytes, size: int) -> Ring:
    stream = Cipher(ChaCha20(seed, bytes(16)), None).encryptor().update(bytes(8 * size))
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def _wrong(operation: str, target: str, cause: str) -> SyncError:
    return SyncError(operation=operation, target=target, cause=cause, remedy="The round goes on without it.")
