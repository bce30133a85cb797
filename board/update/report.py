"""What the hub is told of this device's updates: what serves, what is on trial, what was taken back and why. It is the
state and no story, so that a message that is lost, late or repeated changes nothing."""

from __future__ import annotations

import re

from aidpost.board.update.slots import Slots
from aidpost.sync.envelope import MAX_INSTALLED, Installed

RELEASE = "aidpost"
"""The name that releases have beside the models'."""
_WHY = 300


def told(slots: Slots) -> tuple[Installed, ...]:
    """Releases and models as they are now, failures first; reads a few links and small files."""
    trial, serving = slots.trial(), slots.named("current")
    found = [_failed(name, why) for name, why in slots.failures().items()]
    if serving:
        found.append(Installed(RELEASE, serving, "trial" if trial and trial.new == serving else "serves"))
    for name, version in slots.models_serving().items():
        found.append(Installed(name, version, "serves"))
    return tuple(one for one in found if one is not None)[:MAX_INSTALLED]


def _failed(name: str, why: str) -> Installed | None:
    """A file of `failed/`: a release's version, or a model's name and version."""
    parts = re.fullmatch(r"(?:([a-z][a-z0-9-]{0,31})-)?(\d[\w.]{0,31})", name)
    return None if parts is None else Installed(parts[1] or RELEASE, parts[2], "failed", why[:_WHY])
