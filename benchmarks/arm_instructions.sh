#!/usr/bin/env bash
# Instructions that each kernel executes per sample or pixel on a Cortex-A72 (Pi 4) and a Cortex-A76 (Pi 5), counted under
# emulation (docs/kernels.md). A proxy for cost: blind to caches and to how many instructions a core does at a time.
# Needs what scripts/test-arm needs, and gcc. Usage: benchmarks/arm_instructions.sh
set -euo pipefail
source "$(dirname "$0")/../scripts/_setup"
source scripts/_arm
setup dev

version=3.13
make_root $version trixie
build_kernels $version
cp benchmarks/arm_instructions.py ".arm/$version/tree/"
${CC:-gcc} -O2 -shared -fPIC benchmarks/arm_instructions.c -o .arm/count.so
for cpu in cortex-a72 cortex-a76; do
    say "counting on $cpu"
    QEMU_PLUGIN="$PWD/.arm/count.so" emulated_python $version $cpu arm_instructions.py >".arm/$cpu.names" 2>".arm/$cpu.counts" ||
        { tail -5 ".arm/$cpu.counts" >&2; exit 1; }
done
.venv/bin/python benchmarks/arm_instructions.py .arm/cortex-a72 .arm/cortex-a76
