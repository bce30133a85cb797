"""A code by telephone, both ends of the line: what agrees, and all that must not."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from aidpost.sync.telephone import CHALLENGE_DIGITS, CODE_DIGITS, Line, digits, spaced

seeds = st.binary(min_size=32, max_size=32)
names = st.text(min_size=1, max_size=40)


def key(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def ends(device: Ed25519PrivateKey, hub: Ed25519PrivateKey, name: str = "unit-1") -> tuple[Line, Line]:
    return Line(device, hub.public_key(), name), Line(hub, device.public_key(), name)


@given(seeds, seeds, names, names)
def test_both_ends_agree_on_what_was_heard_for_whom_and_on_the_code(
    device: bytes, hub: bytes, name: str, worker: str
) -> None:
    here, there = ends(key(device), key(hub), name)
    challenge = here.challenge(worker)
    assert len(challenge) == CHALLENGE_DIGITS
    assert there.heard(challenge)
    assert there.workers(challenge, [worker]) == [worker]
    assert there.code(challenge) == here.code(challenge)
    assert len(here.code(challenge)) == CODE_DIGITS


@pytest.mark.parametrize("other", ["hub", "device", "name"])
def test_another_hub_another_device_or_another_name_makes_another_code(other: str) -> None:
    device, hub, stranger = key(b"d" * 32), key(b"h" * 32), key(b"s" * 32)
    here, _ = ends(device, hub)
    wrong = {
        "hub": Line(stranger, device.public_key(), "unit-1"),
        "device": Line(hub, stranger.public_key(), "unit-1"),
        "name": Line(hub, device.public_key(), "unit-2"),
    }[other]
    challenges = [here.challenge("Rose") for _ in range(50)]
    assert not any(wrong.code(one) == here.code(one) for one in challenges)
    assert sum(wrong.heard(one) for one in challenges) <= 2, "one in a thousand passes"


def test_a_digit_that_was_misheard_is_noticed() -> None:
    here, there = ends(key(b"d" * 32), key(b"h" * 32))
    passed = tried = 0
    for _ in range(40):
        challenge = here.challenge("Rose")
        for place in range(CHALLENGE_DIGITS):
            heard = challenge[:place] + str((int(challenge[place]) + 1) % 10) + challenge[place + 1 :]
            passed, tried = passed + there.heard(heard), tried + 1
    assert passed <= tried / 100


@given(st.text(max_size=30))
def test_whatever_is_typed_is_heard_or_not_and_nothing_breaks(text: str) -> None:
    _, there = ends(key(b"d" * 32), key(b"h" * 32))
    assert there.heard(digits(text)) in (True, False)


@pytest.mark.parametrize(
    "text", ["12 34567 890", "12-34567-890", "١٢٣٤٥٦٧٨٩٠", "１２３４５６７８９０", " 1 2 3 4 5 6 7 8 9 0 "]
)
def test_digits_are_read_however_people_write_them(text: str) -> None:
    assert digits(text) == "1234567890"
    assert digits(spaced("1234567890")) == "1234567890"
    assert spaced("12345678") == "1234 5678"


def test_the_digits_of_a_code_are_all_as_likely() -> None:
    here, _ = ends(key(b"d" * 32), key(b"h" * 32))
    counts = [0] * 10
    for number in range(3000):
        for digit in here.code(f"{number:010d}"):
            counts[int(digit)] += 1
    mean = sum(counts) / 10
    chi_squared = sum((one - mean) ** 2 / mean for one in counts)
    assert chi_squared < 33.7, "9 degrees of freedom, one in ten thousand"
