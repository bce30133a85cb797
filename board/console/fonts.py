"""Which font of this device has a letter, and text set with it as a picture, for paper.

The fonts are those of Debian: DejaVu (Latin, Greek, Cyrillic, Arabic), Droid Sans Fallback or WenQuanYi (Chinese), Noto
for other scripts. What is printed is embedded: the reader's machine needs no font. Scripts whose letters join, change
places or run from the right are shaped by HarfBuzz (Raqm, in Pillow), and go on the paper as a picture.
"""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont, features
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont

FOLDER = Path("/usr/share/fonts/truetype")
_FILES = (
    "dejavu/DejaVuSans.ttf",
    "droid/DroidSansFallbackFull.ttf",
    "wqy/wqy-microhei.ttc",
    "wqy/wqy-zenhei.ttc",
    "noto/NotoSans*-Regular.ttf",
)
_BOLD = {"DejaVuSans": "dejavu/DejaVuSans-Bold.ttf"}


class Face(NamedTuple):
    """A font: its name in a PDF, its file, and the letters that it has."""

    name: str
    path: Path
    letters: frozenset[int]


class Fonts:
    """The fonts below a folder, in the order in which they are asked."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._faces: list[Face] | None = None

    def runs(self, text: str) -> list[tuple[Face, str]] | None:
        """The text in pieces of one font each; None where no font has one of its letters."""
        out: list[tuple[Face, str]] = []
        for letter in text:
            blank = letter.isspace() or unicodedata.category(letter) == "Cf"
            face = out[-1][0] if out and (blank or ord(letter) in out[-1][0].letters) else self._having(letter)
            if face is None:
                return None
            if out and out[-1][0] is face:
                out[-1] = (face, out[-1][1] + letter)
            else:
                out.append((face, letter))
        return out

    def _having(self, letter: str) -> Face | None:
        wanted = ord(" " if letter.isspace() else letter)
        return next((one for one in self._found() if wanted in one.letters), None)

    def _found(self) -> list[Face]:
        if self._faces is None:
            paths = [path for pattern in _FILES for path in sorted(self._folder.glob(pattern))]
            self._faces = [face for path in paths if (face := _face(path)) is not None]
        return self._faces

    def bold(self, face: Face) -> Path:
        """The face's bold file; its own where there is none."""
        path = self._folder / _BOLD.get(face.name, "")
        return path if path.is_file() else face.path


@functools.cache
def _face(path: Path) -> Face | None:
    try:
        font = TTFont(path.stem, str(path))
    except (TTFError, OSError):
        return None  # not a font that a PDF can hold
    pdfmetrics.registerFont(font)
    return Face(path.stem, path, frozenset(font.face.charToGlyph))


def chinese(text: str) -> bool:
    """Whether lines of it may break between any two letters."""
    return any("\u2e80" <= letter <= "\ud7ff" or "\uf900" <= letter <= "\ufaff" for letter in text)


def joined(text: str) -> bool:
    """Whether its letters join, change places, or run from the right."""
    return any(
        unicodedata.bidirectional(letter) in ("R", "AL")
        or "\u0900" <= letter <= "\u109f"
        or "\u1780" <= letter <= "\u17ff"
        for letter in text
    )


class Setter:
    """Sets text as pictures. `rtl`: the language runs from the right, and so do its lines."""

    def __init__(self, fonts: Fonts, *, rtl: bool = False) -> None:
        self._fonts, self._rtl = fonts, rtl
        self._shapes = features.check("raqm") and features.check("fribidi")

    def can(self, text: str) -> bool:
        """Whether the fonts have its letters, and they can be joined where they must be."""
        return self._fonts.runs(text) is not None and (self._shapes or not joined(text))

    def picture(self, text: str, width: int, size: int, *, bold: bool = False, centred: bool = False) -> Image.Image:
        """The text in lines of at most `width` pixels, black on white, 8 bits; `size` is the letters' height."""
        lines = self._lines(text, width, size, bold)
        step = round(size * 1.3)
        page = Image.new("L", (width, max(1, len(lines)) * step), 255)
        pen = ImageDraw.Draw(page)
        for number, line in enumerate(lines):
            length = self._length(line, size, bold)
            spare = max(0, width - length)
            x = spare / 2 if centred else spare if self._rtl else 0
            self._draw(pen, line, (x, number * step), size, bold)
        return page

    def _pieces(self, line: str, size: int, bold: bool) -> list[tuple[Any, str]]:
        runs = self._fonts.runs(line) or []
        return [(_sized(self._fonts.bold(face) if bold else face.path, size), piece) for face, piece in runs]

    def _length(self, line: str, size: int, bold: bool) -> float:
        return sum(float(font.getlength(piece, **self._how())) for font, piece in self._pieces(line, size, bold))

    def _how(self) -> dict[str, Any]:
        return {"direction": "rtl" if self._rtl else "ltr"} if self._shapes else {}

    def _draw(self, pen: ImageDraw.ImageDraw, line: str, at: tuple[float, float], size: int, bold: bool) -> None:
        x, y = at
        pieces = self._pieces(line, size, bold)
        for font, piece in reversed(pieces) if self._rtl else pieces:
            pen.text((x, y + size), piece, fill=0, font=font, anchor="ls", **self._how())
            x += float(font.getlength(piece, **self._how()))

    def _lines(self, text: str, width: int, size: int, bold: bool) -> list[str]:
        out = []
        for paragraph in text.split("\n"):
            line = ""
            for word in _words(paragraph):
                if line and self._length((line + word).rstrip(), size, bold) > width:
                    out.append(line.rstrip())
                    line = ""
                while self._length(word.rstrip(), size, bold) > width and len(word) > 1:
                    fit = next(
                        (n for n in range(len(word) - 1, 1, -1) if self._length(word[:n], size, bold) <= width), 1
                    )
                    out.append(word[:fit])
                    word = word[fit:]
                line += word
            out.append(line.rstrip())
        return out


def _words(text: str) -> list[str]:
    """Pieces after which a line may end: words with the blank behind them, and each Chinese letter with the marks that
    belong to it."""
    out: list[str] = []
    for letter in text:
        sticks = bool(out) and not out[-1].endswith(" ") and not chinese(letter) and not chinese(out[-1][-1])
        closing = bool(out) and letter in "，。：；、）？！%)”"
        if out and (letter == " " or sticks or closing):
            out[-1] += letter
        else:
            out.append(letter)
    return out


@functools.lru_cache(64)
def _sized(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)
