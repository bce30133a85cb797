"""All kernels beside their peers, one table after the other, in one go: `python benchmarks/kernels.py`.

Needs the `bench` extra and the recordings of AIDPOST_DATA. Each script may be run alone, with its own options. The ARM
columns come from `benchmarks/arm_instructions.sh`, which is run last where an emulated Python has been made before.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TABLES = (
    ("Filters, resampling, quality, R-peaks", ["ecg_kernels.py"]),
    ("R-peaks on MIT-BIH", ["qrs_mitdb.py"]),
    ("R-peaks on MIT-BIH with noise at 6 dB", ["qrs_mitdb.py", "--noise", "--peers", "sleepecg,neurokit2,xqrs"]),
    ("Waveform codec", ["waveform_codec.py"]),
    ("Waveform codec on recordings it was not fitted to", ["waveform_crossfit.py"]),
    ("Fundus", ["fundus_kernels.py"]),
    ("Shares of the stages", ["stages.py"]),
)


def main() -> None:
    here = Path(__file__).resolve().parent
    for title, (script, *options) in TABLES:
        print(f"\n## {title}\n", flush=True)
        subprocess.run([sys.executable, str(here / script), *options], check=True, cwd=here.parent)
    print("\n## Fundus on the baseline build\n", flush=True)
    subprocess.run([str(here / "fundus_baseline.sh")], check=True)
    if (here.parent / ".arm").exists():
        print("\n## Instructions on ARM\n", flush=True)
        subprocess.run([str(here / "arm_instructions.sh")], check=True)


if __name__ == "__main__":
    main()
