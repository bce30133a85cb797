"""QR codes and barcodes held before a camera: the number on a patient's card or wristband, or on a printed report."""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

LOOK_S = 10.0
MOST = 100


FORMATS = ("QRCode", "Code128", "DataMatrix", "EAN13", "EAN8", "UPCA", "UPCE")
"""What zxing-cpp looks for: codes with a check of their own. Code 39 and ITF have none, and a misread one is a wrong
number."""


def read_code(picture: bytes) -> str:
    """The text of a QR code or barcode in an encoded picture; empty where there is none.

    With zxing-cpp (the extra `codes`) those of `FORMATS`, however they lie; else what OpenCV knows: QR, EAN and UPC.
    """
    grey = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE) if picture else None
    if grey is None:
        return ""
    zxing = _zxing()
    text = _with_opencv(grey) if zxing is None else _with_zxing(zxing, grey)
    return "".join(letter for letter in text if letter.isprintable())[:MOST]


@functools.cache
def _zxing() -> Any | None:
    try:
        return importlib.import_module("zxingcpp")
    except ImportError:  # there is no wheel for every board
        return None


def _with_zxing(zxing: Any, grey: cv2.typing.MatLike) -> str:
    wanted = tuple(getattr(zxing.BarcodeFormat, name) for name in FORMATS)
    # what lies askew by more than some degrees is found once the picture is turned
    for turned in (grey, *(_turned(grey, degrees) for degrees in (30, -30))):
        found = zxing.read_barcodes(turned, formats=wanted, text_mode=zxing.TextMode.Plain)
        if found:
            return str(found[0].text)
    return ""


def _turned(grey: cv2.typing.MatLike, degrees: float) -> cv2.typing.MatLike:
    height, width = grey.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(grey, matrix, (width, height), borderValue=(255,))


def _with_opencv(grey: cv2.typing.MatLike) -> str:
    text, *_ = cv2.QRCodeDetector().detectAndDecode(grey)
    return text or _barcode(grey) or _barcode(cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


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
