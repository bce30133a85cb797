"""The fundus kernels beside OpenCV, same input, same run, one thread.

The peer of the fused pass is the fastest OpenCV formulation found of the same result: a masked box mean (its counts
given), difference, mean magnitude, gain to int8, mask. Run from the repository's top: python
benchmarks/fundus_kernels.py
Photographs of 4288 x 2848 are looked for in AIDPOST_DATA, default ../shared/data.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from aidpost.kernels import _fundus, _fundus_geometry, fundus

REPEATS = 40


def best_ms(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Shortest of several runs, in CPU ms: what the machine can do when nobody else wants it."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def window_counts(mask: np.ndarray, half: int) -> np.ndarray:
    """Visible pixels of each window, for three channels: given to the peer, since it depends on the mask alone."""
    window = (2 * half + 1, 2 * half + 1)
    count = cv2.boxFilter(mask, cv2.CV_32F, window, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return cv2.merge([cv2.max(count, 1)] * 3)


def opencv_normalise(pixels: np.ndarray, mask: np.ndarray, counts: np.ndarray, half: int) -> np.ndarray:
    """`normalise_int8` in OpenCV calls, without the measures; mask uint8 0 or 1."""
    window = (2 * half + 1, 2 * half + 1)
    masked = cv2.bitwise_and(pixels, pixels, mask=mask)
    total = cv2.boxFilter(masked, cv2.CV_32F, window, normalize=False, borderType=cv2.BORDER_CONSTANT)
    difference = cv2.subtract(pixels, cv2.divide(total, counts), dtype=cv2.CV_32F)
    magnitude = cv2.mean(cv2.absdiff(difference, 0), mask)
    gains = [min(16.0, 18 / (m + 0.5)) for m in magnitude[:3]]
    scaled = cv2.multiply(difference, (*gains, 0), dtype=cv2.CV_8S)
    return cv2.bitwise_and(scaled, scaled, mask=mask)


def fused_rows(photo: bytes) -> None:
    print("| fused pass | ours ms | without measures | OpenCV ms | OpenCV / ours | OpenCV / without | differ > 1 LSB |")
    print("|---|---|---|---|---|---|---|")
    for size in (256, 512, 1024):
        decoded = fundus.decode(photo, size)
        assert decoded.field is not None
        pixels, circle = fundus.crop(decoded.rgb, decoded.field, size)
        lo, hi = _fundus_geometry.spans(circle, size)
        x = np.arange(size)
        mask = ((x >= lo[:, None]) & (x < hi[:, None])).astype(np.uint8)
        n, half = int(mask.sum()), size // 16
        counts = window_counts(mask, half)
        table = _fundus_geometry.table(fundus.INPUT_SCALE, 0)

        def bare(pixels=pixels, lo=lo, hi=hi, n=n, size=size, half=half, table=table) -> None:
            difference, magnitude = np.empty((size, size, 3), np.int16), np.zeros(3, np.int64)
            _fundus.local_difference(pixels, lo, hi, half, difference, magnitude)
            gain = np.tile(_fundus_geometry.gains(magnitude, n), size)
            _fundus.quantise(difference, lo, hi, gain, *table, np.empty((size, size, 3), np.int8))

        ours = best_ms(lambda p=pixels, c=circle: fundus.normalise_int8(p, c))
        without = best_ms(bare)
        peer = best_ms(lambda p=pixels, m=mask, c=counts, h=half: opencv_normalise(p, m, c, h))
        peers = opencv_normalise(pixels, mask, counts, half)
        gap = np.abs(fundus.normalise_int8(pixels, circle)[0].astype(int) - peers)
        cells = [f"{v:.2f}" for v in (ours, without, peer, peer / ours, peer / without)]
        print(f"| {size} | " + " | ".join(cells) + f" | {(gap > 1).sum()} |")


def path_rows(photo: bytes) -> None:
    encoded = np.frombuffer(photo, np.uint8)
    full = best_ms(lambda: cv2.imdecode(encoded, cv2.IMREAD_COLOR), 12)
    print(f"\nimdecode at full size: {full:.1f} ms\n")
    print(
        "| JPEG to int8 | whole ms | of imdecode | decode + field | field alone | crop | INTER_AREA crop | normalise |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in (256, 512, 1024):
        decoded = fundus.decode(photo, size)
        field = decoded.field
        assert field is not None
        pixels, circle = fundus.crop(decoded.rgb, field, size)
        half = int(0.975 * field.r)
        y, x = max(int(field.cy) - half, 0), max(int(field.cx) - half, 0)
        box = decoded.rgb[y : y + 2 * half, x : x + 2 * half]

        def whole(size: int = size) -> object:
            d = fundus.decode(photo, size)
            assert d.field is not None
            return fundus.normalise(d.rgb, d.field, size)

        row = [
            best_ms(whole, 12),
            best_ms(lambda s=size: fundus.decode(photo, s), 12),
            best_ms(lambda d=decoded: fundus.field_of_view(d.rgb)),
            best_ms(lambda d=decoded, f=field, s=size: fundus.crop(d.rgb, f, s)),
            best_ms(lambda b=box, s=size: cv2.resize(b, (s, s), interpolation=cv2.INTER_AREA)),
            best_ms(lambda p=pixels, c=circle: fundus.normalise_int8(p, c)),
        ]
        cells = [f"{row[0]:.1f}", f"{row[0] / full:.2f}", *(f"{ms:.2f}" for ms in row[1:])]
        print(f"| {size} | " + " | ".join(cells) + " |")


def main() -> None:
    cv2.setNumThreads(1)
    folder = Path(os.environ.get("AIDPOST_DATA", "../shared/data")) / "fundus/fullres"
    photo = min(folder.glob("*.jpg")).read_bytes()
    fused_rows(photo)
    path_rows(photo)


if __name__ == "__main__":
    main()
