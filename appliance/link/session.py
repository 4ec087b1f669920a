"""The one MQTT connection that comes and goes by itself. Implements link.api.Link."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from appliance.errors import StoreError
from appliance.link.api import Message
from appliance.link.connection import Connection, Ending, Will, tls_context
from appliance.link.lean_paho import paho
from appliance.link.outbox import OutboxPump
from appliance.network import Network
from appliance.settings import MqttSettings
from appliance.store import Store
from appliance.vocabulary import ROOT

__all__ = ["Session", "retry_delay"]

log = logging.getLogger(__name__)

RETRY_FIRST_S: Final = 1.0
RETRY_LAST_S: Final = 30.0
STEADY_S: Final = 30.0
"""A connection that held this long proves the broker well: the next retry starts from the shortest delay again."""
SLOW_CODES: Final = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C})
"""CONNACK: protocol, client id, login, not authorised, banned, method. Asking more often does not change the answer."""
TAKEN_OVER: Final = 0x8E
WAITING: Final = 64
"""Messages per filter. More than the receive maximum only by QoS 0, or by what three connections delivered while the
handler hung; both are thrown away (unacknowledged: the broker delivers them again) and counted."""
PUBLISHERS: Final = 32
STOP_S: Final = 2.0

Handler = Callable[[Message], Awaitable[None]]


def retry_delay(attempt: int, ending: Ending, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds until try ``attempt`` (1: the first after an end). Full jitter: a fleet must not come as one."""
    if ending.code == TAKEN_OVER:  # two devices with one id would push each other out for ever
        return uniform(RETRY_LAST_S, 2 * RETRY_LAST_S)
    if not ending.established and ending.code in SLOW_CODES:
        return uniform(RETRY_LAST_S / 2, RETRY_LAST_S)
    return uniform(RETRY_FIRST_S / 2, min(RETRY_LAST_S, RETRY_FIRST_S * 2.0 ** min(attempt, 10)))


class Session:
    """``start``, ``stop``; in between the Link of everybody who speaks MQTT. Works with the broker absent."""

    def __init__(
        self, settings: MqttSettings, device_id: str, store: Store, *,
        on_poison: Callable[[str, str], None] = lambda _topic, _why: None,
        on_taken_over: Callable[[], None] = lambda: None, wall: Callable[[], float] = time.time,
    ) -> None:
        """``on_poison``: an outbox row was set aside (topic, why). ``on_taken_over``: another client has our id."""
        self._settings = settings
        self._device_id = device_id
        self._store = store
        self._availability = f"{ROOT}/{device_id}/state/availability"
        self._pump = OutboxPump(store, f"{ROOT}/{device_id}/log/gap", wall, on_poison)
        self._on_taken_over = on_taken_over
        self._connection: Connection | None = None
        self._connected = False  # subscribed and `online` said: a little after _connection is there
        self._tell: list[Callable[[bool], None]] = []
        self._receivers: dict[str, _Receiver] = {}
        self._publishers = asyncio.Semaphore(PUBLISHERS)
        self._task: asyncio.Task[None] | None = None
        self._try_now = asyncio.Event()
        self._told = False

    @property
    def connected(self) -> bool:
        return self._connected

    def on_connection(self, tell: Callable[[bool], None]) -> None:
        self._tell.append(tell)
        tell(self.connected)

    def receive(self, topic_filter: str, handler: Handler) -> None:
        if topic_filter in self._receivers:
            raise ValueError(f"{topic_filter} has a receiver already")
        receiver = self._receivers[topic_filter] = _Receiver(topic_filter, handler)
        if self._task is not None:
            receiver.start()
        if self._connection is not None and self._connection.established:
            receiver.subscribing = asyncio.create_task(
                self._connection.subscribe([topic_filter]), name=f"mqtt subscribe {topic_filter}")

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False,
                      expiry_s: int | None = None) -> bool:
        async with self._publishers:
            connection = self._connection
            if connection is None:
                return False
            if not connection.fits(topic, payload):
                log.error("%s: %d bytes are more than the broker takes (%d)", topic, len(payload),
                          connection.largest_packet)
                return False
            code = await connection.publish(topic, payload, qos=qos, retain=retain, expiry_s=expiry_s)
        if code is not None and code >= 0x80:
            log.warning("the broker refused a message on %s (0x%02x); see its access list", topic, code)
        return code is not None and code < 0x80

    async def enqueue(self, topic: str, payload: bytes, *, expiry_s: int | None = None) -> None:
        await self._store.enqueue(topic, payload, expiry_s=expiry_s)

    def start(self) -> None:
        """Begin to connect, and never give up until ``stop``."""
        if self._task is None:
            for receiver in self._receivers.values():
                receiver.start()
            self._task = asyncio.create_task(self._run(), name="mqtt session")

    def reconnect_now(self) -> None:
        """The network or the broker is back: try at once instead of waiting out the delay."""
        self._try_now.set()

    def network_changed(self, before: Network, now: Network) -> None:
        """A connection that begins at an address which is gone is given up at once: TCP would not tell for long."""
        connection = self._connection
        if connection is not None and connection.is_cut_off(now.addresses):
            connection.abandon("the network it went through is gone")
        self.reconnect_now()

    async def stop(self) -> None:
        """Tell ``offline``, disconnect, within STOP_S. May be called twice."""
        task, self._task = self._task, None
        if task is None:
            return
        if self.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S / 4):
                    await self._pump.idle.wait()
            with contextlib.suppress(TimeoutError):  # after a DISCONNECT of ours the broker does not send the will
                async with asyncio.timeout(STOP_S / 4):
                    await self.publish(self._availability, b"offline", retain=True)
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_S)
        for receiver in self._receivers.values():
            await receiver.stop()

    # --- the loop that never ends by itself

    async def _run(self) -> None:
        attempt, lost_at = 0, time.monotonic()
        while True:
            begun = time.monotonic()
            try:
                ending = await self._connect(attempt, lost_at)
            except Exception as error:
                log.exception("defect: the MQTT session failed")
                ending = Ending(f"defect: {type(error).__name__}")
            now = time.monotonic()
            if ending.established:
                lost_at = now
                if now - begun >= STEADY_S:
                    attempt = 0
            attempt += 1
            self._complain(ending)
            await self._wait(attempt, ending)

    async def _connect(self, attempt: int, lost_at: float) -> Ending:
        """One connection from CONNECT to its end."""
        try:
            context = await asyncio.to_thread(tls_context, self._settings) if self._settings.tls else None
            connection = Connection(self._settings, self._device_id, Will(self._availability, b"offline"), context,
                                    self._arrived)
        except (OSError, ValueError, ssl.SSLError) as error:
            return Ending(f"the TLS files cannot be used: {error}")
        self._connection = connection  # what waited at the broker comes with its CONNACK, and is answered at once
        try:
            await connection.open()
            if not connection.ended.done():
                await self._serve(connection, attempt, lost_at)
            return connection.ended.result() if connection.ended.done() else Ending("closed here", established=True)
        finally:
            self._gone()
            await asyncio.shield(connection.close(STOP_S / 2 if self._task is None else 15.0))

    async def _serve(self, connection: Connection, attempt: int, lost_at: float) -> None:
        await connection.subscribe(self._receivers)
        await connection.publish(self._availability, b"online", qos=1, retain=True, expiry_s=None)
        if connection.ended.done():
            return
        waited = time.monotonic() - lost_at
        log.info("connected to the broker %s:%d%s", self._settings.host, self._settings.port,
                 f" after {waited:.0f} s" if attempt else "")
        self._told = False
        self._try_now.clear()
        self._announce(True)
        pump = asyncio.create_task(self._drain(connection), name="mqtt outbox")
        try:
            ending = await connection.watch()
        finally:
            pump.cancel()
            await asyncio.wait({pump})
        try:
            await self._pump.blame(ending)
        except StoreError as error:
            log.warning("the outbox cannot be written: %s", error.message)

    async def _drain(self, connection: Connection) -> None:
        """The pump, through troubles of the store, for as long as the connection lives."""
        while not connection.ended.done():
            try:
                await self._pump.run(connection)
            except StoreError as error:
                log.warning("the outbox cannot be read: %s", error.message)
                await asyncio.wait({connection.ended}, timeout=RETRY_FIRST_S)

    def _gone(self) -> None:
        self._connection = None
        if self._connected:
            self._announce(False)

    def _announce(self, connected: bool) -> None:
        self._connected = connected
        for tell in tuple(self._tell):
            tell(connected)

    def _complain(self, ending: Ending) -> None:
        """Loud once, quiet after; ``connected`` is the glad word."""
        if ending.code == TAKEN_OVER:
            log.error("another client connected to the broker with our id %r and took the session over; waiting",
                      self._device_id)
            self._on_taken_over()
        level = logging.DEBUG if self._told else logging.WARNING
        self._told = True
        log.log(level, "no connection to the broker %s:%d: %s; trying again until it works",
                self._settings.host, self._settings.port, ending.words)

    async def _wait(self, attempt: int, ending: Ending) -> None:
        delay = retry_delay(attempt, ending)
        if ending.code == TAKEN_OVER:
            await asyncio.sleep(delay)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._try_now.wait()
        self._try_now.clear()

    def _arrived(self, message: Message, acknowledge: Callable[[], None]) -> None:
        for topic_filter, receiver in self._receivers.items():
            if paho.topic_matches_sub(topic_filter, message.topic):
                receiver.put(message, acknowledge)
                return
        log.debug("a message on %s has no receiver (an old subscription)", message.topic)
        acknowledge()


class _Receiver:
    """Messages of one filter, in order, one at a time; each acknowledged when its handler has returned."""

    def __init__(self, topic_filter: str, handler: Handler) -> None:
        self.topic_filter = topic_filter
        self.dropped = 0
        self.subscribing: asyncio.Task[None] | None = None
        self._handler = handler
        self._waiting: deque[tuple[Message, Callable[[], None]]] = deque()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"mqtt receive {self.topic_filter}")

    def put(self, message: Message, acknowledge: Callable[[], None]) -> None:
        if len(self._waiting) >= WAITING:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("messages of %s are thrown away: over %d wait", self.topic_filter, WAITING)
            return
        self._waiting.append((message, acknowledge))
        self._ready.set()

    async def stop(self) -> None:
        tasks = [task for task in (self._task, self.subscribing) if task is not None]
        self._task = self.subscribing = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)

    async def _run(self) -> None:
        while True:
            self._ready.clear()
            while self._waiting:
                message, acknowledge = self._waiting.popleft()
                try:
                    await self._handler(message)
                except Exception:
                    log.exception("defect: the handler of %s failed", self.topic_filter)
                acknowledge()
            await self._ready.wait()
