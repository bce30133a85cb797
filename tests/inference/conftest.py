"""Recordings and photographs made here, and the models that ship, for the tests of inference."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pytest

from aidpost.inference import model
from aidpost.inference.model import Models
from aidpost.records import Device, EcgRecording, Eye, FundusPhoto, Origin, Timestamp

AT = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1000, boot=1, synced=True)
SIMULATOR = Device(name="simulator")


class MakeEcg(Protocol):
    """Makes a recording of millivolts."""

    def __call__(
        self, *leads_mv: npt.ArrayLike, fs_hz: float = 250.0, names: tuple[str, ...] = ("II",)
    ) -> EcgRecording: ...


class MakePhoto(Protocol):
    """Makes a photograph of encoded bytes."""

    def __call__(self, encoded: bytes, eye: Eye | None = None) -> FundusPhoto: ...


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Public recordings; skips where they are missing."""
    folder = Path(os.environ.get("AIDPOST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public recordings at {folder} (set AIDPOST_DATA)")
    return folder


@pytest.fixture(scope="session")
def models() -> Models:
    """The models that ship, loaded once."""
    return Models()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A copy of the rhythm model's folder, to be damaged."""
    return shutil.copytree(model.SHIPPED / "ecg-rhythm", tmp_path / "models" / "ecg-rhythm")


@pytest.fixture
def make_ecg() -> MakeEcg:
    """Recordings in steps of 5 microvolts; NaN becomes a missing span of all leads."""

    def make(*leads_mv: npt.ArrayLike, fs_hz: float = 250.0, names: tuple[str, ...] = ("II",)) -> EcgRecording:
        signal = np.atleast_2d(np.array(leads_mv, dtype=np.float64))
        missing = np.isnan(signal).any(axis=0)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], missing, [False])).astype(np.int8)))
        return EcgRecording(
            id=uuid.uuid4(),
            samples=np.rint(np.nan_to_num(signal) / 0.005).astype(np.int32),
            fs_hz=fs_hz,
            leads=names,
            lsb_mv=(0.005,) * len(names),
            baseline=(0,) * len(names),
            at=AT,
            origin=Origin.SIMULATED,
            device=SIMULATOR,
            missing=tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2)),
        )

    return make


@pytest.fixture
def make_photo() -> MakePhoto:
    """Photographs by a camera that no card lists."""

    def make(encoded: bytes, eye: Eye | None = None) -> FundusPhoto:
        return FundusPhoto(
            id=uuid.uuid4(),
            encoded=encoded,
            media_type="image/jpeg",
            eye=eye,
            at=AT,
            origin=Origin.SIMULATED,
            camera=SIMULATOR,
        )

    return make


def beats_at(
    times_s: npt.ArrayLike, duration_s: float, fs_hz: float = 250.0, *, p_wave: bool = True
) -> npt.NDArray[np.float64]:
    """A lead of beats made of Gaussians, millivolts, with a little hiss: enough for rates, pauses and gates."""
    time = np.arange(round(duration_s * fs_hz)) / fs_hz
    wave = 0.005 * np.random.default_rng(7).standard_normal(time.size)
    waves = [(-0.028, 0.009, -0.1), (0.0, 0.010, 1.05), (0.028, 0.010, -0.22), (0.26, 0.05, 0.28)]
    if p_wave:
        waves.append((-0.17, 0.022, 0.12))
    for at in np.asarray(times_s, dtype=np.float64):
        for offset, width, height in waves:
            wave += height * np.exp(-0.5 * ((time - at - offset) / width) ** 2)
    return wave
