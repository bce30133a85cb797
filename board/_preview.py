"""A small picture of a photograph, sent before it: over 2G the hub shows something while the patient still waits."""

from __future__ import annotations

import cv2
import numpy as np

from aidpost.sync.bodies import MAX_PREVIEW

LONGEST_PX = 320
"""The longer side: the disc, the field and a gross defect are seen, and ten of them take 2G a few seconds."""
_QUALITIES = (60, 45, 30)


def preview(photograph: bytes) -> bytes:
    """A JPEG of at most `MAX_PREVIEW` bytes, to look at and not to grade; empty where a photograph does not decode."""
    picture = _decoded(np.frombuffer(photograph, np.uint8))
    if picture is None:
        return b""
    factor = min(1.0, LONGEST_PX / max(picture.shape[:2]))
    if factor < 1:
        size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for quality in _QUALITIES:
        done, packed = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
        if done and packed.size <= MAX_PREVIEW:
            return packed.tobytes()
    return b""


def _decoded(data: np.ndarray) -> np.ndarray | None:
    # a JPEG is decoded at an eighth of its size for little more than its entropy decoding
    for reduced in (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_COLOR):
        try:
            picture = cv2.imdecode(data, reduced)
        except cv2.error:
            return None
        if picture is None or max(picture.shape[:2]) >= LONGEST_PX:
            break
    return picture
