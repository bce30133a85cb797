"""Who takes up what the hub sent: one handler for each subject, called once the content is whole, in its own thread.

A handler may be called again for the same delivery where the device died between its work and the note of it, so what
it does must come to the same the second time (`Ready.id` tells). What it gives as `items` is accepted in the
transaction that notes the outcome: exactly once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from aidpost.errors import AidpostError, StoreDamagedError, StoreError
from aidpost.sync.deliveries import MOST_ATTEMPTS, Ready

if TYPE_CHECKING:
    from aidpost.sync.store import Item, Store

_log = logging.getLogger(__name__)

_LOOK_S = 2.0


class Taken(NamedTuple):
    """What a handler says: `applied`; `refused`, for good, with the reason that the hub shows; or `later`, where now is
    not the moment. `items` go up with the outcome."""

    state: Literal["applied", "refused", "later"] = "applied"
    why: str = ""
    items: Sequence[Item] = ()


class Subject(NamedTuple):
    """How deliveries of a subject are taken up. `latest`: only the newest counts (settings, rules), and older ones are
    superseded; otherwise each is taken up, oldest first (rounds of learning)."""

    take_up: Callable[[Ready], Taken]
    latest: bool = True


class Applier:
    """Takes up what is ready until it is stopped. `turn` does one round by hand."""

    def __init__(self, store: Store, subjects: Mapping[str, Subject]) -> None:
        self._store, self._subjects = store, subjects
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Applier:
        self._thread = threading.Thread(target=self._run, name="applier", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except (AidpostError, OSError) as error:
                # a full disk passes; what is ready stays ready
                _log.warning("what the hub sent is not taken up yet: %s", error)
            self._stopping.wait(_LOOK_S)

    def turn(self) -> int:
        """Take up what is ready and has a handler here; how many deliveries came to an end.

        Raises
        ------
        StoreError
            The outcome could not be kept.
        """
        ended = 0
        for one in self._store.deliveries.ready():
            subject = self._subjects.get(one.subject)
            if subject is not None and not self._stopping.is_set():
                ended += self._take_up(one, subject)
        return ended

    def _take_up(self, one: Ready, subject: Subject) -> bool:
        deliveries = self._store.deliveries
        if subject.latest and self._is_old(one):
            deliveries.settle(one, "superseded", "a later one was there first")
            return True
        if one.attempts >= MOST_ATTEMPTS:
            deliveries.settle(one, "refused", f"taking it up was begun {MOST_ATTEMPTS} times and did not end")
            return True
        deliveries.begin(one)
        try:
            taken = self._call(one, subject)
        except StoreDamagedError:
            deliveries.ask_again(one)
            return False
        except StoreError:
            deliveries.postpone(one)  # this device's disk, which says nothing of the delivery
            raise
        if taken.state == "later":
            deliveries.postpone(one)
            return False
        deliveries.settle(one, taken.state, taken.why, taken.items)
        return True

    def _is_old(self, one: Ready) -> bool:
        newer = [other for other in self._store.deliveries.ready() if other.subject == one.subject]
        last = max(self._store.deliveries.last_applied(one.subject), *(other.serial for other in newer))
        return last > one.serial

    def _call(self, one: Ready, subject: Subject) -> Taken:
        try:
            return subject.take_up(one)
        except StoreError:
            raise
        except AidpostError as error:
            return Taken("refused", f"{error.cause}. {error.remedy}".strip())
        except Exception as error:  # noqa: BLE001 - one subject's fault must not stop the others, and the hub must know
            _log.exception("taking up %s %s failed", one.subject, one.version)
            return Taken("refused", f"a fault of the program: {type(error).__name__}; the device's log says more")
