"""The screen's languages: one gettext catalogue a language, read as it is, with no compiled copy.

A new language is one file `<code>.po`, in `languages/` or in a folder that `console.languages_dir` names; what
languages call themselves and which way they are written comes from Unicode's own data (CLDR, through Babel). English is
the key.
What the device put together in English long ago (a report's text, an error) is taken apart again by the catalogue's own
templates, so that an old report is read in today's language.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from string import Formatter

FOLDER = Path(__file__).with_name("languages")
_HOLE = re.compile(r"\{[^{}]*\}")
_LETTERS = 6
"""Letters that a template must have of its own, to be looked for in a text that was put together."""

Translate = Callable[[str], str]


def N_(text: str) -> str:
    """Marks a text for the catalogues; it is translated where it is shown."""
    return text


def holes(text: str) -> list[str] | None:
    """The placeholders of a template, sorted; None where it is no template."""
    try:
        return sorted(f"{name}:{form}" for _, name, form, _ in Formatter().parse(text) if name is not None)
    except ValueError:
        return None


class Languages:
    """The languages that there are.

    Parameters
    ----------
    more
        A folder with further catalogues; one of the same name as ours goes before it.
    """

    def __init__(self, more: str = "") -> None:
        self._folders = [FOLDER, *([Path(more)] if more else [])]
        self.names = {"en": "English"} | {code: own_name(code) for code in sorted(self._files())}
        self._translators: dict[str, Translate] = {}

    def _files(self) -> dict[str, Path]:
        from babel import UnknownLocaleError

        found: dict[str, Path] = {}
        for path in (path for folder in self._folders for path in folder.glob("*.po")):
            try:
                own_name(path.stem)
            except (ValueError, UnknownLocaleError):
                continue  # a file that is named after no language
            found[path.stem] = path
        return found

    def translator(self, language: str) -> Translate:
        """English -> the language; a text without a translation stays as it is."""
        if language not in self._translators:
            path = self._files().get(language)
            self._translators[language] = Translator(catalogue(path) if path else {})
        return self._translators[language]


def own_name(code: str) -> str:
    """What a language calls itself. Raises ValueError or babel.UnknownLocaleError where there is none."""
    from babel import Locale

    name = Locale.parse(code).get_display_name() or code
    return name[:1].upper() + name[1:]


def direction(code: str) -> str:
    """ "rtl" or "ltr"."""
    from babel import Locale

    return str(Locale.parse(code).text_direction)


def catalogue(path: Path) -> dict[str, str]:
    """English -> that language. An entry that is unfinished, or whose placeholders are not those of the English, is not
    in it and shows in English; so does everything where the file cannot be read."""
    from babel.messages.pofile import PoFileError, read_po

    try:
        with path.open("rb") as file:
            read = read_po(file, abort_invalid=True)
    except (OSError, ValueError, PoFileError):
        return {}
    entries = {str(one.id): str(one.string) for one in read if one.id and one.string and not one.fuzzy}
    return {key: text for key, text in entries.items() if holes(key) == holes(text)}


def _hole_name(hole: str) -> str:
    return hole.partition(":")[0].strip("{}")


def _fill(template: str, values: dict[str, str]) -> str:
    return _HOLE.sub(lambda hole: values[_hole_name(hole[0])], template)


class Translator:
    """English -> a language."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = known
        self._composed = functools.lru_cache(512)(self._take_apart)

    def __call__(self, text: str) -> str:
        """The translation; the text itself where there is none."""
        if not self._known or not text:
            return text
        return self._known.get(text) or self._composed(text)

    @functools.cached_property
    def _templates(self) -> list[tuple[re.Pattern[str], list[str], str]]:
        """Those with placeholders, the most particular first."""
        found = []
        for key, text in self._known.items():
            pieces = _HOLE.split(key)
            if len(pieces) > 1 and sum(map(str.isalpha, "".join(pieces))) >= _LETTERS:
                names = list(map(_hole_name, _HOLE.findall(key)))
                pattern = re.compile("(.*?)".join(map(re.escape, pieces)), re.DOTALL)
                found.append((pattern, names, text))
        return sorted(found, key=lambda one: -len(one[0].pattern))

    def _take_apart(self, text: str) -> str:
        for pattern, names, template in self._templates:
            if match := pattern.fullmatch(text):
                values = dict(zip(names, map(self, match.groups()), strict=True))
                return _fill(template, values)
        head, colon, rest = text.partition(": ")
        if colon and head in self._known:
            return f"{self._known[head]}: {self(rest)}"
        for mark in ("; ", ", "):
            parts = text.split(mark)
            if len(parts) > 1 and all(part in self._known for part in parts):
                return mark.join(map(self, parts))
        return text
