"""QR codes and barcodes held before a camera: the number on a patient's card or wristband, or on a printed report."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np

LOOK_S = 10.0
MOST = 100


def read_code(picture: bytes) -> str:
    """The text of a QR code or barcode (EAN, UPC) in an encoded picture; empty where there is none."""
    grey = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE) if picture else None
    if grey is None:
        return ""
    text, *_ = cv2.QRCodeDetector().detectAndDecode(grey)
    if not text:
        text = _barcode(grey) or _barcode(cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return "".join(letter for letter in text if letter.isprintable())[:MOST]


def _barcode(grey: cv2.typing.MatLike) -> str:
    """Of EAN-8, EAN-13 or UPC; OpenCV finds bars of one to three pixels best."""
    _, texts, *_ = cv2.barcode.BarcodeDetector().detectAndDecodeWithType(grey)
    return next(filter(None, texts), "")


def look_for_code(look: Callable[[], bytes | None], seconds: float = LOOK_S) -> str | None:
    """The first code that a camera sees within `seconds`; empty where it sees none, None where it has no live
    picture."""
    until = time.monotonic() + seconds
    while (picture := look()) is not None:
        if text := read_code(picture):
            return text
        if time.monotonic() >= until:
            return ""
    return None
