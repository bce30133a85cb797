"""Reading a table of numbers (TOML) into its type: one way for all, so that a damaged one is said alike."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

import msgspec

from aidpost.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


def read_table(path: Path, kind: type[T], operation: str) -> T:
    """What a TOML file holds, as `kind`.

    Raises
    ------
    ConfigurationError
        It cannot be read, or holds something else; `operation` says what was being done.
    """
    try:
        with path.open("rb") as file:
            return msgspec.convert(tomllib.load(file), kind)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationError(operation=operation, target=str(path), cause=str(error)) from error
