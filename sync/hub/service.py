"""The hub on the broker: takes messages, commits them in batches, and only then acknowledges and receipts.

Three threads meet here. paho's reads the network and fills a queue; the worker empties it, one commit for all that
waits; a timer sends again what devices have not receipted. MQTT's own acknowledgement is given by hand after the
commit: the broker then holds back what this hub cannot take, and keeps it if the hub is killed. Delivery rests on
neither. A device sends again until it has the hub's receipt.
"""

from __future__ import annotations

import enum
import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy.exc import DBAPIError, OperationalError

from aidpost.errors import BrokerError, EnvelopeError
from aidpost.sync import proofs, topics
from aidpost.sync.envelope import Chunks, Content, Records, pack_message
from aidpost.sync.hub import _round_phases, identity, index, outgoing, shadow, tally
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.clocks import day
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest, Reply
from aidpost.sync.hub.shares import Shares

_log = logging.getLogger(__name__)

_QUEUE = 2000
"""Messages between network and worker. The broker's own limit on unacknowledged ones (20 by default) is lower."""
_BATCH_BYTES = 16 << 20
_RETRY_S = (0.2, 1.0, 5.0, 15.0)
_RESEND_EVERY_S = 2.0
_KEEPALIVE_S = 30
_SHADOW_EVERY_S = 1800.0
"""How often it is looked which models have shown that they work where."""
_SHADOW_AGAIN_S = 30.0


class Trouble(enum.Enum):
    """What the hub cannot do now, and does again by itself when its disk lets it."""

    NONE = ""
    PHOTOGRAPHS = "photographs"
    """The disk is nearly full: photographs and waveforms wait on the devices, records come in."""
    STORE = "store"
    """Nothing can be committed: all waits on the devices."""


class _Delivery(NamedTuple):
    message: Incoming
    mid: int
    qos: int
    connection: int


class HubService:
    """One ingest worker on the broker.

    `start` returns at once: a broker that is not there yet is tried again until `stop`.
    """

    def __init__(self, config: HubConfig, database: Database, files: BlobFiles) -> None:
        self._config, self._database = config, database
        self._ingest = Ingest(database, files, config)
        self._key = identity.signing_key(config.state)
        self._shares = Shares(database, config.worker) if config.share_devices else None
        self._beaten_s = self._shadow_due_s = 0.0
        self._queue: queue.Queue[_Delivery] = queue.Queue(_QUEUE)
        self._fault = ""
        self._stopping = threading.Event()
        self._wake_sender = threading.Event()
        self._connections = 0
        self._refused = False
        self._back: set[str] = set()
        self._day = ""
        self._lock = threading.Lock()
        self._client = self._make_client()
        self._threads = [
            threading.Thread(target=self._work, name="hub-ingest", daemon=True),
            threading.Thread(target=self._send_down, name="hub-outgoing", daemon=True),
        ]
        self._round_s = dict.fromkeys((thread.name for thread in self._threads), time.monotonic())

    @property
    def connected(self) -> bool:
        """Whether the broker answers now."""
        return self._client.is_connected()

    @property
    def trouble(self) -> Trouble:
        """Whether what devices send can be kept, for those who look at the hub."""
        if self._fault:
            return Trouble.STORE
        return Trouble.PHOTOGRAPHS if self._ingest.is_short else Trouble.NONE

    @property
    def stuck_s(self) -> float:
        """For how long the one of its threads that has been longest without a sign of life has given none."""
        return time.monotonic() - min(self._round_s.values())

    def start(self) -> None:
        """Connects and begins to work.

        Raises
        ------
        BrokerError
            The broker's certificate files cannot be read. A broker that is away is not an error.
        """
        self._client.connect_async(self._config.broker_host, self._config.broker_port, keepalive=_KEEPALIVE_S)
        self._client.loop_start()
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Commits what is in hand, then leaves the broker. What was not acknowledged comes again."""
        self._stopping.set()
        self._wake_sender.set()
        for thread in self._threads:
            thread.join(timeout_s)
        if self._shares:
            try:
                self._shares.leave()
            except (DBAPIError, OSError) as error:
                _log.error("cannot say that this worker has left: %s", error)
        self._client.disconnect()
        self._client.loop_stop()

    def wake(self) -> None:
        """Something new waits to go down."""
        self._wake_sender.set()

    def _sign_of_life(self) -> None:
        self._round_s[threading.current_thread().name] = time.monotonic()

    def _make_client(self) -> mqtt.Client:
        config = self._config
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"aidpost-hub-{config.worker or config.name}",
            clean_session=False,
            manual_ack=True,
        )
        client.on_connect, client.on_message, client.on_disconnect = self._connected, self._arrived, self._left
        client.on_subscribe = self._subscribed
        client.reconnect_delay_set(1, 30)
        client.max_queued_messages_set(10_000)
        client.max_inflight_messages_set(100)
        if config.broker_username:
            client.username_pw_set(config.broker_username, config.broker_password or None)
        if config.broker_ca:
            try:
                client.tls_set(config.broker_ca, config.broker_certificate or None, config.broker_key or None)
            except (OSError, ValueError) as error:
                raise BrokerError(
                    operation="preparing the connection to the broker",
                    target=config.broker_host,
                    cause=str(error),
                    remedy="Check hub.broker_ca, hub.broker_certificate and hub.broker_key.",
                ) from None
        return client

    # paho's thread

    def _connected(
        self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            _log.error("the broker %s refuses the hub: %s", self._config.broker_host, reason)
            return
        self._subscribe()
        _log.info("connected to the broker %s:%d", self._config.broker_host, self._config.broker_port)

    def _subscribe(self) -> None:
        share = f"$share/{self._config.shared_group}/" if self._config.shared_group else ""
        self._refused = False
        self._client.subscribe([(share + topics.UP_FILTER, 1), (share + topics.STATUS_FILTER, 1)])

    def _subscribed(
        self, _client: mqtt.Client, _data: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            # as a cluster does that has just lost a node: it is asked again until it does not
            _log.error("the broker %s refuses to give the hub what devices send", self._config.broker_host)
            self._refused = True

    def _left(self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _props: object) -> None:
        # message numbers begin anew with each connection: an old one must not acknowledge a new message
        self._connections += 1
        if not self._stopping.is_set():
            _log.warning("lost the broker: %s", reason)

    def _arrived(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            device: str | None = topics.parse(message.topic).device
        except EnvelopeError:
            device = ""  # no device has this name: refused and audited with the rest
        if self._shares and device and not self._shares.is_mine(device):
            self._client.ack(message.mid, message.qos)
            return
        incoming = Incoming(device, bytes(message.payload), now_ms())
        self._queue.put(_Delivery(incoming, message.mid, message.qos, self._connections))

    # the worker's thread

    def _work(self) -> None:
        while not (self._stopping.is_set() and self._queue.empty()):
            self._sign_of_life()
            batch = self._next_batch()
            if batch:
                self._finish(batch)

    def _next_batch(self) -> list[_Delivery]:
        try:
            batch = [self._queue.get(timeout=0.25)]
        except queue.Empty:
            return []
        size = len(batch[0].message.payload)
        while len(batch) < self._config.batch_messages and size < _BATCH_BYTES:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
            size += len(batch[-1].message.payload)
        return batch

    def _finish(self, batch: Sequence[_Delivery]) -> None:
        for attempt in range(1 << 30):
            self._sign_of_life()
            try:
                replies = self._ingest.ingest([delivery.message for delivery in batch])
            except (OperationalError, OSError) as error:
                # disk full, database locked or away: nothing is acknowledged, so nothing is lost by waiting
                self._fault = str(getattr(error, "orig", error))
                _log.error("the hub cannot commit, %d messages wait: %s", len(batch), self._fault)
                if self._stopping.wait(_RETRY_S[min(attempt, len(_RETRY_S) - 1)]):
                    return
            except Exception:  # noqa: BLE001 - what one record does to this program must not hold up the others
                _log.exception("a batch of %d messages failed as a whole; trying each record by itself", len(batch))
                replies = [reply for delivery in batch for reply in self._one_by_one(delivery)]
                break
            else:
                break
        self._fault = ""
        self._send_receipts(replies)
        for delivery in batch:
            if delivery.qos and delivery.connection == self._connections:
                self._client.ack(delivery.mid, delivery.qos)

    def _one_by_one(self, delivery: _Delivery) -> list[Reply]:
        try:
            return self._ingest.ingest_singly(delivery.message)
        except Exception:  # noqa: BLE001 - not receipted, so the device has it still; the others go on
            _log.exception("a message of %s cannot be taken", delivery.message.device)
            return []

    def _send_receipts(self, replies: Sequence[Reply]) -> None:
        for device, content in replies:
            if isinstance(content, Chunks):
                self._publish(topics.down(device, "blob"), device, content)
                continue
            self._publish(topics.receipt(device), device, content)
            if content.answers:
                with self._lock:
                    self._back.add(device)
                self._wake_sender.set()

    def _publish(self, topic: str, device: str, content: Content) -> None:
        message = pack_message(content, sender=self._config.name, key=self._key, recipient=device)
        self._client.publish(topic, message, qos=1)

    # the timer's thread

    def _send_down(self) -> None:
        while not self._stopping.is_set():
            self._wake_sender.wait(_RESEND_EVERY_S)
            self._wake_sender.clear()
            self._sign_of_life()
            self._beat()
            self._tell_shadow()
            if not self.connected:
                continue
            if self._refused:
                self._subscribe()
            with self._lock:
                back, self._back = self._back, set()
            try:
                self._advance_rounds()
                self._send_waiting(back)
            except (DBAPIError, OSError) as error:
                _log.error("cannot read what waits to go down: %s", error)
                time.sleep(0.2)

    def _advance_rounds(self) -> None:
        with self._database.read() as connection:
            if not _round_phases.anything_due(connection):
                return
        with self._database.write() as connection:
            _round_phases.advance(connection, self._database.epoch, now_ms())

    def _beat(self) -> None:
        if self._shares is None or time.monotonic() - self._beaten_s < _RESEND_EVERY_S / 2:
            return
        self._beaten_s = time.monotonic()
        try:
            # a worker without the broker takes nothing: the others are to have its share
            if self.connected and self._shares.beat():
                _log.info("devices are shared among %s", ", ".join(self._shares.alive))
        except (DBAPIError, OSError) as error:
            _log.error("cannot say that this worker is there: %s", error)

    def _tell_shadow(self) -> None:
        if time.monotonic() < self._shadow_due_s:
            return
        self._shadow_due_s = time.monotonic() + _SHADOW_EVERY_S
        try:
            with self._database.read() as connection:
                if tally.is_behind(connection):  # as after an update: what is not counted yet has shown nothing
                    self._shadow_due_s = time.monotonic() + _SHADOW_AGAIN_S
                    return
                found = shadow.wanted(connection, self._config.shadow_bound)
            if found:
                with self._database.write() as connection:
                    shadow.announce(connection, self._database.epoch, found, now_ms())
        except (DBAPIError, OSError) as error:
            _log.error("cannot tell the devices which models' answers to hide: %s", error)

    def _send_waiting(self, back: set[str]) -> None:
        if day(now_ms()) != self._day:
            index.new_day(self._database, now_ms())
            self._day = day(now_ms())
        index.bring_up(self._database, now_ms(), self._sign_of_life)  # of many people, many transactions
        with self._database.read() as connection:
            if not outgoing.anything(connection):
                return
        with self._database.write() as connection:
            waiting = [item for device in sorted(back) for item in outgoing.take_due(connection, now_ms(), device)]
            waiting += outgoing.take_due(connection, now_ms())
        for device, cls, envelopes in waiting:
            sent = Records(envelopes, proofs.prove(self._key, device, envelopes))
            self._publish(topics.down(device, cls), device, sent)
