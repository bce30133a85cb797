"""What the screen and the paper may say, gathered from where it is said, and a catalogue held against it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from aidpost.board.console import words
from aidpost.inference import reminders, wording
from aidpost.records import ReviewDecision, Sex
from aidpost.sync.hub import catalogue

FOLDER = Path(__file__).parent
TROUBLES = (
    "it is not there",
    "Plug the board in.",
    "another program holds it",
    "the board sent nothing",
    "Re-plug the board.",
    "the camera gave no picture in {seconds} s",
    "no photograph appeared in {seconds} s",
    "there is no such folder",
    "this board has no video device",
)
"""What sensors report most often, word for word; anything else is shown in English."""
_MARKS = {"_", "tr", "N_", "_tr", "translate"}


@functools.cache
def phrases() -> dict[str, list[str]]:
    """Every text, and where it is said."""
    found: dict[str, list[str]] = {}
    for text, place in (*_templates(), *_code(), *wording.messages(), *_data()):
        if any(map(str.isalpha, text)):
            found.setdefault(text, []).append(place)
    return found


def _templates() -> Iterator[tuple[str, str]]:
    environment = jinja2.Environment(autoescape=True)
    for path in sorted((FOLDER / "templates").glob("*.html")):
        tree = environment.parse(path.read_text(encoding="utf-8"))
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name in _MARKS:
                yield from ((text, f"templates/{path.name}") for text in _texts(call.args[0]))


def _texts(node: nodes.Node) -> Iterator[str]:
    """The texts in an argument; of a table its values, of a choice both ways."""
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, nodes.Getitem):
        yield from _texts(node.node)
    elif isinstance(node, nodes.Dict):
        for pair in node.items:
            yield from _texts(pair.value)
    elif isinstance(node, nodes.CondExpr):
        yield from _texts(node.expr1)
        if node.expr2 is not None:
            yield from _texts(node.expr2)


def _code() -> Iterator[tuple[str, str]]:
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and _name(node.func) in _MARKS:
                yield from ((text, path.name) for text in _literals(node.args[0]))


def _name(function: ast.expr) -> str:
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _literals(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _literals(node.body)
        yield from _literals(node.orelse)


def _data() -> Iterator[tuple[str, str]]:
    yield from ((text, "inference/reminders.py") for text in reminders.MESSAGES)
    yield from ((text, "inference") for text in wording.words())
    for kind in (Sex, ReviewDecision):
        yield from ((one.value, "aidpost/records.py") for one in kind)
    yield from ((text, "firmware_bridge") for text in TROUBLES)
    yield from ((text, "sync/hub/catalogue.py") for text in catalogue.VITALS.values())


def wrong(path: Path) -> list[str]:
    """What a catalogue lacks or has wrong: each text that is missing, unfinished, has other placeholders, or is said no
    more."""
    from babel.messages.pofile import read_po

    known = phrases()
    with path.open("rb") as file:
        read = {str(one.id): one for one in read_po(file) if one.id}
    out = [f"missing: {text}" for text in known if text not in read or not read[text].string]
    for text, one in read.items():
        if text not in known:
            out.append(f"said no more: {text}")
        elif one.fuzzy:
            out.append(f"unfinished: {text}")
        elif one.string and words.holes(text) != words.holes(str(one.string)):
            out.append(f"other placeholders: {text}")
    return out


def update(path: Path) -> int:
    """Bring a catalogue up to date, or begin one; how many texts it lacks. Nothing is guessed from similar texts."""
    from babel.messages.catalog import Catalog
    from babel.messages.pofile import read_po, write_po

    before: dict[str, Any] = {}
    if path.is_file():
        with path.open("rb") as file:
            before = {str(one.id): one for one in read_po(file) if one.id}
    made = Catalog(locale=path.stem, charset="utf-8", fuzzy=False, header_comment="")
    for text, places in phrases().items():
        old = before.get(text)
        made.add(
            text,
            old.string if old else "",
            [(place, 0) for place in dict.fromkeys(places)],
            flags=old.flags if old else (),
        )
    with path.open("wb") as out:
        head = f'msgid ""\nmsgstr ""\n"Language: {path.stem}\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'
        out.write(head.encode())
        write_po(out, made, width=0, sort_output=True, include_lineno=False, omit_header=True)
    return sum(not one.string for one in made if one.id)
