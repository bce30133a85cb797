"""Writing a model's folder: the file, its card for programs, its card for people and its golden photographs."""

from __future__ import annotations

import hashlib
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _fundus_data import MODELS

EYEPACS_TERMS = (
    "Trained on EyePACS photographs (Kaggle 2015 competition terms: research use, images not to be redistributed)"
)
EYEQ_TERMS = "quality labels from EyeQ (CC BY-NC-SA 4.0: not for commercial use)"
IDRID_TERMS = "IDRiD photographs and grades (CC BY 4.0)"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, float):
        return repr(round(value, 6))
    if isinstance(value, Sequence):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return str(value)


def to_toml(card: Mapping[str, Any]) -> str:
    """A card of plain values and tables of plain values, as TOML."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in card.items() if not isinstance(value, Mapping)]
    for key, table in card.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{name} = {_toml_value(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def write_model(
    name: str, model: bytes, card: Mapping[str, Any], text: str, golden: Mapping[str, np.ndarray], root: Path = MODELS
) -> Path:
    """Write `root/name`, complete before it takes the place of what was there."""
    folder, fresh, old = root / name, root / f".{name}.new", root / f".{name}.old"
    for stale in (fresh, old):
        shutil.rmtree(stale, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / "model.tflite").write_bytes(model)
    head = {"name": name, **{k: v for k, v in card.items() if not isinstance(v, Mapping)}}
    head["sha256"] = hashlib.sha256(model).hexdigest()
    (fresh / "card.toml").write_text(to_toml({**head, **{k: v for k, v in card.items() if isinstance(v, Mapping)}}))
    (fresh / "CARD.md").write_text(reflow(text))
    np.savez(fresh / "golden.npz", **golden)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def reflow(text: str) -> str:
    """Markdown with its paragraphs and list items filled to 120 columns; tables and headings as they are."""
    blocks = []
    for block in text.strip().split("\n\n"):
        if block.startswith(("|", "#")):
            blocks.append(block)
            continue
        items = block.replace("\n- ", "\n\0- ").split("\n\0")
        whole = {"break_long_words": False, "break_on_hyphens": False}
        filled = [
            textwrap.fill(" ".join(i.split()), 120, subsequent_indent="  " * i.startswith("- "), **whole) for i in items
        ]
        blocks.append("\n".join(filled))
    return "\n\n".join(blocks) + "\n"


def with_paragraph(text: str, paragraph: str, before: str) -> str:
    """CARD.md with a paragraph before the one that begins with `before`, in place of an earlier one of its title."""
    title = paragraph.strip().split("**")[1]
    blocks = [block for block in text.split("\n\n") if not block.startswith(f"**{title}**")]
    at = next(i for i, block in enumerate(blocks) if block.startswith(before))
    return "\n\n".join([*blocks[:at], reflow(paragraph).strip(), *blocks[at:]])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def interval(figure: tuple[float, float, float]) -> str:
    """A figure with its 95 % interval."""
    return f"{figure[0]:.3f} ({figure[1]:.3f} to {figure[2]:.3f})"
