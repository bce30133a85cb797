"""`sim:ecg`, `sim:fundus` and `sim:vitals`: a simulated patient, always marked as such.

Options, all optional::

    sim:ecg      rhythm=af seconds=30 seed=1 fs=300 leads=I,II (or 12) rate=80 lead_off=5-8 (seconds; or the whole: all)
                 wander= mains= muscle= white= (millivolt RMS), mains_hz=50
    sim:fundus   grade=0..4 eye=left|right seed=1 size=1024 blur= darkness= haze= format=jpeg|png
    sim:vitals   profile=healthy|hypertensive|diabetic|septic seed=1
"""

from __future__ import annotations

import re
import uuid

import numpy as np
import numpy.typing as npt

from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.sources import BaseSource, Kind, SourceSpec
from aidpost.records import (
    VITAL_UNITS,
    Device,
    EcgRecording,
    Eye,
    FundusPhoto,
    Origin,
    VitalKind,
    VitalSign,
)

LSB_MV = 0.001
DEFAULT_SECONDS = 30.0
PREVIEW_SIDE = 384
_BLOOD_PRESSURE = {VitalKind.SYSTOLIC_BP, VitalKind.DIASTOLIC_BP, VitalKind.PULSE_RATE}


def _device(what: str) -> Device:
    return Device(name=f"simulated {what}", manufacturer="Aidpost", model=f"sim:{what}")


class SimulatedSource(BaseSource):
    """A patient who does not exist. The same options give the same measurement (with another id and time)."""

    def __init__(self, spec: SourceSpec, clock: Clock) -> None:
        super().__init__(spec, clock)
        try:
            self.kinds = frozenset({Kind(spec.address)})
        except ValueError:
            raise spec.usage_error(
                f"nothing is simulated as {spec.address!r}", "Write sim:ecg, sim:fundus or sim:vitals."
            ) from None
        self._check_options()
        self._frame: npt.NDArray[np.uint8] | None = None
        self._frames = 0
        self._readings = 0

    def _check_options(self) -> None:
        """Refuse wrong options when the source is opened, not in the middle of an exam."""
        spec = self.spec
        self._seed = int(spec.number("seed", 1, low=0, high=2**31 - 1))
        if Kind.ECG in self.kinds:
            from aidpost.firmware_bridge.simulators.ecg import RHYTHMS

            spec.require_only(
                *("rhythm", "seconds", "seed", "fs", "leads", "rate", "lead_off"),
                *("wander", "mains", "mains_hz", "muscle", "white"),
            )
            self._rhythm = spec.choice("rhythm", "sinus", RHYTHMS)
            self._leads = self._lead_names()
        elif Kind.FUNDUS in self.kinds:
            spec.require_only("grade", "eye", "seed", "size", "blur", "darkness", "haze", "format", "code")
            spec.choice("eye", "", ("", "left", "right"))
            spec.choice("format", "jpeg", ("jpeg", "png"))
        else:
            from aidpost.firmware_bridge.simulators.vitals import PROFILES

            spec.require_only("profile", "seed")
            spec.choice("profile", "healthy", PROFILES)

    def _lead_names(self) -> tuple[str, ...]:
        from aidpost.firmware_bridge.simulators.ecg import LEADS

        text = self.spec.get("leads", "I")
        names = LEADS if text == "12" else tuple(text.split(","))
        if not set(names) <= set(LEADS) or len(set(names)) < len(names):
            raise self.spec.usage_error(f"leads={text} is not a choice of {', '.join(LEADS)}")
        return names

    def read_ecg(self, seconds: float | None = None) -> EcgRecording:
        if Kind.ECG not in self.kinds:
            return super().read_ecg(seconds)
        from aidpost.firmware_bridge.simulators.ecg import Noise, simulate_ecg

        spec = self.spec
        length = spec.number("seconds", seconds or DEFAULT_SECONDS, low=0.01, high=86_400)
        rate = spec.number("rate", 0, low=0, high=400) or None
        usual = Noise()
        noise = Noise(
            wander_mv=spec.number("wander", usual.wander_mv, low=0, high=10),
            mains_mv=spec.number("mains", usual.mains_mv, low=0, high=10),
            muscle_mv=spec.number("muscle", usual.muscle_mv, low=0, high=10),
            white_mv=spec.number("white", usual.white_mv, low=0, high=10),
            mains_hz=spec.number("mains_hz", usual.mains_hz, low=1, high=1000),
        )
        fs_hz = spec.number("fs", 300, low=50, high=5000)
        ecg = simulate_ecg(
            self._rhythm, seconds=length, fs_hz=fs_hz, leads=self._leads, rate_bpm=rate, noise=noise, seed=self._seed
        )
        counts = np.round(ecg.millivolts / LSB_MV).astype(np.int32)
        lead_off = self._lead_off(counts.shape[1], fs_hz)
        for lead, start, stop in lead_off:
            counts[lead, start:stop] = 0
        return EcgRecording(
            id=uuid.uuid4(),
            samples=counts,
            fs_hz=fs_hz,
            leads=ecg.leads,
            lsb_mv=(LSB_MV,) * len(ecg.leads),
            baseline=(0,) * len(ecg.leads),
            at=self.clock.now(),
            origin=Origin.SIMULATED,
            device=_device("ecg"),
            lead_off=lead_off,
            source=str(spec),
        )

    def _lead_off(self, length: int, fs_hz: float) -> tuple[tuple[int, int, int], ...]:
        text = self.spec.get("lead_off")
        if not text:
            return ()
        span = re.fullmatch(r"(\d+\.?\d*)-(\d+\.?\d*)", text)
        if text != "all" and span is None:
            raise self.spec.usage_error(f"lead_off={text} is neither START-END in seconds nor all")
        start, stop = (0, length) if span is None else (round(float(s) * fs_hz) for s in span.groups())
        stop = min(stop, length)
        return tuple((lead, start, stop) for lead in range(len(self._leads))) if start < stop else ()

    def read_photo(self, eye: Eye | None = None) -> FundusPhoto:
        if Kind.FUNDUS not in self.kinds:
            return super().read_photo(eye)
        from aidpost.firmware_bridge.simulators.fundus import Flaws, encode_fundus, render_fundus

        spec = self.spec
        shown = Eye(spec.get("eye")) if spec.get("eye") else eye or Eye.RIGHT
        flaws = Flaws(
            blur=spec.number("blur", 0, low=0, high=100),
            darkness=spec.number("darkness", 0, low=0, high=1),
            haze=spec.number("haze", 0, low=0, high=1),
        )
        image = render_fundus(
            grade=int(spec.number("grade", 0, low=0, high=4)),
            eye=shown,
            size=int(spec.number("size", 1024, low=64, high=4096)),
            flaws=flaws,
            seed=self._seed,
        )
        png = spec.get("format") == "png"
        return FundusPhoto(
            id=uuid.uuid4(),
            encoded=encode_fundus(image, png=png),
            media_type="image/png" if png else "image/jpeg",
            eye=shown,
            at=self.clock.now(),
            origin=Origin.SIMULATED,
            camera=_device("fundus"),
            source=str(spec),
        )

    def preview(self) -> bytes:
        """A small JPEG of what a hand-held camera would see now: the same retina, never quite still; with the option
        `code`, a card with that QR code."""
        import cv2

        if text := self.spec.get("code"):
            card = cv2.copyMakeBorder(
                cv2.QRCodeEncoder.create().encode(text), 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=255
            )
            card = cv2.resize(card, (PREVIEW_SIDE, PREVIEW_SIDE), interpolation=cv2.INTER_NEAREST)
            return cv2.imencode(".jpg", card)[1].tobytes()

        from aidpost.firmware_bridge.simulators.fundus import Flaws, render_fundus

        if self._frame is None:
            spec = self.spec
            flaws = Flaws(
                blur=spec.number("blur", 0, low=0, high=100) * PREVIEW_SIDE / 1024,
                darkness=spec.number("darkness", 0, low=0, high=1),
                haze=spec.number("haze", 0, low=0, high=1),
            )
            grade = int(spec.number("grade", 0, low=0, high=4))
            eye = Eye(spec.get("eye") or "right")
            self._frame = render_fundus(grade=grade, eye=eye, size=PREVIEW_SIDE, flaws=flaws, seed=self._seed)
        self._frames += 1
        across, down = 6 * np.sin(self._frames / 7), 4 * np.sin(self._frames / 5)
        moved = cv2.warpAffine(self._frame, np.array([[1, 0, across], [0, 1, down]]), (PREVIEW_SIDE, PREVIEW_SIDE))
        return cv2.imencode(".jpg", moved, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()

    def read_vitals(self) -> list[VitalSign]:
        if Kind.VITALS not in self.kinds:
            return super().read_vitals()
        from aidpost.firmware_bridge.simulators.vitals import simulate_vitals

        at, cuff = self.clock.now(), uuid.uuid4()
        values = simulate_vitals(self.spec.get("profile", "healthy"), seed=self._seed, reading=self._readings)
        self._readings += 1
        return [
            VitalSign(
                id=uuid.uuid4(),
                kind=kind,
                value=value,
                unit=VITAL_UNITS[kind],
                at=at,
                origin=Origin.SIMULATED,
                device=_device("vitals"),
                method="simulated",
                group=cuff if kind in _BLOOD_PRESSURE else None,
                source=str(self.spec),
            )
            for kind, value in values.items()
        ]
