"""The simulated patient: the same for a seed, marked as simulated, and like what it stands for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.photograph import inspect_photo
from aidpost.firmware_bridge.simulators.ecg import LEADS, RHYTHMS, Noise, simulate_ecg
from aidpost.firmware_bridge.simulators.fundus import GRADES, Flaws, render_fundus
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import Eye, Origin, VitalKind


def test_the_same_seed_gives_the_same_patient(clock: Clock) -> None:
    def ecg(seed: int) -> np.ndarray:
        return open_source(f"sim:ecg?seconds=3&seed={seed}", clock=clock).read_ecg().samples

    np.testing.assert_array_equal(ecg(4), ecg(4))
    assert not np.array_equal(ecg(4), ecg(5))
    photos = [open_source("sim:fundus?size=128&seed=2", clock=clock).read_photo() for _ in range(2)]
    assert photos[0].encoded == photos[1].encoded
    assert photos[0].id != photos[1].id


def test_everything_simulated_is_marked(clock: Clock) -> None:
    assert open_source("sim:ecg", clock=clock).read_ecg(1).origin is Origin.SIMULATED
    assert open_source("sim:fundus?size=64", clock=clock).read_photo().origin is Origin.SIMULATED
    assert {v.origin for v in open_source("sim:vitals", clock=clock).read_vitals()} == {Origin.SIMULATED}


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_each_rhythm_has_its_length_and_finite_samples(rhythm: str) -> None:
    ecg = simulate_ecg(rhythm, seconds=10, fs_hz=250, leads=LEADS)
    assert ecg.millivolts.shape == (12, 2500)
    assert np.isfinite(ecg.millivolts).all()
    assert all(0 <= r < 2500 for r in ecg.r_peaks)


def test_the_rate_is_the_one_asked_for() -> None:
    for rate in (45, 72, 150):
        ecg = simulate_ecg(seconds=60, rate_bpm=rate)
        assert 60 * 300 / np.diff(ecg.r_peaks).mean() == pytest.approx(rate, rel=0.03)


def test_r_peaks_are_where_the_signal_is_highest() -> None:
    ecg = simulate_ecg(seconds=20, leads=("II",), noise=Noise(wander_mv=0, white_mv=0))
    for peak in ecg.r_peaks[1:-1]:
        around = ecg.millivolts[0, peak - 20 : peak + 21]
        assert abs(int(np.argmax(around)) - 20) <= 1


def test_fibrillation_is_irregular_and_sinus_is_not() -> None:
    def variation(rhythm: str) -> float:
        rr = np.diff(simulate_ecg(rhythm, seconds=120).r_peaks)
        return float(np.std(rr) / np.mean(rr))

    assert variation("sinus") < 0.06
    assert variation("af") > 0.15


def test_pvcs_are_early_wide_and_labelled() -> None:
    ecg = simulate_ecg("pvc", seconds=120)
    rr = np.diff(ecg.r_peaks)
    ventricular = [n for n, label in enumerate(ecg.labels) if label == "V" and n]
    assert len(ventricular) > 5
    assert np.mean(rr[[n - 1 for n in ventricular]]) < 0.75 * np.median(rr)


def test_einthovens_law_holds_between_the_limb_leads() -> None:
    ecg = simulate_ecg(seconds=5, leads=("I", "II", "III"), noise=Noise(wander_mv=0, white_mv=0))
    one, two, three = ecg.millivolts
    np.testing.assert_allclose(one + three, two, atol=1e-12)


def test_lead_off_and_noise_options(clock: Clock) -> None:
    recording = open_source("sim:ecg?lead_off=1-2&seconds=5&leads=I,II&fs=250", clock=clock).read_ecg()
    assert recording.lead_off == ((0, 250, 500), (1, 250, 500))
    loud = open_source("sim:ecg?muscle=0.5&seconds=5", clock=clock).read_ecg()
    quiet = open_source("sim:ecg?seconds=5", clock=clock).read_ecg()
    assert np.diff(loud.millivolts(0)).std() > 5 * np.diff(quiet.millivolts(0)).std()


@pytest.mark.parametrize("eye", list(Eye))
def test_the_disc_is_bright_and_nasal_and_the_fovea_dark(eye: Eye) -> None:
    green = cv2.GaussianBlur(render_fundus(eye=eye, size=320)[..., 1].astype(np.float32), (0, 0), 6)
    y, x = np.unravel_index(int(np.argmax(green)), green.shape)
    assert bool(x > 160) is (eye is Eye.RIGHT)
    assert 90 < y < 230
    assert green[160, 160] < np.median(green[green > 30])
    assert green[2, 2] < 5


def test_lesions_change_the_picture_where_they_are() -> None:
    plain, ill = render_fundus(size=320, seed=3), render_fundus(size=320, seed=3, lesions=GRADES[3])
    changed = np.abs(plain.astype(int) - ill).max(axis=2) > 25
    assert 0.005 < changed.mean() < 0.4


def test_flaws_blur_and_darken() -> None:
    def sharpness(flaws: Flaws) -> float:
        return float(
            cv2.Laplacian(render_fundus(size=320, flaws=flaws)[..., 1][80:240, 80:240], cv2.CV_64F, ksize=3).std()
        )

    assert render_fundus(size=320, flaws=Flaws(darkness=0.8)).mean() < 0.4 * render_fundus(size=320).mean()
    edges = [
        np.abs(np.diff(render_fundus(size=320, flaws=f)[..., 1].astype(float), axis=0)).max()
        for f in (Flaws(), Flaws(blur=12))
    ]
    assert edges[1] < 0.75 * edges[0]
    assert sharpness(Flaws()) > 0


def test_the_encoded_photograph_is_whole(clock: Clock) -> None:
    for form, kind in (("jpeg", "image/jpeg"), ("png", "image/png")):
        photo = open_source(f"sim:fundus?size=200&format={form}&grade=4", clock=clock).read_photo(Eye.LEFT)
        info = inspect_photo(photo.encoded, source="sim")
        assert (info.media_type, info.width, photo.media_type, photo.eye) == (kind, 200, kind, Eye.LEFT)


def test_vital_signs_are_plausible_together(clock: Clock) -> None:
    for profile in ("healthy", "hypertensive", "diabetic", "septic"):
        for seed in range(20):
            values = {
                v.kind: v.value
                for v in open_source(f"sim:vitals?profile={profile}&seed={seed}", clock=clock).read_vitals()
            }
            assert values[VitalKind.SYSTOLIC_BP] > values[VitalKind.DIASTOLIC_BP] + 15
            assert 80 <= values[VitalKind.SPO2] <= 100
            assert 3 < values[VitalKind.GLUCOSE] < 25
