#!/usr/bin/env bash
# The fundus kernels built without AVX2, beside OpenCV as it is and OpenCV held to its own baseline, in one go.
# The build is a copy in build/baseline: the kernels that are in use stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$PWD/.venv/bin/python}
copy=build/baseline
rm -rf "$copy" && mkdir -p "$copy"
cp -a aidpost kernels inference firmware_bridge sync board benchmarks setup.py pyproject.toml README.md LICENSE "$copy/"
find "$copy/kernels" -name '*.so' -delete
export AIDPOST_DATA=${AIDPOST_DATA:-$PWD/../shared/data}
cd "$copy"
AIDPOST_CFLAGS=-DAIDPOST_NO_CLONES "$python" setup.py -q build_ext --inplace -j"$(nproc)"
export PYTHONPATH=$PWD
printf '\nOurs without AVX2, OpenCV with all it has:\n\n'
"$python" benchmarks/fundus_kernels.py
printf '\nBoth without AVX2:\n\n'
OPENCV_CPU_DISABLE=AVX2,AVX512-SKX,FP16,AVX,FMA3 "$python" benchmarks/fundus_kernels.py
