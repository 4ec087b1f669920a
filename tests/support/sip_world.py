"""User agents on a network in memory, on a clock in the test's hand."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.providers.sip.agent import Agent, Hop, Identity
from appliance.providers.sip.call import Event, IncomingCall
from appliance.providers.sip.digest import Credentials
from appliance.providers.sip.message import Request, Response, parse
from appliance.providers.sip.transaction import ServerInvite
from appliance.providers.sip.uri import Uri

__all__ = ["Clock", "End", "Network", "Sent"]


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
    """Carries datagrams at once. ``lose``: told of each, says whether it is lost. ``taps``: ends without an agent."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sent: list[Sent] = []
        self.lose: Callable[[Sent], bool] = lambda _: False
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
    def __init__(self, network: Network, here: Hop) -> None:
        self._network = network
        self._here = here

    def local(self, hop: Hop) -> tuple[str, int]:
        return self._here.host, self._here.port

    def send(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None:
        self._network.carry(data, self._here, hop)


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
    calls: list[IncomingCall] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hop = Hop(self.transport, self.host, 5060)
        address = Uri("sip", self.name, "example.org")
        self.agent = Agent(
            Identity(address, f"secret-{self.name}", self.server, trusted=lambda _: self.trusted),
            _Wire(self.network, self.hop), self.network.clock, on_invite=self._invited,
            credentials=Credentials(self.name, self.password) if self.password else None)
        self.network.attach(self.hop, self.agent.receive)

    def _invited(self, request: Request, transaction: ServerInvite, hop: Hop) -> None:
        call = IncomingCall(self.agent, request, transaction)
        call.listen(self.told.append)
        self.calls.append(call)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]
