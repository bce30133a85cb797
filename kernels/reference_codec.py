"""What `codec`'s streams mean, in plain Python integers: the proof of its loops, and their specification. Slow."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import NamedTuple

_HALF_CONTEXT = 13
_PROBABILITY_BITS = 11
_RANS_LOW = 1 << 16


class Tables(NamedTuple):
    """`frequency` by context and symbol, each context's summing to 2048; `limit`: the symbol that announces a larger
    one."""

    frequency: list[list[int]]
    limit: list[int]


def read_tables(header: Path | None = None) -> Tables:
    """The tables that the loops were compiled with, from their C header."""
    text = (header or Path(__file__).with_name("_codec_tables.h")).read_text()
    frequency, limit = (text[text.index(name) :].split("};")[0] for name in ("FREQUENCY[", "LIMIT["))
    rows = [[int(v) for v in row.split(",")] for row in re.findall(r"\{([\d, ]+)\}", frequency)]
    return Tables(rows, [int(v) for v in limit.split("{")[1].split(",")])


def int32(v: int) -> int:
    """The signed 32-bit value with v's low bits."""
    return (v + (1 << 31)) % (1 << 32) - (1 << 31)


def clip16(v: int) -> int:
    """v, or the nearest 16-bit value."""
    return max(-32768, min(32767, v))


class Predictor:
    """Normalised LMS: eight weights in Q13 on the last seven differences and the reference lead's present one."""

    def __init__(self, weights: list[int], rate: int, shift: int) -> None:
        self.weight = [128 * w for w in weights]
        self.past = [0] * 8
        self.energy = 0
        self.rate, self.shift = rate, shift

    def predict(self, reference: int) -> int:
        """The next difference of the lead, when the reference lead's is `reference`."""
        self.past[7] = reference
        total = int32(sum(w * h for w, h in zip(self.weight, self.past, strict=True)) + (1 << 12))
        return int32((total >> 13) << self.shift)

    def adapt(self, error: int, newest: int) -> None:
        """Move each weight along its input by the error over the inputs' energy, a power of two; take in the newest
        difference. The energy decays and lags by one difference."""
        energy = self.energy + self.past[7] ** 2 + 16
        step = ((error >> self.shift) << (29 - self.rate)) >> energy.bit_length()
        step = max(-16383, min(16383, step))
        for i, (w, h) in enumerate(zip(self.weight, self.past, strict=True)):
            self.weight[i] = clip16(w + ((h * step + 32768) >> 16))
        self.energy += self.past[0] ** 2 - (self.energy >> 3)
        self.past = [newest, *self.past[:7]]


class Magnitude:
    """Running means, Q8, over about 4 and 16 residuals, folded to be non-negative; they choose the table."""

    def __init__(self) -> None:
        self.fast = self.slow = 8 << 8

    def context(self) -> tuple[int, int]:
        """The table's number and how many low bits are sent as they are."""
        mean = 5 * self.fast + 3 * self.slow
        top = (mean | 256).bit_length() - 1
        fine = (mean >> (top - 2)) & 3
        return (min(top, _HALF_CONTEXT) - 8) * 4 + fine, max(0, top - _HALF_CONTEXT)

    def add(self, folded: int) -> None:
        """Take in one residual."""
        value = min(folded, 0xFFFFF) << 8
        self.fast += (value - self.fast) >> 2
        self.slow += (value - self.slow) >> 4


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.value, self.at = int.from_bytes(data, "little"), 0

    def take(self, n: int) -> int:
        self.at += n
        return (self.value >> (self.at - n)) & ((1 << n) - 1)


class _Half:
    """One half of a lead in decoding: its predictor, its context, its rANS state and what came out."""

    def __init__(self, state: int, first: int, predictor: Predictor) -> None:
        self.state, self.predictor, self.magnitude = state, predictor, Magnitude()
        self.samples, self.differences = [first], [0]

    def step(self, rans: _Bits, raw: _Bits, tables: Tables, reference: int) -> None:
        context, bits = self.magnitude.context()
        row = tables.frequency[context]
        slot, start, symbol = self.state % (1 << _PROBABILITY_BITS), 0, 0
        while start + row[symbol] <= slot:
            start += row[symbol]
            symbol += 1
        self.state = row[symbol] * (self.state >> _PROBABILITY_BITS) + slot - start
        if self.state < _RANS_LOW:
            self.state = self.state << 16 | rans.take(16)
        large = symbol == tables.limit[context]
        folded = raw.take(raw.take(5) + 1) if large else symbol << bits | raw.take(bits)
        self.magnitude.add(folded)
        error = folded >> 1 if folded % 2 == 0 else -(folded >> 1) - 1
        difference = int32(error + self.predictor.predict(reference))
        self.samples.append(int32(self.samples[-1] + difference))
        self.differences.append(clip16(difference >> self.predictor.shift))
        self.predictor.adapt(error, self.differences[-1])


def _predicted(body: bytes, n: int, differences: list[list[int]], tables: Tables) -> tuple[list[int], list[int], int]:
    """Samples and clipped differences of a predicted lead, and the bytes it took after its form."""

    def number(at: int, size: int, signed: bool = False) -> int:
        return int.from_bytes(body[at : at + size], "little", signed=signed)

    reference = [0] * n if body[0] == 255 else differences[body[0]]
    weights = [number(11 + i, 1, signed=True) for i in range(8)]
    rans_end = 25 + number(19, 3)
    end = rans_end + number(22, 3)
    rans, raw = _Bits(body[25:rans_end]), _Bits(body[rans_end:end])
    half = (n + 1) // 2
    states = rans.take(32), rans.take(32)
    halves = [_Half(states[i], number(3 + 4 * i, 4, signed=True), Predictor(weights, body[2], body[1])) for i in (0, 1)]
    for t in range(1, half):
        halves[0].step(rans, raw, tables, reference[t])
        if t < n - half:
            halves[1].step(rans, raw, tables, reference[half + t])
    assert [part.state for part in halves] == [_RANS_LOW, _RANS_LOW]
    return halves[0].samples + halves[1].samples, halves[0].differences + halves[1].differences, end


def decode(data: bytes) -> list[list[int]]:
    """Samples of every lead of a whole stream."""
    tables = read_tables()
    leads: list[list[int]] = []
    while data:
        count, n = data[4], int.from_bytes(data[6:8], "little")
        end = 17 + int.from_bytes(data[8:11], "little")
        assert data[:4] == b"APW\x01"
        assert zlib.crc32(data[:end]) == int.from_bytes(data[end : end + 4], "little")
        leads = leads or [[] for _ in range(count)]
        for lead, samples in zip(leads, _decode_body(data[17:end], count, n, tables) if n else [], strict=False):
            lead.extend(samples)
        data = data[end + 4 :]
    return leads


def _decode_body(body: bytes, count: int, n: int, tables: Tables) -> list[list[int]]:
    leads: list[list[int]] = []
    differences: list[list[int]] = []
    for _ in range(count):
        kind = body[0]
        a, b = (body[1], body[2]) if kind else (0, 0)
        body = body[3 if kind else 1 :]
        form, body = body[0], body[1:]
        change = [0] * n
        if form == 2:
            samples, change, size = _predicted(body, n, differences, tables)
        else:
            size = 4 * (n if form == 0 else 1)
            samples = [int.from_bytes(body[4 * i : 4 * i + 4], "little", signed=True) for i in range(size // 4)]
            samples *= n if form == 1 else 1
        body = body[size:]
        if kind:
            sign_a, sign_b, halved = (kind - 1) // 6 - 1, (kind - 1) // 2 % 3 - 1, (kind - 1) % 2
            samples = [
                int32(v + ((sign_a * p + sign_b * q) >> halved))
                for v, p, q in zip(samples, leads[a], leads[b], strict=True)
            ]
        leads.append(samples)
        differences.append(change)
    assert not body
    return leads
