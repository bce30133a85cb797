"""The screen's languages: one gettext catalogue a language in `languages/`, read as it is, with no compiled copy.

A new language is one file `languages/<code>.po`; a test names what it lacks. English is the key.
"""

from __future__ import annotations

import functools
from pathlib import Path

FOLDER = Path(__file__).with_name("languages")
NAMES = {"en": "English", "zh": "中文", "es": "Español", "fr": "Français", "ar": "العربية"}
"""What languages call themselves; one without a catalogue is not offered."""
RIGHT_TO_LEFT = {"ar", "he", "fa", "ur", "ps"}


def available() -> dict[str, str]:
    """Code -> name of the languages that there are."""
    found = {"en"} | {path.stem for path in FOLDER.glob("*.po")}
    return {code: NAMES.get(code, code) for code in (*NAMES, *sorted(found - set(NAMES))) if code in found}


@functools.cache
def catalogue(language: str) -> dict[str, str]:
    """English -> that language; an unfinished entry is not in it, and shows in English."""
    path = FOLDER / f"{language}.po"
    if language == "en" or not path.is_file():
        return {}
    from babel.messages.pofile import read_po

    with path.open("rb") as file:
        read = read_po(file)
    return {str(one.id): str(one.string) for one in read if one.id and one.string and not one.fuzzy}


def direction(language: str) -> str:
    """ "rtl" or "ltr"."""
    return "rtl" if language in RIGHT_TO_LEFT else "ltr"
