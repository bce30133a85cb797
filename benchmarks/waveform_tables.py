"""Makes kernels/_codec_tables.h: how often each residual comes up, by context, over the recordings in AIDPOST_DATA.

Without data (`--model`) the tables come from a two-sided geometric distribution alone, which is also what the counts
are
mixed with, so that nothing is impossible. Run from the repository's top: python benchmarks/waveform_tables.py
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

CONTEXTS, SYMBOLS, BITS = 24, 48, 11
LIMIT = np.repeat([8, 8, 12, 24, 40, 47], 4)  # what is larger is sent as it is, after this symbol
OUT = Path("kernels/_codec_tables.h")


def geometric() -> np.ndarray:
    """Counts of 1000 by context, from the mean magnitude that the context stands for."""
    context = np.arange(CONTEXTS)
    mean = 2.0 ** (context // 4 - 3) * (1 + (context % 4 + 0.5) / 4)
    ratio = (mean / (1 + mean))[:, None]
    p = (1 - ratio) * ratio ** np.arange(SYMBOLS)
    return fold_tail(1000 * p)


def fold_tail(counts: np.ndarray) -> np.ndarray:
    """Counts of the symbols up to each context's limit, the limit standing for all beyond."""
    above = np.arange(SYMBOLS) > LIMIT[:, None]
    counts[np.arange(CONTEXTS), LIMIT] += np.where(above, counts, 0).sum(1)
    return np.where(above, 0, counts)


def counted(paths: list[np.ndarray]) -> np.ndarray:
    from aidpost.kernels import _codec

    counts = np.zeros((CONTEXTS, SYMBOLS))
    for lead in paths:
        weight = np.zeros(16, np.int8)
        for start in range(0, len(lead), 8192):
            piece = np.ascontiguousarray(lead[start : start + 8192], np.int32)
            for _ in range(1 if start else 2):
                _, coded, final = _codec.contexts(piece, weight, 7, 0)
                weight = np.frombuffer(final, np.int8)
            coded = np.delete(
                np.frombuffer(coded, np.uint16), [0, (len(piece) + 1) // 2]
            )  # what starts a half is not coded
            np.add.at(counts, (coded >> 8, coded & 255), 1)
    return fold_tail(counts)


def quantise(counts: np.ndarray) -> np.ndarray:
    """Frequencies that sum to 2^BITS in each context, none zero: always give the next unit to where it saves most
    bits."""
    total = 1 << BITS
    used = np.arange(SYMBOLS) <= LIMIT[:, None]
    frequency = used * np.maximum(1, np.floor(counts / counts.sum(1, keepdims=True) * (total - SYMBOLS))).astype(int)
    for row, weight in zip(frequency, counts, strict=True):
        while row.sum() < total:
            row[np.argmax(weight * np.log2((row + 1) / np.maximum(row, 1)))] += 1
    return frequency


def leads_of(data: Path) -> list[np.ndarray]:
    import wfdb

    records = sorted(data.glob("ecg/mitdb/*.hea")) + sorted(data.glob("ecg/ludb/*.hea"))
    leads = []
    for header in records:
        signal = wfdb.rdrecord(str(header.with_suffix("")), physical=False).d_signal
        leads += [lead for i, lead in enumerate(signal.T[:, :60000]) if signal.shape[1] < 12 or i not in (2, 3, 4, 5)]
    cinc = np.load(data / "ecg/cinc2017/cinc2017.npz")
    signal, offset = cinc["signal_uv"], cinc["offset"]
    return leads + [signal[offset[i] : offset[i + 1]] for i in range(0, len(offset) - 1, 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="store_true", help="the distribution alone, without recordings")
    counts = geometric()
    if not parser.parse_args().model:
        counts = counts / 10 + counted(leads_of(Path(os.environ.get("AIDPOST_DATA", "../shared/data"))))
    OUT.write_text(written(quantise(counts)))


def written(frequency: np.ndarray) -> str:
    """The header that holds them."""
    rows = ["    {" + ", ".join(map(str, row)) + "}," for row in frequency]
    return (
        "/* Made by benchmarks/waveform_tables.py from MIT-BIH, LUDB and CinC 2017 recordings. "
        "Changing it changes the format. */\n"
        f"#define CONTEXTS {CONTEXTS}\n#define SYMBOLS {SYMBOLS}\n#define PROBABILITY_BITS {BITS}\n"
        "static const uint16_t FREQUENCY[CONTEXTS][SYMBOLS] = {\n"
        + "\n".join(rows)
        + "\n};\n"
        + f"static const uint8_t LIMIT[CONTEXTS] = {{{', '.join(map(str, LIMIT))}}};\n"
    )


if __name__ == "__main__":
    main()
