"""The waveform codec beside FLAC level 8 and zstd level 19, on the recordings in AIDPOST_DATA; one core, same run.

Ratios are of raw int16, speeds of raw int16 too; the shortest of several runs counts, in CPU time. FLAC (libsndfile)
takes at most eight channels, so twelve leads go as six and six.

Run from the repository's top: python benchmarks/waveform_codec.py [--all]
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import wfdb
import zstandard

from aidpost.kernels import codec


def recordings(data: Path, step: int) -> dict[str, list[np.ndarray]]:
    def read(header: Path) -> np.ndarray:
        return np.ascontiguousarray(
            wfdb.rdrecord(str(header.with_suffix("")), physical=False).d_signal.T.astype(np.int16)
        )

    cinc = np.load(data / "ecg/cinc2017/cinc2017.npz")
    signal, offset = cinc["signal_uv"], cinc["offset"]
    return {
        "MIT-BIH": [read(h) for h in sorted(data.glob("ecg/mitdb/*.hea"))[::step]],
        "CinC 2017": [signal[None, offset[i] : offset[i + 1]] for i in range(0, len(offset) - 1, 10 * step)],
        "LUDB": [read(h) for h in sorted(data.glob("ecg/ludb/*.hea"))[::step]],
    }


def flac(samples: np.ndarray) -> list[bytes]:
    out = []
    for part in [samples] if len(samples) <= 8 else [samples[:6], samples[6:]]:
        buffer = io.BytesIO()
        soundfile.write(buffer, part.T, 48000, format="FLAC", subtype="PCM_16", compression_level=1.0)
        out.append(buffer.getvalue())
    return out


def unflac(parts: list[bytes]) -> None:
    for part in parts:
        soundfile.read(io.BytesIO(part), dtype="int16")


def speed(call: Callable[[], object], size: int, runs: int = 60) -> float:
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return size / min(times) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every recording, not every fifth")
    step = 1 if parser.parse_args().all else 5
    print(
        "| set | raw MB | ours | FLAC -8 | zstd -19 | ours / FLAC | encode MB/s | decode MB/s | "
        "FLAC encode | FLAC decode |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, items in recordings(Path(os.environ.get("AIDPOST_DATA", "../shared/data")), step).items():
        raw = sum(x.nbytes for x in items)
        ours = [codec.encode(x) for x in items]
        assert all(np.array_equal(codec.decode(e), x) for e, x in zip(ours, items, strict=True))
        sizes = [sum(map(len, ours)), sum(len(p) for x in items for p in flac(x))]
        sizes.append(sum(len(zstandard.compress(x.tobytes(), 19)) for x in items))
        piece = np.ascontiguousarray(items[0][:, :8192])
        mine, peer = codec.encode(piece), flac(piece)
        speeds = [
            speed(lambda p=piece: codec.encode(p), piece.nbytes),
            speed(lambda e=mine: codec.decode(e), piece.nbytes),
            speed(lambda p=piece: flac(p), piece.nbytes),
            speed(lambda e=peer: unflac(e), piece.nbytes),
        ]
        cells = [
            f"{raw / 1e6:.1f}",
            *(f"{s / raw:.4f}" for s in sizes),
            f"{sizes[0] / sizes[1]:.3f}",
            *(f"{s:.0f}" for s in speeds),
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
