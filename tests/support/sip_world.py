"""User agents on a network in memory, on a clock in the test's hand."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from appliance.providers.sip.agent import Agent, Hop, Identity, Seen
from appliance.providers.sip.digest import Credentials
from appliance.providers.sip.events import Event
from appliance.providers.sip.incoming import IncomingCall
from appliance.providers.sip.message import Request, Response, parse
from appliance.providers.sip.outgoing import OutgoingCall
from appliance.providers.sip.transaction import ServerInvite
from appliance.providers.sip.uri import Uri

__all__ = ["ANSWER", "OFFER", "PROXY", "TO", "A", "B", "Clock", "End", "Network", "Script", "Sent", "World"]


class _Handle:
    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._callback: Callable[..., object] | None = callback
        self._args = args

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback(*self._args)


class Clock:
    """Moves only by ``pass_time``; what is due is called in order."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._due: list[tuple[float, int, _Handle]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> _Handle:
        handle = _Handle(callback, args)
        heapq.heappush(self._due, (self._now + delay, next(self._numbers), handle))
        return handle

    def pass_time(self, seconds: float) -> None:
        end = self._now + seconds
        while self._due and self._due[0][0] <= end:
            at, _, handle = heapq.heappop(self._due)
            self._now = max(self._now, at)
            handle.fire()
        self._now = end


@dataclass(frozen=True)
class Sent:
    """One message that left, whether it arrived or not."""

    at: float
    source: Hop
    to: Hop
    message: Request | Response

    @property
    def word(self) -> str:
        """``INVITE``, or ``200 INVITE``."""
        one = self.message
        return one.method if isinstance(one, Request) else f"{one.status} {one.cseq.method}"


class Network:
    """Carries messages at once. ``lose``: told of each, says whether it is lost. ``taps``: ends without an agent.
    ``deaf``: those who take no connection."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sent: list[Sent] = []
        self.lose: Callable[[Sent], bool] = lambda _: False
        self.deaf: set[tuple[str, int]] = set()
        self.taps: dict[tuple[str, int], Callable[[Request | Response, Hop], None]] = {}
        self._ends: dict[tuple[str, int], Callable[[bytes, Hop], None]] = {}

    def attach(self, hop: Hop, receive: Callable[[bytes, Hop], None]) -> None:
        self._ends[hop.host, hop.port] = receive

    def carry(self, data: bytes, source: Hop, to: Hop) -> None:
        message = parse(data)
        sent = Sent(self.clock.time(), source, to, message)
        self.sent.append(sent)
        if self.lose(sent):
            return
        place = to.host, to.port
        if place in self.taps:
            self.clock.call_later(0, self.taps[place], message, source)
        elif place in self._ends:
            self.clock.call_later(0, self._ends[place], data, source)

    def words(self, source: Hop | None = None) -> list[str]:
        return [one.word for one in self.sent if source is None or one.source == source]


class _Wire:
    """``probes``: what its agent wants to know of the way to its server, each to be told by the test."""

    def __init__(self, network: Network, here: Hop) -> None:
        self._network = network
        self._here = here
        self.probes: list[tuple[float, Callable[[Seen | None], None]]] = []

    def probe(self, heard: Callable[[Seen | None], None]) -> None:
        self.probes.append((self._network.clock.time(), heard))

    def local(self, hop: Hop) -> tuple[str, int]:
        return self._here.host, self._here.port

    def send(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None:
        if hop.transport == "tcp" and (hop.host, hop.port) in self._network.deaf:
            self._network.clock.call_later(0, failed)
        else:
            self._network.carry(data, replace(self._here, transport=hop.transport), hop)


@dataclass
class End:
    """One user agent at ``sip:name@host``; ``calls`` are those that came in, ``told`` what the calls said."""

    network: Network
    name: str
    host: str
    server: Hop
    trusted: bool = True
    password: str = ""
    transport: str = "udp"
    instance: str = ""
    calls: list[IncomingCall] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hop = Hop(self.transport, self.host, 5060)
        address = Uri("sip", self.name, "example.org")
        self.wire = _Wire(self.network, self.hop)
        self.agent = Agent(
            Identity(address, f"secret-{self.name}", self.server, instance=self.instance,
                     trusted=lambda _: self.trusted),
            self.wire, self.network.clock, on_invite=self._invited,
            credentials=Credentials(self.name, self.password) if self.password else None)
        self.network.attach(self.hop, self.agent.receive)

    def _invited(self, request: Request, transaction: ServerInvite, hop: Hop) -> None:
        call = IncomingCall(self.agent, request, transaction)
        call.listen(self.told.append)
        self.calls.append(call)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


A, B, PROXY = Hop("udp", "192.0.2.1", 5060), Hop("udp", "192.0.2.2", 5060), Hop("udp", "192.0.2.9", 5060)
TO = Uri("sip", "bob", "example.org")
OFFER, ANSWER = b"v=0 offer", b"v=0 answer"


class World:
    """Anna calls; Bob is behind her server's address, which is his own."""

    def __init__(self, **anna: Any) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.anna = End(self.network, "anna", A.host, anna.pop("server", B), **anna)
        self.bob = End(self.network, "bob", B.host, A)
        self.told: list[Event] = []
        self.call = OutgoingCall(self.anna.agent, self.told.append)

    def dial(self) -> None:
        self.call.start(TO, OFFER)
        self.clock.pass_time(0.01)

    def connect(self) -> None:
        self.dial()
        self.bob.calls[0].ring()
        self.bob.calls[0].accept(ANSWER)
        self.clock.pass_time(0.01)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    def lose(self, *words: str) -> None:
        """The next message of each of these words."""
        left = list(words)

        def lost(sent: Any) -> bool:
            if sent.word in left:
                left.remove(sent.word)
                return True
            return False

        self.network.lose = lost

    def nothing_left(self) -> None:
        self.clock.pass_time(40)
        assert self.anna.agent.busy == 0
        assert self.bob.agent.busy == 0


class Script:
    """A peer at the proxy's address that says what the test writes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.got: list[Request | Response] = []
        world.network.taps[PROXY.host, PROXY.port] = lambda message, _: self.got.append(message)

    def say(self, to: Request, status: int, tag: str, *fields: tuple[str, str], body: bytes = b"") -> None:
        response = to.response(status, "said", tag=tag)
        response.headers.add("Contact", f"<sip:{tag}@{PROXY.host}>")
        for name, value in fields:
            response.headers.add(name, value)
        response.body = body
        self.world.network.carry(response.serialise(), PROXY, A)
        self.world.clock.pass_time(0.01)

    def requests(self, method: str) -> list[Request]:
        """Each once, but an ACK as often as it comes."""
        found = [one for one in self.got if isinstance(one, Request) and one.method == method]
        return found if method == "ACK" else list({one.via.branch: one for one in reversed(found)}.values())[::-1]
