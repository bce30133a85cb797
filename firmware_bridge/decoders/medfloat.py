"""IEEE 11073-20601 medical floats: a decimal mantissa and exponent, and five words that are no number.

The special words are answers, not errors: they become a `Number` without value that says why. Decimal arithmetic keeps
the precision that the device gave: 14 × 10^-1 is 1.4, and 20 × 10^-1 is 2.0, not 2.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from aidpost.firmware_bridge.decoders.base import signed
from aidpost.records import AbsentReason


class Number(NamedTuple):
    """A measured number, or None and the reason why there is none."""

    value: Decimal | None
    absent: AbsentReason | None = None


# by mantissa bits: NaN is the largest positive mantissa, the others stand round the most negative one
def _specials(bits: int) -> dict[int, Number]:
    top = 1 << (bits - 1)
    return {
        top - 1: Number(None, AbsentReason.NOT_A_NUMBER),
        top: Number(None, AbsentReason.ERROR),  # NRes: not at this resolution
        top - 2: Number(None, AbsentReason.POSITIVE_INFINITY),
        top + 2: Number(None, AbsentReason.NEGATIVE_INFINITY),
        top + 1: Number(None, AbsentReason.ERROR),  # reserved
    }


_SPECIAL_16, _SPECIAL_32 = _specials(12), _specials(24)


def sfloat(word: int) -> Number:
    """SFLOAT (medfloat16): 12 bits of mantissa, 4 of exponent, both two's complement."""
    special = _SPECIAL_16.get(word)
    return special or Number(Decimal(signed(word & 0xFFF, 12)).scaleb(signed(word >> 12, 4)))


def float32(word: int) -> Number:
    """FLOAT (medfloat32): 24 bits of mantissa, 8 of exponent, both two's complement."""
    special = _SPECIAL_32.get(word)
    return special or Number(Decimal(signed(word & 0xFFFFFF, 24)).scaleb(signed(word >> 24, 8)))


def encode_sfloat(value: float, decimals: int = 0) -> bytes:
    """An SFLOAT of that many decimals, as a device sends it; for simulators."""
    mantissa = round(value * 10.0**decimals)
    return int((mantissa & 0xFFF) | (-decimals & 0xF) << 12).to_bytes(2, "little")


def encode_float32(value: float, decimals: int = 0) -> bytes:
    """A FLOAT of that many decimals, as a device sends it; for simulators."""
    mantissa = round(value * 10.0**decimals)
    return int((mantissa & 0xFFFFFF) | (-decimals & 0xFF) << 24).to_bytes(4, "little")
