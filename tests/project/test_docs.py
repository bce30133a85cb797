"""The documentation cannot lie: every command, option and key is in it, and its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aidpost import records
from aidpost.board import configuration
from aidpost.board.cli import cli

TOP = Path(__file__).parents[2]
DOCUMENTS = sorted(path for where in ("*.md", "docs/**/*.md", "inference/models/*/*.md") for path in TOP.glob(where))


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}")


@pytest.mark.parametrize(("name", "command"), list(commands(cli, "aidpost")), ids=lambda value: str(value))
def test_command_and_its_options_are_documented(name: str, command: click.Command) -> None:
    text = (TOP / "docs/cli.md").read_text(encoding="utf-8")
    assert name in text
    assert command.help, f"{name} has no help"
    if isinstance(command, click.Group):
        return
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.opts[-1] in text, f"{name} {parameter.opts[-1]} is not in docs/cli.md"


@pytest.mark.parametrize("key", configuration.keys())
def test_configuration_key_is_documented(key: str) -> None:
    assert f"`{key}`" in (TOP / "docs/configuration.md").read_text(encoding="utf-8")


def test_no_documented_configuration_key_is_unknown() -> None:
    text = (TOP / "docs/configuration.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z_]+(?:\.[a-z_.]+)?)`", text, re.MULTILINE)
    assert documented
    assert set(documented) == set(configuration.keys())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_schema_is_what_the_records_give() -> None:
    committed = json.loads((TOP / "docs/schema.json").read_text(encoding="utf-8"))
    assert committed == json.loads(json.dumps(records.json_schema())), "run scripts/make-schema"


def test_no_file_names_the_machine_or_tools_it_was_made_with() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True).stdout.split("\n")
    forbidden = re.compile("/" + r"work/(main|shared|train|status)|/opt/" + r"wheels|\.libr" + r"ary/|helper" + r"-\d")
    for name in filter(None, listed):
        path = TOP / name
        if path.is_file() and path.suffix not in {".tflite", ".npz", ".png", ".jpg", ".bin"}:
            found = forbidden.search(path.read_text(encoding="utf-8", errors="replace"))
            assert found is None, f"{name} says {found.group() if found else ''}"


def command_lines() -> Iterator[tuple[str, str]]:
    """Every `aidpost …` that a document tells to type; how a command is written in general ([…], A|B) is left out."""
    for path in DOCUMENTS:
        for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
            found = re.match(r"(?: {4}|sudo )*(aidpost .+)", line)
            # what stands three spaces further is about it
            typed = re.split(r" {3,}(?!-)|  #", found[1])[0] if found else ""
            if typed and not re.search(r"[\[\]…|]|\.\.\.", typed):
                yield path.name, typed


@pytest.mark.parametrize(("document", "typed"), list(command_lines()), ids=lambda value: str(value)[:60])
def test_what_a_document_tells_to_type_is_a_command_with_these_options(document: str, typed: str) -> None:
    words, command = shlex.split(typed)[1:], cli
    context = click.Context(cli, info_name="aidpost")
    while True:
        _, words, _ = command.make_parser(context).parse_args(list(words))
        if not isinstance(command, click.Group) or not words:
            break  # a group by itself lists its commands
        found = command.get_command(context, words[0])
        assert found is not None, f"{document}: no command {words[0]}"
        context, command, words = click.Context(found, parent=context), found, words[1:]  # type: ignore[assignment]
    assert not words, f"{document}: {typed}: {words} is too much"
