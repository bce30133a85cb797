"""How far the records that sensors keep have been taken over, so that none is taken twice and none is lost.

A reading says in `read_up_to` which marks belong to it; who stores the reading keeps them afterwards, never before. A
power cut between the two makes the sensor send the same records once more, and they have the same ids once more.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

_log = logging.getLogger(__name__)

NAME = "sensor-marks.json"
"""The file, in a store's folder."""
NONE = -1


class Marks(Protocol):
    """Remembers the number of the last record that was stored, by sensor."""

    def last(self, key: str) -> int:
        """The number of the last record; `NONE` where none was."""

    def keep(self, marks: Mapping[str, int]) -> None:
        """The records up to these are stored."""


class NoMarks:
    """Remembers nothing: a sensor gives all that it has."""

    def last(self, key: str) -> int:
        return NONE

    def keep(self, marks: Mapping[str, int]) -> None:
        """Forgotten."""


class FileMarks:
    """In a file, which is on the disk when `keep` returns. What cannot be read or written counts as not kept: then
    records come twice, with the same ids, rather than not at all."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def last(self, key: str) -> int:
        with self._lock:
            return self._read().get(key, NONE)

    def keep(self, marks: Mapping[str, int]) -> None:
        if not marks:
            return
        with self._lock:
            text = json.dumps({**self._read(), **marks}, indent=1, sort_keys=True)
            try:
                self._write(text)
            except OSError as error:
                _log.warning("%s cannot be written (%s): sensors will give records again", self._path, error)

    def _write(self, text: str) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read (%s): sensors give all their records again", self._path, error)
            return {}
        if not isinstance(found, dict):
            return {}
        return {key: value for key, value in found.items() if type(value) is int and NONE <= value <= 0xFFFF}
