"""The sender: carries the outbox to the hub over MQTT, and the hub's receipts, reviews and referrals back.

One thread owns the connection and the outbox. A record is settled by the hub's receipt, not by the broker's
acknowledgement. A connection begins with a Hello, which the hub answers with all that it holds; only then does anything
else go.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt

from aidpost import __version__
from aidpost.errors import AidpostError, BrokerError, EnvelopeError, StoreError
from aidpost.sync import outbox as outbox_module
from aidpost.sync import returns, topics
from aidpost.sync._alone import lock
from aidpost.sync._asking import Asking
from aidpost.sync._connection import Connection
from aidpost.sync._greeting import hello
from aidpost.sync.envelope import (
    Chunks,
    Content,
    Installed,
    Receipt,
    Records,
    Status,
    pack_message,
    unpack_message,
)
from aidpost.sync.link import Link
from aidpost.sync.outbox import Outbox
from aidpost.sync.store import Store

_log = logging.getLogger(__name__)

_HELLO_AGAIN_S = (5.0, 10.0, 20.0, 60.0)
"""A hub that is away finds a few hellos in its queue, not a day of them."""
_RESEND_S = (10.0, 20.0, 40.0, 60.0)
_RECONNECT_S = (0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
_ALERT_RECONNECT_S = 2.0
"""With an alert waiting: it is to be at the hub ten seconds after the network came back."""
_WIDEN = 16
_STATUS_EVERY_S = 60.0
_FAILURES = (OSError, ValueError, AidpostError, mqtt.WebsocketConnectionError)
"""A full or damaged disk too: the sender says so and goes on when it can, it never just ends."""


class Publisher:
    """Sends until it is stopped. `start` returns at once; a broker that is not there is tried again, more and more
    slowly, for as long as it takes."""

    def __init__(
        self,
        store: Store,
        link: Link,
        installed: Callable[[], tuple[Installed, ...]] = lambda: (),
        attempted: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._store, self._installed, self._attempted = store, installed, attempted
        self._take_link(link)
        self._next_link: Link | None = None
        self._stopping, self._emptied = threading.Event(), threading.Event()
        self._arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock: int | None = None
        self._connection: Connection | None = None
        self._greeted, self._hub_epoch = False, b""
        # every hello of this connection: over 2G the answer to the first may come after the second was sent
        self._nonces: set[bytes] = set()
        self.last_error = ""
        """Why there is no connection, in words; empty while there is one."""

    # -- life

    def start(self) -> None:
        """Begin to send.

        Raises
        ------
        StoreLockedError
            Another process sends for this store.
        """
        self._lock = _lock(self._store.folder / "sender.lock")
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the connection; what was not receipted goes next time."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Publisher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def connected(self) -> bool:
        """Whether the hub has answered on this connection: data is flowing, not just a socket open."""
        connection = self._connection
        return connection is not None and connection.connected and self._greeted

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait until the hub has receipted everything, photographs too; False if the time is up first."""
        self._emptied.clear()
        return self._emptied.wait(timeout)

    def use(self, link: Link) -> None:
        """Go on by another link: the connection ends, and the next one is made by it."""
        self._next_link = link

    # -- the thread

    def _take_link(self, link: Link) -> None:
        self._link = link
        self._outbox = Outbox(
            self._store,
            window_records=link.window_records,
            window_bytes=link.window_bytes,
            widen=_WIDEN,
            backlog_bytes_s=link.backlog_bytes_s,
        )
        self._asking = Asking(self._store, link.window_bytes, link.backlog_bytes_s)

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            if (link := self._next_link) is not None:
                self._next_link = None
                self._take_link(link)
            try:
                self._renew()
                self._connect()
                self._converse()
                attempt = 0
            except _FAILURES as error:
                self.last_error = str(error)
                _log.warning("the sender stopped and tries again: %s", error)
                if isinstance(error, BrokerError | ssl.SSLError):
                    # the broker answers and will not have us; it may be that our certificate has ended
                    self._renew(refused=True)
            finally:
                reached = self._greeted
                self._disconnect()
            if self._next_link is not None:
                continue
            if not reached and not self._stopping.is_set():
                self._tell(False)
            # spread out, so that a hundred devices do not come back in the same second
            pause = min(self._longest_pause(), _RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
            attempt += 1
            self._stopping.wait(pause * random.uniform(0.7, 1.3))

    def _longest_pause(self) -> float:
        try:
            return _ALERT_RECONNECT_S if self._outbox.alert_waits() else _RECONNECT_S[-1]
        except _FAILURES as error:
            _log.warning("whether an alert waits could not be read: %s", error)
            return _RECONNECT_S[-1]

    def _connect(self) -> None:
        synced = self._store.now().synced
        name, will = self._store.identity.name, self._sealed(self._status(online=False))
        self._connection = Connection(self._link, name, will, self._arrived.put)
        self._connection.open(self._stopping, synced=synced)

    def _tell(self, reached: bool) -> None:
        try:
            self._attempted(reached)
        except (AidpostError, OSError) as error:
            _log.warning("whether the hub was reached could not be noted: %s", error)

    def _renew(self, *, refused: bool = False) -> None:
        """A new certificate, when it is time, or when the broker refuses and it may be that, by a clock that is wrong
        or not. Without one things go on as they are."""
        enrolled, now = self._link.enrolled, self._store.now()
        if enrolled is None or not (refused or enrolled.due(now.wall_ms, synced=now.synced)):
            return
        try:
            enrolled.renew(self._store.identity, synced=now.synced)
        except (AidpostError, OSError) as error:
            self.last_error = str(error)
            _log.warning("the certificate was not renewed: %s", error)

    def _disconnect(self) -> None:
        connection, self._greeted = self._connection, False
        if connection is not None:
            connection.close(self._last_words() if connection.connected else b"")
        self._connection = None
        self._nonces.clear()
        self._outbox.forget_flight()

    def _last_words(self) -> bytes:
        """The status that is left at the broker; empty, for what was said at the beginning, where it can't be read."""
        try:
            return self._sealed(self._status(online=False))
        except _FAILURES as error:
            _log.warning("what waits could not be counted: %s", error)
            return b""

    def _converse(self) -> None:
        """Greet, send, take receipts, resend, until the connection ends."""
        assert self._connection is not None
        connection, self.last_error = self._connection, ""
        hello_at, moved_at, status_at, quiet, hellos = 0.0, time.monotonic(), 0.0, 0, 0
        while connection.connected and not self._stopping.is_set() and self._next_link is None:
            now = time.monotonic()
            if not self._greeted and now >= hello_at:
                hello_at = now + _HELLO_AGAIN_S[min(hellos, len(_HELLO_AGAIN_S) - 1)]
                hellos += 1
                self._greet()
            if self._take_arrived():
                moved_at, quiet = now, 0
            if self._greeted:
                if self._outbox.in_flight and now - moved_at > _RESEND_S[min(quiet, len(_RESEND_S) - 1)]:
                    # sent and not receipted for this long: lost on the way, or the hub is slow; the same keys go again
                    self._outbox.forget_flight()
                    moved_at, quiet = now, quiet + 1
                if self._send() and not self._outbox.in_flight:
                    moved_at = now
                if asked := self._asking.due(now):
                    self._publish("receipt", Receipt(self._hub_epoch, blobs=asked))
                if now - status_at > _STATUS_EVERY_S:
                    status_at = now
                    self._publish("status", self._status(online=True), retain=True)
                    self._store.space.prune(self._store.now())
            connection.turn()
            self.last_error = connection.error or self.last_error

    def _greet(self) -> None:
        nonce = os.urandom(16)
        self._nonces.add(nonce)
        said = hello(self._store, nonce)
        self._hub_epoch = said.hub_epoch
        self._publish("hello", said)

    def _send(self) -> bool:
        """Publish while the window has room; True if anything was."""
        sent = False
        while self._connection is not None and self._connection.writable:
            piece = self._outbox.next()
            if piece is None:
                if not self._outbox.in_flight and not self._outbox.held_back:
                    self._emptied.set()
                return sent
            self._emptied.clear()
            self._publish(piece.leaf, piece.content)
            sent = True
        return sent

    def _publish(self, leaf: str, content: Content, *, retain: bool = False) -> None:
        assert self._connection is not None
        name = self._store.identity.name
        topic = topics.status(name) if leaf == "status" else topics.up(name, leaf)
        self._connection.publish(topic, self._sealed(content), retain=retain)

    def _sealed(self, content: Content) -> bytes:
        identity = self._store.identity
        return pack_message(content, sender=identity.name, key=identity.private)

    def _status(self, *, online: bool) -> Status:
        found = outbox_module.status(self._store)
        return Status(
            online=online,
            at=self._store.now(),
            queued={one.cls: one.queued for one in found if one.queued},
            oldest_s=max((one.oldest_s or 0 for one in found), default=0),
            dead_letters=sum(one.dead for one in found),
            software=f"aidpost {__version__}",
            installed=self._installed() if online else (),
        )

    def _take_arrived(self) -> bool:
        """Take in what the hub sent, all receipts with one commit; True where one settled anything."""
        receipts = []
        while not self._arrived.empty():
            data = self._arrived.get()
            link, name = self._link, self._store.identity.name
            try:
                message = unpack_message(data, {link.hub_name: link.hub_key}.get, sender=link.hub_name, recipient=name)
            except EnvelopeError as error:
                _log.warning("a message was refused: %s", error.cause)
                self.last_error = error.cause
                continue
            if isinstance(message.content, Receipt):
                if self._is_current(message.content):
                    receipts.append(message.content)
            elif isinstance(message.content, Records) and message.recipient == name:
                self._keep(message.content)
            elif isinstance(message.content, Chunks) and message.recipient == name:
                self._keep_chunks(message.content)
        self._give_up(receipts)
        self._give_back(receipts)
        return self._outbox.receive(*receipts)

    def _keep(self, sent: Records) -> None:
        """Keep what came down, and only then receipt it."""
        try:
            receipt = self._store.inbox.keep(sent.envelopes, self._store.now().wall_ms, sent.proofs)
        except StoreError as error:
            # a full disk must not stop what goes up, which is what frees it; without a receipt the hub sends again
            _log.error("what the hub sent cannot be kept yet: %s", error)
            self.last_error = str(error)
            return
        for reject in receipt.rejected:
            _log.warning("%s/%d from the hub was refused: %s", reject.cls, reject.seq, reject.reason)
        self._publish("receipt", receipt)
        self._asking.soon()

    def _give_back(self, receipts: list[Receipt]) -> None:
        """What the hub signed once and lacks now goes up like any other record."""
        try:
            if given := returns.give_back(self._store, receipts, self._link.hub_key):
                _log.warning("the hub was restored from a backup and is given back %d records of its own", given)
        except StoreError as error:
            _log.error("what the hub lacks of its own cannot be queued yet: %s", error)
            self.last_error = str(error)

    def _give_up(self, receipts: list[Receipt]) -> None:
        """What the hub says that it will not send is not asked for any more."""
        for blob in (one for receipt in receipts for one in receipt.blobs if one.refused):
            self._store.deliveries.give_up(blob.sha256, blob.refused)
            self._asking.refused()

    def _keep_chunks(self, sent: Chunks) -> None:
        """Keep pieces of what the hub sends, and only then ask for the next ones."""
        try:
            self._asking.arrived(sent, time.monotonic())
        except StoreError as error:
            _log.error("what the hub sent cannot be kept yet: %s", error)
            self.last_error = str(error)

    def _is_current(self, receipt: Receipt) -> bool:
        """Whether a receipt may be believed now: it answers this connection's hello, or comes behind such an answer."""
        if receipt.answers in self._nonces:
            if not self._greeted:
                self._outbox.begin()
            if not self._greeted or receipt.hub_epoch != self._hub_epoch:  # a slow hub answers two hellos
                self._asking.begin()
            self._greeted, self._hub_epoch = True, receipt.hub_epoch
            self._tell(True)
            if dropped := self._outbox.gone(receipt):
                self._publish("dropped", dropped)
            if held := self._store.inbox.proven(receipt.hub_epoch):
                self._publish("receipt", Receipt(receipt.hub_epoch, held=held))
        elif not self._greeted:
            return False  # the answer to the hello is still to come, and says all of it
        elif receipt.hub_epoch != self._hub_epoch:
            # the hub was restored from a backup since the last hello: ask what it has before believing more
            self._greet()
            return False
        return True


@contextmanager
def sending(folder: Path) -> Iterator[None]:
    """While no other process sends for this store. Raises StoreLockedError where one does."""
    descriptor = _lock(folder / "sender.lock")
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Become the one process that sends for this store."""
    return lock(
        path,
        operation="starting the sender",
        cause="another process sends for this store",
        remedy="Stop it first, or let it send: `aidpost outbox status` shows how far it is.",
    )
