"""One connection to the broker. paho is driven by hand and never queues; its acknowledgements are flow control only."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from aidpost.errors import BrokerError
from aidpost.sync import topics
from aidpost.sync.link import Link

_log = logging.getLogger(__name__)

_TURN_S = 0.05
_CONNACK_S = 10.0
_IN_FLIGHT = 20
_SOCKET_BYTES = 32 * 1024


class Connection:
    """Made by `open`, kept alive by `turn`, ended by `close`; of one thread.

    Parameters
    ----------
    name
        The device's name, of which the topics are made.
    will
        The sealed status that the broker tells when the connection breaks.
    arrived
        Takes each message that the hub sent, from within `turn`.
    """

    def __init__(self, link: Link, name: str, will: bytes, arrived: Callable[[bytes], None]) -> None:
        self._link, self._name, self._will, self._arrived = link, name, will, arrived
        self.connected = False
        """Whether the broker has accepted, and has not hung up since."""
        self.error = ""
        """Why it has not, or has."""
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"aidpost-{name}", clean_session=True
        )
        client.max_inflight_messages_set(_IN_FLIGHT)
        client.will_set(topics.status(name), will, qos=1, retain=True)
        client.on_connect, client.on_message = self._on_connect, self._on_message
        client.on_disconnect, client.on_subscribe = self._on_disconnect, self._on_subscribe

    def open(self, stopping: threading.Event, *, synced: bool) -> None:
        """Connect and subscribe, or come back unconnected where `stopping` is set meanwhile.

        `synced`: whether the clock that certificates are checked by is right.

        Raises
        ------
        BrokerError
            The broker refuses, or what answers is none.
        OSError
            There is no way to it, or TLS does not come about.
        """
        link, client = self._link, self._client
        self._identify(synced)
        client.connect(link.host, link.port, keepalive=link.keepalive_s)
        if link.enrolled is not None and not synced:
            self._require_recent()
        deadline = time.monotonic() + _CONNACK_S
        while not self.connected:
            if client.loop(_TURN_S) != mqtt.MQTT_ERR_SUCCESS or self.error or time.monotonic() > deadline:
                raise BrokerError(
                    operation="connecting to the broker",
                    target=f"{link.host}:{link.port}",
                    cause=self.error or "it does not answer as an MQTT broker",
                    remedy="Check host, port, user and certificate in [sync].",
                )
            if stopping.is_set():
                return
        if link.enrolled is not None:
            link.enrolled.worked()
        sock = client.socket()
        if isinstance(sock, socket.socket):
            # a deep socket buffer would put an alert behind everything already written
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)

    def _identify(self, synced: bool) -> None:
        link, client = self._link, self._client
        if link.username:
            client.username_pw_set(link.username, link.password)
        if link.enrolled is not None:
            client.tls_set_context(link.enrolled.context(synced=synced))
        elif link.tls is not None:
            authority, certificate, key = link.tls
            context = ssl.create_default_context(cafile=authority or None)
            if certificate:
                context.load_cert_chain(certificate, key)
            client.tls_set_context(context)

    def _require_recent(self) -> None:
        """What a clock that nobody has set could not check of the broker's certificate."""
        sock = self._client.socket()
        if sock is None:
            return  # the broker has hung up already: that is for the loop to say, and to renew upon
        assert self._link.enrolled is not None
        self._link.enrolled.require_recent(sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None)

    @property
    def writable(self) -> bool:
        """Whether all that was published is on its way, and there is room for more."""
        return not self._client.want_write()

    def publish(self, topic: str, message: bytes, *, retain: bool = False) -> None:
        """Send a message."""
        self._client.publish(topic, message, qos=1, retain=retain)

    def turn(self) -> None:
        """One round of paho's loop: at most `_TURN_S`, which is also how soon a newly accepted record is seen."""
        code = self._client.loop(_TURN_S)
        if code != mqtt.MQTT_ERR_SUCCESS:
            self.connected, self.error = False, mqtt.error_string(code)

    def close(self, status: bytes = b"") -> None:
        """Leave a sealed status at the broker, the will where none is given, and hang up."""
        if self.connected:
            self.publish(topics.status(self._name), status or self._will, retain=True)
            self._client.loop(_TURN_S)
        self._client.disconnect()
        self._client.loop(_TURN_S)
        self.connected = False

    # -- paho calls these from `loop`

    def _on_connect(
        self, client: mqtt.Client, data: object, flags: mqtt.ConnectFlags, reason: ReasonCode, properties: object
    ) -> None:
        if reason.is_failure:
            self.error = f"it refuses: {reason}"
            return
        client.subscribe([(topics.receipt(self._name), 1), (topics.down(self._name, "+"), 1)])
        self.connected = True

    def _on_subscribe(
        self, client: mqtt.Client, data: object, mid: int, reasons: list[ReasonCode], properties: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            # as a cluster does that has just lost a node: no receipt would ever come on this connection
            self.connected, self.error = False, "the broker refused to pass on what the hub sends"
            _log.warning("%s; the sender connects anew", self.error)

    def _on_disconnect(
        self, client: mqtt.Client, data: object, flags: object, reason: ReasonCode, properties: object
    ) -> None:
        self.connected = False

    def _on_message(self, client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        self._arrived(bytes(message.payload))
