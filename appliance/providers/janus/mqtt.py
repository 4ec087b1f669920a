"""A Janus server by its MQTT transport (MQTT 5), through a broker that is trusted.

Source: https://janus.conf.meetecho.com/docs/mqtt.html. A server has a topic for requests, one on which it answers
everybody, and may have one for its status. Whoever reads the second knows the sessions of all others, and whoever
writes to the first may use them: that is why the broker must be trusted.

The connection is one of its own, with a login of its own: it lasts as long as a room is joined, its broker may be
another one than that of the commands, and what was missed while it was away is of no use afterwards.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from appliance.link.api import Message
from appliance.link.connection import Connection, tls_context
from appliance.providers.janus.transport import CLOSE_S, HEARTBEAT_S, MAX_MESSAGE, Channel, parsed
from appliance.settings import MqttSettings, Secret
from appliance.vocabulary import Json

__all__ = ["Broker", "Topics"]

log = logging.getLogger(__name__)

REQUEST_S: Final = 10  # then the broker throws a request away: a server that comes back is not to do what is over
REQUESTS: Final = 512  # whose answers are told from those of others; of an older one none is awaited any more
WAITING: Final = 64  # messages from the broker that nobody here has taken yet
NOBODY: Final = 0x10  # PUBACK: no matching subscribers (MQTT 5, 3.4.2.1)
PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Topics:
    """Of a server, below the path of its URL. ``status``: ``""`` where it tells none."""

    requests: str
    answers: str
    status: str = ""

    def below(self, path: str) -> Topics:
        prefix = path.strip("/")
        return Topics(*(f"{prefix}/{one}" if prefix and one else one
                        for one in (self.requests, self.answers, self.status)))


@dataclass(frozen=True, slots=True)
class Broker:
    """How brokers are logged in to. Files as in ``[mqtt]`` of the settings."""

    topics: Topics
    username: str = ""
    password: Secret = field(default_factory=Secret)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    async def connect(self, url: str) -> Channel:
        """As ``transport.Connect``: to a server that has answered."""
        parts = URL(url)
        settings = MqttSettings(
            host=parts.host or "", port=parts.explicit_port or PORTS[parts.scheme], tls=parts.scheme == "mqtts",
            ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file, username=self.username,
            password=self.password, keepalive_s=int(HEARTBEAT_S))
        context = await asyncio.to_thread(tls_context, settings) if settings.tls else None
        channel = _ByTopics(settings, context, self.topics.below(parts.path))
        try:
            await channel.open()
        except BaseException:
            await channel.close()
            raise
        return channel


class _ByTopics:
    """A Channel. Of what the server tells everybody it lets through what is ours."""

    def __init__(self, settings: MqttSettings, context: ssl.SSLContext | None, topics: Topics) -> None:
        self._connection = Connection(
            settings, f"edgecall-{secrets.token_hex(4)}", None, context, self._arrived, lasting=False,
            largest=MAX_MESSAGE, waiting=WAITING)
        self._topics = topics
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._session: object = None
        self._told: deque[Json] = deque()
        self._complained = False
        self._ready = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._connection.ended.add_done_callback(lambda _: self._ready.set())

    async def open(self) -> None:
        """Until the server has answered."""
        await self._connection.open()
        if not self._connection.ended.done():
            await self._connection.subscribe(one for one in (self._topics.answers, self._topics.status) if one)
        transaction = secrets.token_urlsafe(12)
        await self.send({"janus": "ping", "transaction": transaction})
        while (await self.receive()).get("transaction") != transaction:
            continue

    async def send(self, message: Json) -> None:
        """Returns when the broker has taken it."""
        self._asked[str(message.get("transaction"))] = None
        if len(self._asked) > REQUESTS:
            self._asked.popitem(last=False)
        self._session = message.get("session_id", self._session)
        payload = json.dumps(message, separators=(",", ":")).encode()
        if not self._connection.fits(self._topics.requests, payload):
            self._leave(f"a request of {len(payload)} bytes is more than the broker takes "
                        f"({self._connection.largest_packet}); let it take more")
            raise ConnectionError(self._connection.ended.result().words)
        code = await self._connection.publish(self._topics.requests, payload, qos=1, retain=False, expiry_s=REQUEST_S)
        if code is None:
            self._leave("the broker takes no message")
        elif code == NOBODY:
            self._leave("no room server listens at the broker")
        elif code >= 0x80:
            self._leave(f"the broker refuses to pass requests on (0x{code:02x}); see its access list")
        if self._connection.ended.done():
            raise ConnectionError(self._connection.ended.result().words)

    async def receive(self) -> Json:
        while not self._told:
            if self._connection.ended.done():
                raise ConnectionError(self._connection.ended.result().words)
            self._ready.clear()
            await self._ready.wait()
        return self._told.popleft()

    def is_cut_off(self, addresses: Set[str]) -> bool:
        return self._connection.is_cut_off(addresses)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._connection.close(CLOSE_S), name="janus.mqtt.close")
        await asyncio.shield(self._closing)

    def _leave(self, words: str) -> None:
        self._connection.abandon(words)

    # --- called on the loop, by the connection

    def _arrived(self, message: Message, acknowledge: Callable[[], None]) -> None:
        acknowledge()
        told = parsed(message.payload)
        if message.topic == self._topics.status:
            if told is not None and told.get("online") is False:
                self._leave("the room server is not at the broker")
            return
        if told is None:
            self._complain()
        elif message.retained or not self._is_ours(told):
            return
        elif len(self._told) >= WAITING:
            self._leave("it sends more than is taken")
        else:
            self._told.append(told)
            self._ready.set()

    def _complain(self) -> None:
        """Once: whoever may write to the topic must not fill the log."""
        if not self._complained:
            log.warning("a message on the topic of the room server is no JSON object; such ones are left out")
        self._complained = True

    def _is_ours(self, told: Json) -> bool:
        transaction = told.get("transaction")
        if isinstance(transaction, str):
            return transaction in self._asked
        return self._session is not None and told.get("session_id") == self._session
