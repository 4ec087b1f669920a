"""One connection to the broker, from CONNECT to its end: but for `lean_paho`, the only file that knows paho.

A fresh paho client for each connection: paho's own queue and its resending (memory only, drops the newest, loops for
ever on a message the broker ends the connection for) never come into play; what must not be lost is in our outbox.
paho's thread does one thing: it hands over to the loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any, Final

from appliance.handover import Inbox
from appliance.link.api import Message
from appliance.link.lean_paho import (
    CallbackAPIVersion,
    PacketTypes,
    Properties,
    ReasonCode,
    SubscribeOptions,
    paho,
)
from appliance.network import is_cut_off
from appliance.settings import MqttSettings

__all__ = ["Connection", "Ending", "Will", "tls_context"]

log = logging.getLogger(__name__)

SESSION_EXPIRY_S: Final = 86_400
RECEIVE_MAXIMUM: Final = 16  # back-pressure: what is not acknowledged stays with the broker
LARGEST_PACKET: Final = 128 * 1024  # above MAX_PAYLOAD, so that a command just over it still gets its answer
IN_FLIGHT: Final = 16
CONNECT_S: Final = 15.0
PUBACK_S: Final = 5.0
WATCH_S: Final = 5.0
PAHO_TCP_S: Final = 5.0
INBOX: Final = 1024
"""Hand-overs waiting. Bounded by RECEIVE_MAXIMUM and IN_FLIGHT already; only QoS 0 could fill it, and that may go."""


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended, or why it never came to be. ``code``: MQTT 5 reason code where the broker gave one."""

    words: str
    code: int | None = None
    established: bool = False
    keepalive: bool = False  # nothing was heard any more: nobody's message is to blame


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer, the host's name checked, our own CA where one is set. Raises OSError naming the file."""
    for path in (settings.ca_file, settings.cert_file, settings.key_file):
        if path:
            with open(path, "rb"):  # noqa: PTH123 - OpenSSL's own error does not name the file
                pass
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    return context


class _Client(paho.Client):
    """One that a broker which heeds no limit cannot make hold more than ``largest`` bytes of one packet, and that
    leaves no socket open whose certificate it does not trust."""

    largest = LARGEST_PACKET

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._in_packet["remaining_length"] > self.largest:  # known before any of it is read
            raise ConnectionError(f"a packet of over {self.largest} bytes")
        return super()._sock_recv(bufsize)

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        if self._ssl_context is None:
            raise ValueError("there is no TLS context")
        sock = self._ssl_context.wrap_socket(tcp_sock, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            sock.settimeout(self._connect_timeout)
            sock.do_handshake()  # which checks the host's name as well
        except OSError:
            sock.close()
            raise
        return sock


class Connection:
    """``open``, then use it until ``ended`` is set. Lives on the loop."""

    def __init__(
        self, settings: MqttSettings, client_id: str, will: Will | None, context: ssl.SSLContext | None,
        on_message: Callable[[Message, Callable[[], None]], None], *, lasting: bool = True,
        largest: int = LARGEST_PACKET, waiting: int = INBOX,
    ) -> None:
        """``on_message`` is called on the loop with the message and what acknowledges it. ``lasting``: the broker keeps
        what comes for us while we are away; ``largest``: bytes of a packet that is taken; ``waiting``: hand-overs."""
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.largest_packet = 0  # the broker's limit in bytes, 0 for none
        self._settings = settings
        self._client_id = client_id
        self._on_message = on_message
        self._established = False
        self._closed = False
        self._starting: asyncio.Future[Any] | None = None
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._inbox: Inbox[Callable[[], None]] = Inbox(
            asyncio.get_running_loop(), waiting, "mqtt", deliver=lambda call: call(), on_drop=self._overrun)
        self._lasting = lasting
        self._largest = largest
        self._client = self._make(will, context)

    def _make(self, will: Will | None, context: ssl.SSLContext | None) -> paho.Client:
        client = _Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id, protocol=paho.MQTTv5, reconnect_on_failure=False,
            manual_ack=True)
        client.largest = self._largest
        client.connect_timeout = PAHO_TCP_S
        client.max_inflight_messages_set(IN_FLIGHT)
        client.max_queued_messages_set(4 * IN_FLIGHT)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        if self._settings.username:
            client.username_pw_set(self._settings.username, self._settings.password.reveal() or None)
        if context is not None:
            client.tls_set_context(context)
        put = self._inbox.put
        client.on_connect = lambda _c, _u, _f, code, properties: put(lambda: self._connack(code, properties))
        client.on_connect_fail = lambda c, _u: put(self._failed(c, sys.exception()))
        client.on_disconnect = lambda _c, _u, flags, code, _p: put(
            lambda: self._disconnected(code, flags.is_disconnect_packet_from_server))
        client.on_message = lambda _c, _u, message: put(lambda: self._message(message))
        client.on_publish = lambda _c, _u, mid, code, _p: put(lambda: self._acked(mid, code.value))
        client.on_subscribe = lambda _c, _u, mid, codes, _p: put(lambda: self._acked(mid, max(c.value for c in codes)))
        return client

    async def open(self) -> None:
        """Returns when the broker has accepted us, else sets ``ended``. At most CONNECT_S."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if self._lasting:
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = self._largest
        # clean_start=False on the very first CONNECT as well: else Mosquitto never writes the session to disk.
        self._client.connect_async(
            self._settings.host, self._settings.port, self._settings.keepalive_s, clean_start=not self._lasting,
            properties=properties)
        # It waits for a socket of its own; and paho cannot stop a thread that is only just being started.
        self._starting = asyncio.ensure_future(asyncio.to_thread(self._client.loop_start))
        await asyncio.shield(self._starting)
        either: set[asyncio.Future[Any]] = {self._connected, self.ended}
        done, _ = await asyncio.wait(either, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            self._end(Ending(f"no answer within {CONNECT_S:g} s"))

    @property
    def established(self) -> bool:
        """The broker has accepted us; it may have ended since."""
        return self._established

    async def watch(self) -> Ending:
        """Wait for the end. paho's thread can die of an exception without a word; that is an end too."""
        while not self.ended.done():
            await asyncio.wait({self.ended}, timeout=WATCH_S)
            names = {thread.name for thread in threading.enumerate()}
            if not self.ended.done() and f"paho-mqtt-client-{self._client_id}" not in names:
                self._end(Ending("the client's thread died", established=self._established))
        return self.ended.result()

    def abandon(self, why: str) -> None:
        """Give it up: whoever watches closes it and makes a new one. The rest of what was under way is not blamed."""
        self._end(Ending(why, established=self._established, keepalive=True))

    def is_cut_off(self, addresses: Set[str]) -> bool:
        """Whether it begins at none of these addresses of this machine any more, or has not got so far as to begin."""
        sock: Any = self._client.socket()
        if sock is None:
            return not self._established
        try:
            return is_cut_off(sock.getsockname()[0], addresses)
        except OSError:  # paho's thread has just closed it
            return True

    async def close(self, within_s: float = CONNECT_S) -> None:
        """Send DISCONNECT and wait until paho's thread is gone. May be called twice."""
        self._end(Ending("closed here", established=self._established))
        if self._closed:
            return
        self._closed = True
        client = self._client
        client.disconnect()
        try:
            async with asyncio.timeout(within_s):
                if self._starting is not None:
                    await self._starting
                await asyncio.to_thread(client.loop_stop)
        except TimeoutError:  # it hangs in a DNS look-up; it is a daemon thread and ends with that
            log.warning("the MQTT client's thread did not end within %g s", within_s)
        self._inbox.close()
        # paho closes the sockets that wake its thread only when it is freed: leave nothing that keeps it.
        client.on_connect = client.on_connect_fail = client.on_disconnect = None
        client.on_message = client.on_publish = client.on_subscribe = None
        del self._client

    async def subscribe(self, filters: Iterable[str]) -> None:
        """QoS 1. Retained messages only for a new subscription, and marked as such even when published live."""
        options = SubscribeOptions(qos=1, retainAsPublished=True,
                                   retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        wanted = [(topic_filter, options) for topic_filter in filters]
        if not wanted or self.ended.done():
            return
        _, mid = self._client.subscribe(wanted)
        code = None if mid is None else await self._ack(mid)
        if code is None or code >= 0x80:
            log.warning("the broker did not grant a subscription to %s (%s)",
                        ", ".join(name for name, _ in wanted), "no answer" if code is None else f"0x{code:02x}")

    def fits(self, topic: str, payload: bytes) -> bool:
        """Whether the broker takes a packet of this size; one too large would end the connection."""
        return not self.largest_packet or len(topic.encode()) + len(payload) + 32 <= self.largest_packet

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, expiry_s: int | None,
                ) -> Awaitable[int | None]:
        """Hand over now, in order of the calls. The awaitable gives the PUBACK's reason code (0 for QoS 0), None when
        none came within PUBACK_S or the connection ended."""
        if self.ended.done() or not self._established:  # paho would keep it and send it later, behind our back
            return _settled(None)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if expiry_s is not None:
            properties.MessageExpiryInterval = max(1, expiry_s)
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return _settled(None)
        return self._ack(info.mid) if qos else _settled(0)

    def _ack(self, mid: int) -> Awaitable[int | None]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks[mid] = future
        return self._ack_within(mid, future)

    async def _ack_within(self, mid: int, future: asyncio.Future[int]) -> int | None:
        try:
            either: set[asyncio.Future[Any]] = {future, self.ended}
            done, _ = await asyncio.wait(either, timeout=PUBACK_S, return_when=asyncio.FIRST_COMPLETED)
            return future.result() if future in done else None
        finally:
            self._acks.pop(mid, None)

    # --- called on the loop, handed over by paho's thread

    def _connack(self, code: ReasonCode, properties: Properties | None) -> None:
        if code.value >= 0x80:
            self._end(Ending(f"refused: {code}", code.value))
            self._client.disconnect()
            return
        self.largest_packet = int(getattr(properties, "MaximumPacketSize", 0))
        # MQTT 5, 3.2.2.3.3: more than the broker takes at once ends the connection. paho neither heeds this nor lets
        # the bound be set once connected; nothing is under way yet, so its own count can still be given another.
        limit = int(getattr(properties, "ReceiveMaximum", IN_FLIGHT))
        self._client._max_inflight_messages = min(IN_FLIGHT, limit)
        self._established = True
        if not self._connected.done():
            self._connected.set_result(None)

    def _failed(self, client: paho.Client, error: BaseException | None) -> Callable[[], None]:
        client.disconnect()  # else paho tries again by itself
        return lambda: self._end(Ending(str(error) or type(error).__name__))

    def _disconnected(self, code: ReasonCode, by_broker: bool) -> None:
        words = f"the broker ended it: {code}" if by_broker else f"connection lost ({code})"
        self._end(Ending(words, code.value if by_broker else None, self._established,
                         keepalive=not by_broker and code.value == 0x8D))

    def _message(self, message: paho.MQTTMessage) -> None:
        properties = message.properties
        expiry = getattr(properties, "MessageExpiryInterval", None)
        try:
            received = Message(
                topic=message.topic, payload=bytes(message.payload), retained=message.retain, qos=message.qos,
                expiry_s=None if expiry is None else float(expiry),
                correlation=getattr(properties, "CorrelationData", None),
                response_topic=getattr(properties, "ResponseTopic", None), arrived=time.monotonic())
        except UnicodeDecodeError:  # a broker must not let it through (MQTT 5, 1.5.4)
            log.warning("a message with a topic that is not UTF-8 was thrown away")
            self._client.ack(message.mid, message.qos)
            return
        mid, qos = message.mid, message.qos
        self._on_message(received, lambda: self._acknowledge(mid, qos))

    def _acknowledge(self, mid: int, qos: int) -> None:
        if not self.ended.done():  # the packet id belongs to this connection; a new one delivers it again
            self._client.ack(mid, qos)

    def _acked(self, mid: int, code: int) -> None:
        future = self._acks.get(mid)
        if future is not None and not future.done():
            future.set_result(code)

    def _overrun(self) -> None:
        log.error("over %d messages of the broker wait; the connection is made anew", self._inbox.limit)
        self._end(Ending("it sends more than is taken", established=self._established))

    def _end(self, ending: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(ending)


async def _settled(code: int | None) -> int | None:
    return code

