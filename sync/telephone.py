"""A code by telephone: the hub lets a locked-out worker in again at a device that no network reaches.

Both ends have had what it takes since enrolment: each its own Ed25519 key and the other's public one. X25519 of the two
(the keys that the stick is sealed to) gives a secret that never travels; HKDF-SHA256 (RFC 5869) makes of it everything
below. The device says ten digits, the hub's page answers with eight. Without the hub's private key or the device's,
which is sealed at rest, nobody makes them; a stolen device shows only the ten. Whoever can read the device's opened key
has its records already and needs no code.

A challenge is::

    | 2 digits: the worker | 5 digits: random | 3 digits: check |

so that the hub sees for whom the code is, and whether a digit was misheard or the device is another one. What makes a
challenge count once, and for few tries, is the device (`board/console/telephone.py`).
"""

from __future__ import annotations

import hmac
import secrets
import unicodedata
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from aidpost.sync import keys

CHALLENGE_DIGITS, CODE_DIGITS = 10, 8
_WORKER, _RANDOM, _CHECK = 2, 5, 3
_CONTEXT = b"aidpost telephone 1"


class Line:
    """What one device and one hub can say to each other by telephone; the same object at both ends.

    Parameters
    ----------
    own, other
        This end's signing key, and the other's public one.
    device
        The device's name.
    """

    def __init__(self, own: Ed25519PrivateKey, other: Ed25519PublicKey, device: str) -> None:
        shared = keys.agreement_private(own).exchange(keys.agreement_public(other))
        self._secret = HKDF(SHA256(), 32, salt=None, info=_CONTEXT).derive(shared)
        self._device = device

    def challenge(self, worker: str) -> str:
        """Ten new digits for a worker to read out."""
        begin = self.mark(worker) + f"{secrets.randbelow(10**_RANDOM):0{_RANDOM}d}"
        return begin + self._digits("check", begin, _CHECK)

    def heard(self, challenge: str) -> bool:
        """Whether these can be the digits that this device shows: one misheard passes once in a thousand."""
        if len(challenge) != CHALLENGE_DIGITS or not (challenge.isascii() and challenge.isdigit()):
            return False
        return hmac.compare_digest(self._digits("check", challenge[:-_CHECK], _CHECK), challenge[-_CHECK:])

    def code(self, challenge: str) -> str:
        """The eight digits that answer a challenge."""
        return self._digits("code", challenge, CODE_DIGITS)

    def mark(self, worker: str) -> str:
        """The two digits by which a challenge says whose it is."""
        return self._digits("worker", worker, _WORKER)

    def workers(self, challenge: str, known: Iterable[str]) -> list[str]:
        """Those of `known` whose challenge it can be; of a hundred others, one by chance."""
        return [one for one in known if self.mark(one) == challenge[:_WORKER]]

    def _digits(self, use: str, about: str, count: int) -> str:
        parts = (_CONTEXT, use.encode(), self._device.encode(), about.encode())
        made = HKDFExpand(SHA256(), 16, info=b"\x00".join(parts)).derive(self._secret)
        # of 128 bits: no digit is likelier than another by more than 10^8 / 2^128
        return f"{int.from_bytes(made, 'big') % 10**count:0{count}d}"


def digits(text: str) -> str:
    """The digits of what somebody typed, in whichever script they write numbers, without spaces and hyphens; other
    characters stay, and fit nothing."""
    kept = (one for one in text if not one.isspace() and unicodedata.category(one) != "Pd")
    return "".join(str(unicodedata.decimal(one, one)) for one in kept)


def spaced(number: str) -> str:
    """A number in groups, to be read out: `12 34567 890`, `1234 5678`."""
    cuts = (_WORKER, _WORKER + _RANDOM) if len(number) == CHALLENGE_DIGITS else (len(number) // 2,)
    return " ".join(number[a:b] for a, b in zip((0, *cuts), (*cuts, len(number)), strict=True))
