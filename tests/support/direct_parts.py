"""Parts for direct calls without sockets: a broker and links in memory, page channels, and scripted media.

``MemoryBroker`` keeps what Mosquitto with our ACL keeps: a device publishes only under its own name, gets what is
addressed to it, and finds after a cut what has not expired. Media sessions only pretend: their SDP names the session,
and one that has both descriptions is up at both ends at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from appliance.errors import Refused, SignalingError
from appliance.handover import PeerIdentity
from appliance.link.api import Message
from appliance.media.api import (
    DataMessage,
    Directions,
    IceServers,
    SessionClosed,
    SessionSilent,
    SessionSound,
    SessionUp,
    Studio,
)
from appliance.providers import api
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.provider import DirectProvider
from appliance.settings import PeerSettings
from appliance.vocabulary import Json, Scope
from tests.support.told_session import ToldSession

JPEG = b"\xff\xd8\xff\xe0" + bytes(2000)


class LoopClock:
    """The loop's clock, virtual where the loop's is; the wall clock runs beside it and may be set wrong."""

    def __init__(self) -> None:
        self.ahead = 1_700_000_000.0
        self.trusted = True

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self.monotonic() + self.ahead

    def synchronised(self) -> bool:
        return self.trusted


# --- a broker -------------------------------------------------------------------------------------------------------


class MemoryBroker:
    """Carries messages between links; ``delay_s`` each way, ``stalled`` holds everything, ``twice`` repeats."""

    def __init__(self) -> None:
        self.links: dict[str, MemoryLink] = {}
        self.log: list[tuple[str, str, str]] = []  # from, to, type
        self.delay_s = 0.001
        self.twice = False
        self.up = True

    def link(self, device: str) -> MemoryLink:
        return self.links.setdefault(device, MemoryLink(self, device))

    def cut(self, *devices: str) -> None:
        for device in devices or tuple(self.links):
            self.links[device].set_connected(False)

    def mend(self, *devices: str) -> None:
        for device in devices or tuple(self.links):
            self.links[device].set_connected(True)

    def types(self, sender: str, receiver: str) -> list[str]:
        return [kind for a, b, kind in self.log if (a, b) == (sender, receiver)]

    def carry(self, topic: str, payload: bytes, expiry_s: float | None, *, retained: bool = False) -> None:
        """Deliver a message as the broker would, whoever it claims to be from."""
        _, _, receiver, _, sender = topic.split("/")
        self.log.append((sender, receiver, json.loads(payload)["type"]))
        link = self.links.get(receiver)
        if link is None:
            return
        loop = asyncio.get_running_loop()
        for copy in range(2 if self.twice else 1):
            loop.call_later(self.delay_s * (copy + 1), link.deliver, topic, payload, expiry_s, loop.time(), retained)


class MemoryLink:
    """A ``link.api.Link``."""

    def __init__(self, broker: MemoryBroker, device: str) -> None:
        self._broker = broker
        self._device = device
        self._connected = True
        self._told: list[Callable[[bool], None]] = []
        self._handler: Callable[[Message], Awaitable[None]] | None = None
        self._waiting: list[tuple[str, bytes, float | None, float, bool]] = []
        self._tasks: set[asyncio.Future[None]] = set()

    @property
    def connected(self) -> bool:
        return self._connected

    def on_connection(self, tell: Callable[[bool], None]) -> None:
        self._told.append(tell)
        tell(self._connected)

    def receive(self, topic_filter: str, handler: Callable[[Message], Awaitable[None]]) -> None:
        assert topic_filter == f"edgecall/v1/{self._device}/signal/+"
        self._handler = handler

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False,
                      expiry_s: int | None = None) -> bool:
        if not self._connected:
            return False
        assert topic.endswith(f"/signal/{self._device}"), "the ACL lets a device publish under its own name only"
        assert not retain
        self._broker.carry(topic, payload, expiry_s)
        return True

    async def enqueue(self, topic: str, payload: bytes, *, expiry_s: int | None = None) -> None:
        raise AssertionError("signalling is never queued on disk")

    def set_connected(self, connected: bool) -> None:
        if connected == self._connected:
            return
        self._connected = connected
        for tell in self._told:
            tell(connected)
        if connected:
            waiting, self._waiting = self._waiting, []
            for message in waiting:
                self.deliver(*message)

    def deliver(self, topic: str, payload: bytes, expiry_s: float | None, sent: float, retained: bool) -> None:
        loop = asyncio.get_running_loop()
        left = None if expiry_s is None else expiry_s - (loop.time() - sent)
        if left is not None and left <= 0:
            return
        if not self._connected:
            self._waiting.append((topic, payload, expiry_s, sent, retained))
            return
        if self._handler is None:
            return
        task = asyncio.ensure_future(
            self._handler(Message(topic, payload, retained, 1, left, None, None, loop.time())))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


# --- media ----------------------------------------------------------------------------------------------------------


class ScriptedSession(ToldSession):
    """A ``media.api.Session``; hands: ``silent``, ``sound``, ``tell``."""

    def __init__(self, studio: ScriptedStudio, number: int, wanted: Directions, loopback: bool) -> None:
        super().__init__()
        self.studio = studio
        self.name = f"{studio.name}-{number}"
        self.wanted = wanted
        self.loopback = loopback
        self.other: ScriptedSession | None = None
        self.closed = False
        self.candidates: list[str] = []
        self.received: list[Json] = []  # of what the peer sent, in the statistics
        self.peer_says = (True, True)
        self.sent: list[tuple[str, str]] = []
        studio.world[self.name] = self

    async def offer(self) -> str:
        await asyncio.sleep(0.005)
        return f"v=0 offer {self.name}"

    async def answer(self, offer: str) -> str:
        if not offer.startswith("v=0 offer "):
            raise SignalingError("the peer's offer cannot be used")
        if "nocodec" in offer:
            raise Refused("no codec in common", code=488, sub_code="noCodec")
        await asyncio.sleep(0.005)
        self.other = self.studio.world.get(offer.removeprefix("v=0 offer "))
        return f"v=0 answer {self.name}"

    async def accept_answer(self, answer: str) -> None:
        self.other = self.studio.world.get(answer.removeprefix("v=0 answer "))
        if self.other is None:
            raise SignalingError("the peer's answer cannot be used")
        if self.studio.connects and self.other.studio.connects and not (self.closed or self.other.closed):
            for end in (self, self.other):
                end.tell(SessionUp({"srtpCipher": "SRTP_AEAD_AES_128_GCM"}))

    async def add_candidate(self, candidate: str, mid: str | None, line: int | None) -> None:
        self.candidates.append(candidate)

    def set_directions(self, wanted: Directions) -> None:
        self.wanted = wanted

    def peer_sends(self, *, audio: bool, video: bool) -> None:
        self.peer_says = (audio, video)

    def send(
        self, channel: str, payload: str, *, to: Sequence[str] = (), lossy: bool = False, urgent: bool = False,
    ) -> None:
        self.sent.append((channel, payload))
        if self.other is not None:
            self.other.tell(DataMessage(channel, payload))

    async def stats(self) -> Sequence[Json]:
        return [{"type": "transport", "id": self.name}, *self.received]

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.tell(SessionClosed("closed"))

    def silent(self) -> None:
        self.tell(SessionSilent(3.0))

    def sound(self) -> None:
        self.tell(SessionSound())


class ScriptedStudio:
    """What the provider needs of a ``media.api.Studio``. ``connects``: whether the network carries media."""

    _numbers = itertools.count(1)

    def __init__(self, name: str, world: dict[str, ScriptedSession]) -> None:
        self.name = name
        self.world = world
        self.connects = True
        self.sessions: list[ScriptedSession] = []
        self.snapshots = 0

    def session(self, wanted: Directions, *, ice: IceServers, loopback: bool) -> ScriptedSession:
        made = ScriptedSession(self, next(self._numbers), wanted, loopback)
        self.sessions.append(made)
        return made

    async def snapshot(self, width: int = 640) -> bytes:
        self.snapshots += 1
        await asyncio.sleep(0.02)
        return JPEG

    @property
    def open(self) -> list[ScriptedSession]:
        return [session for session in self.sessions if not session.closed]


# --- an appliance and its peers -------------------------------------------------------------------------------------


@dataclass
class Told:
    """Facts of a leg, read as they come."""

    leg: api.Leg
    events: list[api.LegEvent] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, leg: api.Leg) -> Told:
        told = cls(leg)
        told.task = asyncio.create_task(told._read(), name="test.told")
        return told

    async def _read(self) -> None:
        async for event in self.leg.events():
            self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    @property
    def ended(self) -> str:
        """Key of the end reason; empty while the leg lives."""
        return next((event.reason.key for event in self.events if isinstance(event, api.Ended)), "")


class Device:
    """A provider on a scripted studio."""

    def __init__(self, name: str, broker: MemoryBroker | None, world: dict[str, ScriptedSession], *,
                 accept: Callable[[str], bool] = lambda _: True, peers: Sequence[PeerSettings] = ()) -> None:
        self.name = name
        self.clock = LoopClock()
        self.studio = ScriptedStudio(name, world)
        self.refused: list[tuple[str, str]] = []
        self.duty: list[Sequence[str]] = []
        self.incoming: list[api.IncomingCall] = []
        self.told: dict[str, Told] = {}
        self.answers = True  # ring and accept what comes
        self.rings = True
        self.provider = DirectProvider(
            wire.Party(name, name.title()), cast(Studio, self.studio), self.clock, ice=IceServers(),
            link=broker.link(name) if broker is not None else None, peers=peers, accept_from=accept,
            refused=lambda why, sender: self.refused.append((why, sender)), on_duty=self.duty.append)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Device:
        await self.provider.start(self._on_incoming)
        return self

    async def stop(self) -> None:
        await self.provider.stop()
        await asyncio.gather(*self._tasks, *(t.task for t in self.told.values() if t.task is not None))

    def _on_incoming(self, call: api.IncomingCall) -> None:
        self.incoming.append(call)
        self.told[call.call_id] = Told.of(call.leg)
        task = asyncio.create_task(self._take(call), name="test.take")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, call: api.IncomingCall) -> None:
        if self.rings:
            await call.leg.ring()
        if self.answers:
            await call.leg.accept(api.MediaWanted())

    async def dial(self, uri: str, call_id: str = "call-0001") -> Told:
        scheme, _, address = uri.partition(":")
        me = api.Peer(self.name, f"device:{self.name}", self.name.title(), "device", True)
        leg = await self.provider.dial(api.Target(scheme, address), call_id=call_id, caller=me, media=api.MediaWanted())
        told = Told.of(leg)
        self.told[call_id] = told
        return told


class Tab:
    """A page: a ``PeerChannel`` for the provider, and the page's side of it in the test's hand."""

    def __init__(self, device: Device, name: str = "olga", scope: Scope = Scope.OPERATOR, *, token: str = "") -> None:
        self.identity = PeerIdentity(name, scope, name.title(), loopback=True, session=f"session-{name}")
        self.device = device
        self.token = token
        self.got: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self._to_server: asyncio.Queue[str | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._nonces = itertools.count(1)

    # PeerChannel, as the provider sees it

    async def send(self, text: str) -> None:
        if self.closed is not None:
            raise ConnectionError("the page is gone")
        self.got.append(json.loads(text))

    async def __aiter__(self) -> AsyncIterator[str]:
        while (text := await self._to_server.get()) is not None:
            yield text

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.closed is None:
            self.closed = (code, reason)
            self._to_server.put_nowait(None)

    # the page

    async def connect(self) -> Tab:
        self._task = asyncio.create_task(self.attached(), name="test.attach")
        self.say("hello", client="page", token=self.token)
        await asyncio.sleep(0.01)
        for message in self.got:
            if message["type"] == "welcome":
                self.token = message["token"]
        return self

    async def attached(self) -> None:
        await self.device.provider.attach(self)

    async def on_duty(self) -> Tab:
        await self.connect()
        self.say("duty", on=True, displayName=self.identity.name.title())
        await asyncio.sleep(0.01)
        return self

    def say(self, kind: str, **fields: Any) -> None:
        self.say_text(json.dumps({"v": 1, "type": kind, "nonce": f"{id(self):016}-{next(self._nonces)}",
                                  "ts": self.device.clock.wall(), **fields}))

    def say_text(self, text: str) -> None:
        self._to_server.put_nowait(text)

    async def vanish(self, *, leaving: bool = False) -> None:
        """The socket is gone; with ``leaving`` the page has said so before."""
        if leaving:
            self.say("leaving")
        self._to_server.put_nowait(None)
        if self._task is not None:
            await self._task
        self.closed = self.closed or (1006, "")

    def types(self) -> list[str]:
        return [message["type"] for message in self.got]

    def last(self, kind: str) -> dict[str, Any]:
        return [message for message in self.got if message["type"] == kind][-1]
