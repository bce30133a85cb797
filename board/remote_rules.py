"""Clinical limits that the hub changes: signed by two people of two roles, held to the golden cases before they serve
and at each start, with the ones before kept."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

from aidpost.board.configuration import Configuration
from aidpost.errors import ConfigurationError
from aidpost.inference import golden_rules
from aidpost.sync import rules
from aidpost.sync._durable import replace_file
from aidpost.sync.applier import Taken
from aidpost.sync.deliveries import Ready
from aidpost.sync.rules import Judged, Limits, Published, RuleChange

_log = logging.getLogger(__name__)

FILE = "hub-limits.json"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file: the change that serves, and the one before."""

    change: RuleChange | None = None
    delivery: uuid.UUID | None = None
    before: RuleChange | None = None


def read(state_dir: Path) -> Kept:
    """What the hub has set; nothing where there is no file, or none that can be read."""
    try:
        return msgspec.json.decode((state_dir / FILE).read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except (OSError, msgspec.DecodeError) as error:
        _log.error("the hub's clinical limits cannot be read, the device's own serve: %s", error)
        return Kept()


def overlay(configuration: Configuration, limits: Limits) -> Configuration:
    """The configuration with these limits over its own.

    Raises
    ------
    ConfigurationError
        A limit is unknown, or the limits break a golden case.
    """
    own = configuration.limits
    merged = {name: {**own.get(name, {}), **limits.get(name, {})} for name in own.keys() | limits.keys()}
    if broken := golden_rules.failures(merged):
        raise ConfigurationError(
            operation="changing clinical limits",
            target="limits",
            cause=f"they break {len(broken)} golden cases: {'; '.join(broken)[:300]}",
            remedy="The limits before serve. Propose others.",
        )
    return msgspec.structs.replace(configuration, limits=merged)


def judge(limits: Limits) -> Judged:
    """What the hub's page shows of limits: the published ones, and which golden cases these break.

    Raises
    ------
    ConfigurationError
        A limit is named that is not there.
    """
    broken = tuple(golden_rules.failures(limits))
    published = {
        file: {name: Published(limit.value, limit.unit) for name, limit in found.items()}
        for file, found in golden_rules.published().items()
    }
    return Judged(published, len(golden_rules.cases()), broken)


def applied(configuration: Configuration, state_dir: Path) -> Configuration:
    """The configuration with the hub's limits; without them where they do not hold in this version."""
    found = read(state_dir)
    for change in (found.change, found.before):
        try:
            if change is not None and not rules.lacking(change.signatures):
                return overlay(configuration, change.limits)
        except ConfigurationError as error:
            _log.error("clinical limits from the hub do not hold here: %s", error.cause)
    return configuration


class RemoteRules:
    """Takes clinical limits up while the device runs. `use` is called when they have changed."""

    def __init__(self, own: Configuration, state_dir: Path, use: Callable[[], None]) -> None:
        self._own, self._state_dir, self._use = own, state_dir, use

    def take_up(self, one: Ready) -> Taken:
        """The handler of `rules` deliveries; see `aidpost.sync.applier`.

        Raises
        ------
        InvalidRecordError, ConfigurationError
            Not signed by two people of two roles, an unknown limit, or a broken golden case: nothing changes.
        """
        change = rules.unpack(one.read())
        overlay(self._own, change.limits)
        found = read(self._state_dir)
        if found.delivery != one.id:
            kept = Kept(change=change, delivery=one.id, before=found.change)
            replace_file(self._state_dir / FILE, msgspec.json.encode(kept))
        self._use()
        return Taken()
