"""A language that nobody speaks and that is written from the right: what is still in Latin letters was forgotten."""

from __future__ import annotations

import re
from pathlib import Path

from aidpost.board.console import phrases

LETTERS = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
_HOLE = re.compile(r"(\{[^{}]*\})")


def pseudo(text: str) -> str:
    """The text with each Latin letter turned into an Arabic one; placeholders stay."""
    pieces = _HOLE.split(text)
    return "".join(piece if i % 2 else re.sub("[A-Za-z]", _letter, piece) for i, piece in enumerate(pieces))


def _letter(match: re.Match[str]) -> str:
    return LETTERS[ord(match[0]) % len(LETTERS)]


def write_catalogue(path: Path, without: str = "") -> None:
    """A whole catalogue of it, but for one text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    phrases.update(path)
    entries = path.read_text(encoding="utf-8")
    for text in phrases.phrases():
        if text != without:
            key = f'msgid "{_quoted(text)}"\nmsgstr "'
            entries = entries.replace(f'{key}"', f'{key}{_quoted(pseudo(text))}"')
    path.write_text(entries, encoding="utf-8")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
