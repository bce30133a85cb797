"""Settings that the hub changes: over the device's own file, by the same validation, with the ones before kept.

One file in the state folder has all of it, replaced in one step. Where settings change how the device reaches its hub,
they are on trial: when it does not, `MOST_TRIES` connections or starts later the ones before serve again by themselves,
and the hub is told why.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from aidpost.board import remote_rules
from aidpost.board.configuration import Configuration, convert
from aidpost.errors import ConfigurationError, InvalidRecordError
from aidpost.sync import settings
from aidpost.sync._durable import replace_file
from aidpost.sync.applier import Taken
from aidpost.sync.deliveries import Ready
from aidpost.sync.settings import Value
from aidpost.sync.store import Store

_log = logging.getLogger(__name__)

FILE = "hub-settings.json"
MOST_TRIES = 10


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `tries` counts on trial, None: they are proven. `untold`: taken back, and the hub does not know yet."""

    values: dict[str, Value] = {}
    delivery: uuid.UUID | None = None
    before: dict[str, Value] = {}
    before_delivery: uuid.UUID | None = None
    tries: int | None = None
    untold: uuid.UUID | None = None


def read(state_dir: Path) -> Remote:
    """What the hub has set; nothing where there is no file, or none that can be read."""
    try:
        return msgspec.json.decode((state_dir / FILE).read_bytes(), type=Remote)
    except FileNotFoundError:
        return Remote()
    except (OSError, msgspec.DecodeError) as error:
        _log.error("the hub's settings cannot be read, the device's own file serves alone: %s", error)
        return Remote()


def overlay(configuration: Configuration, values: Mapping[str, Value]) -> Configuration:
    """The configuration with these values in their places, validated as the file is.

    Raises
    ------
    ConfigurationError
        A key is unknown, or a value has a wrong type or is out of range.
    """
    document = msgspec.to_builtins(configuration)
    for key, value in values.items():
        section, _, name = key.partition(".")
        document[section][name] = value
    return convert(document, Configuration, "the hub's settings")


def applied(configuration: Configuration, state_dir: Path) -> Configuration:
    """The device's own configuration with what the hub has set over it. Where that is not valid here (an older version
    of this program runs again), what was set before, else the device's own alone: a device must start."""
    found = read(state_dir)
    for values in (found.values, found.before):
        try:
            settings.unpack(settings.pack(values))
            return remote_rules.applied(overlay(configuration, values), state_dir)
        except (ConfigurationError, InvalidRecordError) as error:
            _log.error("settings from the hub do not hold here: %s", error.cause)
    return remote_rules.applied(configuration, state_dir)


def begin(state_dir: Path) -> None:
    """A start of the device: on trial it counts, for settings that end the program must not do so for ever."""
    found = read(state_dir)
    if found.tries is not None:
        _count(state_dir, found)


def _count(state_dir: Path, found: Remote) -> bool:
    """One try more; True where that was the last and the ones before serve again."""
    assert found.tries is not None
    last = found.tries + 1 >= MOST_TRIES
    if last:
        back = Remote(values=found.before, delivery=found.before_delivery, untold=found.delivery)
        _write(state_dir, back)
    else:
        _write(state_dir, msgspec.structs.replace(found, tries=found.tries + 1))
    return last


def _write(state_dir: Path, found: Remote) -> None:
    replace_file(state_dir / FILE, msgspec.json.encode(found))


class RemoteSettings:
    """Takes settings up while the device runs.

    Parameters
    ----------
    own
        The device's own configuration, without what the hub has set.
    use
        Called with the configuration that counts from now on.
    """

    def __init__(self, own: Configuration, state_dir: Path, store: Store, use: Callable[[Configuration], None]) -> None:
        self._own, self._state_dir, self._store, self._use = own, state_dir, store, use
        self._lock = threading.Lock()

    def take_up(self, one: Ready) -> Taken:
        """The handler of `config` deliveries; see `aidpost.sync.applier`.

        Raises
        ------
        InvalidRecordError, ConfigurationError
            It names a key that a hub may not change, or a value that the file could not have.
        """
        values = settings.unpack(one.read())
        wanted = overlay(self._own, values)
        with self._lock:
            found = read(self._state_dir)
            if found.delivery != one.id and found.untold != one.id:
                proven = found.tries is None
                _write(
                    self._state_dir,
                    Remote(
                        values=values,
                        delivery=one.id,
                        before=found.values if proven else found.before,
                        before_delivery=found.delivery if proven else found.before_delivery,
                        tries=0 if wanted.sync != applied(self._own, self._state_dir).sync else None,
                        untold=found.untold,
                    ),
                )
        self._use(applied(self._own, self._state_dir))
        return Taken()

    def attempted(self, reached: bool) -> None:
        """The sender has reached the hub, or has failed to once more."""
        with self._lock:
            found = read(self._state_dir)
            if found.tries is not None and reached:
                _write(self._state_dir, msgspec.structs.replace(found, tries=None))
            elif found.tries is not None and _count(self._state_dir, found):
                _log.error("the hub was not reached with its new settings: the ones before serve again")
                self._use(applied(self._own, self._state_dir))
        self.tell()

    def tell(self) -> None:
        """Put into the outbox what the hub does not know yet of settings that were taken back."""
        with self._lock:
            found = read(self._state_dir)
            one = self._store.deliveries.of(found.untold) if found.untold is not None else None
            if one is None:
                return
            why = f"the hub was not reached with them, {MOST_TRIES} times: the ones before serve again"
            if not self._store.deliveries.settle(one, "rolled-back", why) and one.state != "rolled-back":
                return  # not noted as applied yet: killed in between
            _write(self._state_dir, msgspec.structs.replace(found, untold=None))
