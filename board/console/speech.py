"""What the screen says aloud, where a site wants it: texts become sound by espeak-ng, and the page plays it.

Only texts that a template hands over in its `speech` block are spoken: steps, questions, triage, advice; never who the
patient is (a test holds the templates to it). They are in memory only, under a key that says nothing of them.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
import subprocess
import threading
from collections import OrderedDict
from dataclasses import dataclass

from aidpost.board.console.words import N_

PROGRAM = "espeak-ng"
PACKAGE = "sudo apt install espeak-ng"
WORDS_PER_MINUTE = 150
_VOICES = {"zh": "cmn"}
"""Where espeak-ng calls a language otherwise."""
_KEPT, _LONGEST, _DEADLINE_S = 32, 600, 20.0
_log = logging.getLogger(__name__)


@functools.lru_cache
def lacking(language: str) -> str:
    """Why nothing can be spoken in this language; empty where it can. Asks espeak-ng once."""
    if shutil.which(PROGRAM) is None:
        return N_("espeak-ng is not installed: nothing is spoken")
    asked = [PROGRAM, f"--voices={voice(language)}"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, timeout=_DEADLINE_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("espeak-ng does not work: %s", error)
        return N_("espeak-ng does not work: nothing is spoken")
    return "" if len(listed.splitlines()) > 1 else N_("espeak-ng has no voice for this language: nothing is spoken")


def voice(language: str) -> str:
    """What espeak-ng calls a language."""
    return _VOICES.get(language, language)


def synthesise(text: str, language: str) -> bytes:
    """A WAV file of the text; empty where espeak-ng fails, which is logged without the text."""
    command = [PROGRAM, "-v", voice(language), "-s", str(WORDS_PER_MINUTE), "-b", "1", "--stdin", "--stdout"]
    try:
        made = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_DEADLINE_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("nothing is spoken: %s", type(error).__name__)
        return b""
    return _sized(made)


def _sized(wav: bytes) -> bytes:
    """The file with its lengths: espeak-ng writes to a pipe before it knows them."""
    if len(wav) < 44 or wav[:4] != b"RIFF" or wav[36:40] != b"data":
        return b""
    return wav[:4] + (len(wav) - 8).to_bytes(4, "little") + wav[8:40] + (len(wav) - 44).to_bytes(4, "little") + wav[44:]


@dataclass
class _Said:
    text: str
    language: str
    sound: bytes | None = None


class Speech:
    """The last texts that pages want spoken, and their sound once it was asked for. Any thread may call."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self._said: OrderedDict[str, _Said] = OrderedDict()
        self._lock = threading.Lock()

    def address(self, text: str, language: str) -> str:
        """Where the page gets the sound of a text; empty where nothing is spoken."""
        text = " ".join(text.split())[:_LONGEST]
        if not self.on or not text or lacking(language):
            return ""
        key = hashlib.sha256(f"{language} {text}".encode()).hexdigest()[:32]
        with self._lock:
            self._said.setdefault(key, _Said(text, language))
            self._said.move_to_end(key)
            while len(self._said) > _KEPT:
                self._said.popitem(last=False)
        return f"/speech/{key}"

    def sound(self, key: str) -> bytes | None:
        """The WAV file; None for a text that no page asked for lately, or that espeak-ng cannot say."""
        with self._lock:
            said = self._said.get(key)
        if said is None:
            return None
        said.sound = said.sound or synthesise(said.text, said.language)
        return said.sound or None
