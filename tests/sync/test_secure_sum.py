"""Masks cancel in the sum, whoever drops out above the threshold, and nothing less than the sum can be opened."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aidpost.errors import SyncError
from aidpost.sync import secure_sum
from aidpost.sync.secure_sum import Secrets, combine, decode_sum, encode_vector, mask, split

ROUND = uuid.UUID(int=7)
slow = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Members:
    """Devices whose keys the hub has handed round."""

    def __init__(self, count: int, shared: Iterable[int] | None = None) -> None:
        self.names = [f"unit-{i}" for i in range(count)]
        self.threshold = count // 2 + 1
        self.secrets = {name: Secrets.make() for name in self.names}
        self.roster = {name: one.public for name, one in self.secrets.items()}
        self.peers = [self.names[i] for i in (range(count) if shared is None else shared)]
        self.sealed = {
            name: secure_sum.seal_shares(name, self.secrets[name], self.roster, self.threshold, ROUND)
            for name in self.peers
        }

    def masked(self, name: str, values: np.ndarray) -> np.ndarray:
        return mask(encode_vector(values), name, self.secrets[name], self.roster, self.peers, ROUND)

    def share(self, of: str, holder: str) -> secure_sum.Member:
        return secure_sum.open_share(self.sealed[of][holder], holder, self.secrets[holder], of, self.roster, ROUND)

    def opened(self, masked: Mapping[str, np.ndarray], helpers: Sequence[str]) -> np.ndarray:
        """What the hub makes of the answers and of the shares that the helpers give."""
        number = {name: i for i, name in enumerate(sorted(self.roster))}
        seeds = {of: combine({number[one]: self.share(of, one).seed for one in helpers}) for of in masked}
        gone = [of for of in self.peers if of not in masked]
        keys = {of: combine({number[one]: self.share(of, one).key for one in helpers}) for of in gone}
        total = np.sum(list(masked.values()), axis=0, dtype=np.uint64)
        return decode_sum(secure_sum.unmask(total, seeds, keys, self.roster, ROUND))


@slow
@given(st.integers(2, 9), st.integers(1, 40), st.randoms(use_true_random=False))
def test_sum_is_the_plain_sum_with_any_drop_outs_above_the_threshold(count: int, size: int, chance: object) -> None:
    """Some never share, some share and never answer, some answer and never help: at least the threshold of each."""
    rng = np.random.default_rng(chance.getrandbits(32))  # type: ignore[attr-defined]
    least = count // 2 + 1
    shared = sorted(rng.permutation(count)[: rng.integers(least, count + 1)].tolist())
    members = Members(count, shared)
    answering = rng.permutation(members.peers)[: rng.integers(least, len(shared) + 1)].tolist()
    values = {name: rng.normal(scale=1e3, size=size) for name in answering}
    masked = {name: members.masked(name, values[name]) for name in answering}
    helpers = rng.permutation(answering)[:least].tolist()
    assert members.opened(masked, helpers) == pytest.approx(np.sum(list(values.values()), axis=0), abs=1e-5)


def test_one_answer_is_nothing_to_the_hub_without_the_others_shares() -> None:
    """What a device sends is uniform in the ring whatever it has learned: with its peers' masks taken away (the worst:
    all others collude), its own mask is still there."""
    members, size = Members(3), 20_000
    for values in (np.zeros(size), np.full(size, 123.0)):
        sent = members.masked("unit-0", values)
        others = {name: members.secrets[name].mask for name in ("unit-1", "unit-2")}
        bare = secure_sum.unmask(sent, {"unit-0": bytes(32)}, {}, members.roster, ROUND)
        for name, key in others.items():
            stream = secure_sum._stream(secure_sum._pairwise(key, members.roster["unit-0"][0], ROUND), size)
            bare = bare - stream if name > "unit-0" else bare + stream
        for seen in (sent, bare):
            high = (seen >> np.uint64(56)).astype(int)
            counts = np.bincount(high, minlength=256)
            # chi-square with 255 degrees of freedom: 400 is beyond one in a hundred million
            assert ((counts - size / 256) ** 2 / (size / 256)).sum() < 400
            assert abs(np.corrcoef(seen.astype(float), np.arange(size))[0, 1]) < 0.05
    again = members.masked("unit-0", np.zeros(size))
    assert np.array_equal(members.masked("unit-0", np.ones(size)) - again, encode_vector(np.ones(size)))


def test_fewer_shares_than_the_threshold_say_nothing_of_the_secret() -> None:
    """For every secret there is a polynomial through them (Shamir)."""
    secret, other = bytes(range(32)), bytes(32)
    shares = split(secret, 3, 5)
    assert combine({0: shares[0], 2: shares[2], 4: shares[4]}) == secret
    two = {0: shares[0], 2: shares[2]}
    # the third point of the polynomial that goes through two shares and has `other` as its secret
    points = {-1: int.from_bytes(other, "big"), **{i: int.from_bytes(s, "big") for i, s in two.items()}}
    value, x = 0, 5
    for i, y in points.items():
        above = below = 1
        for j in points:
            if j != i:
                above, below = above * (x - (j + 1)) % secure_sum.PRIME, below * (i - j) % secure_sum.PRIME
        value = (value + y * above * pow(below, -1, secure_sum.PRIME)) % secure_sum.PRIME
    assert combine({**two, 4: value.to_bytes(33, "big")}) == other


@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.data())
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, threshold: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(threshold, 20))
    chosen = data.draw(st.permutations(range(count)))[:threshold]
    shares = split(secret, threshold, count)
    assert combine({i: shares[i] for i in chosen}) == secret


def test_the_modulus_is_a_prime() -> None:
    """Miller-Rabin with 40 bases: a composite passes with a chance under 4^-40."""
    odd, twos = secure_sum.PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        x = pow(base, odd, secure_sum.PRIME)
        tries = [x := x if i == 0 else x * x % secure_sum.PRIME for i in range(twos)]
        assert tries[0] == 1 or secure_sum.PRIME - 1 in tries


def test_wrong_shares_are_seen_by_the_key_they_do_not_give() -> None:
    members = Members(5)
    values = {name: np.ones(3) for name in members.names[:4]}
    masked = {name: members.masked(name, one) for name, one in values.items()}
    members.sealed["unit-4"] = secure_sum.seal_shares("unit-4", Secrets.make(), members.roster, 3, ROUND)
    members.secrets["unit-4"] = Secrets.make()
    with pytest.raises(SyncError):
        members.opened(masked, members.names[:3])


@pytest.mark.parametrize("where", ["unit-1", "unit-2"])
def test_a_share_opens_for_its_member_only_and_unaltered(where: str) -> None:
    members = Members(3)
    sealed = members.sealed["unit-0"]
    if where == "unit-1":
        sealed[where] = sealed["unit-2"]
    else:
        sealed[where] = sealed[where][:-1] + bytes([sealed[where][-1] ^ 1])
    with pytest.raises(SyncError, match="does not open"):
        members.share("unit-0", where)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e12])
def test_what_the_ring_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(SyncError, match="not finite, or too large"):
        encode_vector(np.array([0.0, value]))


def test_a_thousand_of_the_largest_answers_still_add_up() -> None:
    total = np.sum([encode_vector(np.array([secure_sum.LARGEST]))] * 1000, axis=0, dtype=np.uint64)
    assert decode_sum(total) == pytest.approx([1000 * secure_sum.LARGEST])


def test_a_public_key_of_low_order_is_refused() -> None:
    with pytest.raises(SyncError, match="agreeing on a key"):
        secure_sum._pairwise(Secrets.make().mask, bytes(32), ROUND)
