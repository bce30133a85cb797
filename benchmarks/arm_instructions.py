"""What `arm_instructions.sh` counts. Without arguments (emulated) it runs the kernels, each between two calls of
sched_yield, at which the plugin says how many instructions have been executed, and prints their names. With the places
of what several processors said it prints the table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

FS, SECONDS = 360, 30


def work() -> list[tuple[str, str, int, Callable[[], object]]]:
    """(kernel, unit, how many of them, call)"""
    import numpy as np

    from aidpost.kernels import codec, ecg_quality, filters, fundus, resample, rpeaks

    x, samples, photo = lead(), FS * SECONDS, retina(1024)
    counts = np.rint(np.stack([x, 0.6 * x]) * 200).astype(np.int16)
    encoded, chunks = codec.encode(counts), np.split(x, range(36, samples, 36))
    sections = filters.butter_bandpass(0.5, 40, FS)
    streaming = filters.BiquadCascade(sections)
    field = fundus.field_of_view(photo)
    assert field is not None
    rows: list[tuple[str, str, int, Callable[[], object]]] = [
        ("nothing", "call", 1, lambda: None),
        ("R-peaks", "sample", samples, lambda: rpeaks.detect(x, FS)),
        (f"{len(sections)} biquads, whole", "sample", samples, lambda: filters.sosfilt(sections, x)),
        (f"{len(sections)} biquads, 36 at a time", "sample", samples, lambda: [streaming.process(c) for c in chunks]),
        ("resample 360 -> 250 Hz", "sample", samples, lambda: resample.resample(x, FS, 250)),
        ("ECG quality", "sample", samples, lambda: ecg_quality.assess(x, FS)),
        ("codec, encode", "sample", counts.size, lambda: codec.encode(counts)),
        ("codec, decode", "sample", counts.size, lambda: codec.decode(encoded)),
        ("field of view, 1024 px", "pixel", 1024**2, lambda: fundus.field_of_view(photo)),
    ]
    for size in (256, 512):
        pixels, circle = fundus.crop(photo, field, size)
        rows += [
            (f"crop to {size} px", "pixel", size**2, lambda s=size: fundus.crop(photo, field, s)),
            (f"normalise, {size} px", "pixel", size**2, lambda p=pixels, c=circle: fundus.normalise_int8(p, c)),
        ]
    return rows


def lead() -> object:
    """An ECG in mV with P, QRS and T waves at 75 a minute and some noise."""
    import numpy as np

    t = np.arange(FS * SECONDS) / FS
    x = np.random.default_rng(0).normal(0, 0.01, t.shape)
    for beat in np.arange(0.5, SECONDS - 0.4, 0.8):
        for size, delay, width in ((0.12, -0.16, 0.025), (-0.15, -0.03, 0.01), (1.1, 0, 0.011), (0.25, 0.27, 0.05)):
            x += size * np.exp(-(((t - beat - delay) / width) ** 2))
    return x


def retina(size: int) -> object:
    """(size, size, 3) uint8: a shaded disc with grain, which is what the field of view and the pass look at."""
    import numpy as np

    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    r = np.hypot(x, y) / (0.47 * size)
    shade = np.where(r < 1, 1 - 0.4 * r**2, 0)[:, :, None] * np.array([170, 90, 40])
    grain = np.random.default_rng(0).normal(0, 6, shade.shape) * (shade > 0)
    return np.clip(shade + grain, 0, 255).astype(np.uint8)


def run() -> None:
    for name, unit, units, call in work():
        call()
        os.sched_yield()
        call()
        os.sched_yield()
        print(name, unit, units, sep="\t")


def table(said: list[Path]) -> None:
    columns = []
    for place in said:
        lines = place.with_suffix(".counts").read_text().splitlines()
        counts = [int(line.split()[1]) for line in lines if line.startswith("count ")]
        columns.append([after - before for before, after in zip(counts[::2], counts[1::2], strict=True)])
    names = [line.split("\t") for line in said[0].with_suffix(".names").read_text().splitlines()]
    print(f"| kernel | per | {' | '.join(place.name for place in said)} |\n|---|---|{'---|' * len(said)}")
    for row, (name, unit, units) in enumerate(names[1:], 1):
        cells = [f"{(column[row] - column[0]) / int(units):.1f}" for column in columns]
        print(f"| {name} | {unit} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        table([Path(argument) for argument in sys.argv[1:]])
    else:
        run()
