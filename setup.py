"""Builds the Cython kernels; everything else is in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# -ffp-contract=off and -fsigned-char: ARM and x86-64 give the same bits (gcc fuses multiply-add and has an
# unsigned char on ARM by default). AIDPOST_CFLAGS is for the sanitizer build and -mavx2 or -mcpu=native builds.
CFLAGS = ["-O3", "-ffp-contract=off", "-fsigned-char", "-Wall", "-Wextra", "-Wno-unused-parameter"]
EXTRA = os.environ.get("AIDPOST_CFLAGS", "").split()

# the fronts have checked what the loops trust
DIRECTIVES = {"boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False}

extensions = [
    Extension(
        f"aidpost.kernels.{pyx.stem}",
        [f"aidpost/kernels/{pyx.name}"],
        extra_compile_args=CFLAGS + EXTRA,
        extra_link_args=EXTRA,
    )
    for pyx in sorted(Path("aidpost/kernels").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(extensions, build_dir="build", compiler_directives={"language_level": 3, **DIRECTIVES}),
)
