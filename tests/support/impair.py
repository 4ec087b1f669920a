"""A bad network between two peers: a seeded model of one direction, and a UDP relay that puts one into each.

``Link`` is pure: it is given the time, so a test drives it on virtual time and a trace gives the same result at each
run. What happens to a packet, in this order: it is lost (black-out, then the loss model), it waits in a drop-tail
queue before a transmitter of limited rate, it travels (delay and jitter, in order), or it is held back and overtaken.

    link = Link(Conditions(loss=Burst.of(0.02, length=5), delay_s=0.02, rate_bps=700_000, queue_ms=250), seed=1)
    link.send(now, packet)
    for packet in link.take(now): ...          # what has arrived by now; link.next_at says when to look again

``Relay`` is a socket for each of two peers, left and right. Both are told the relay's candidate in the place of the
other's own (``from_left``, ``from_right``), so that nothing passes it by:

    async with relay(left_to_right=Conditions(loss=0.05), seed=1) as between:
        answer = await callee.answer(between.from_left(await caller.offer()))
        await caller.accept_answer(between.from_right(answer))
        between.change(Conditions(dark=True))   # both directions, from now on
"""

from __future__ import annotations

import asyncio
import heapq
import random
import re
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Self, cast

__all__ = ["HEADERS", "Burst", "Conditions", "Counters", "Link", "Relay", "relay"]

HEADERS: Final = 28  # bytes of IPv4 and UDP: a rate is one of the wire, not of the payload
BUFFER: Final = 4 << 20  # bytes asked for a socket: a stall of the relay must not be a loss that nobody counted
MOVED_S: Final = 1.0
"""A peer that was not heard for this long may send from another address: it has made itself a new transport."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Burst:
    """The two-state model of Gilbert and Elliott: per packet, the probabilities to change state and to be lost."""

    enter: float
    leave: float
    lost_in_bad: float = 1.0
    lost_in_good: float = 0.0

    @classmethod
    def of(cls, loss: float, *, length: float) -> Self:
        """``loss`` (0 to 1) of all packets are lost, in bursts of ``length`` packets on average."""
        leave = 1.0 / length
        return cls(enter=leave * loss / (1.0 - loss), leave=leave)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What one direction does to packets.

    loss: a probability (0 to 1), a ``Burst``, or a trace: for each packet in turn whether it is lost, over and over.
    delay_s: one way. jitter_s: on top, uniform from 0; packets stay in order.
    reorder: probability (0 to 1) that a packet is held back by ``reorder_s`` while others overtake it.
    rate_bps: bits of IP packets per second; None is no limit. A packet that would make the queue longer than
    ``queue_ms`` at this rate, or than ``queue_bytes`` where that is given, is dropped.
    dark: nothing gets through, and what was on its way is gone.
    """

    loss: float | Burst | Sequence[bool] = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.02
    rate_bps: float | None = None
    queue_ms: float = 250.0
    queue_bytes: int | None = None
    dark: bool = False

    @property
    def queue_limit(self) -> float:
        """Bytes that may wait, the packet in the transmitter included; an idle transmitter takes any packet."""
        if self.queue_bytes is not None:
            return self.queue_bytes
        return (self.rate_bps or 0.0) / 8 * self.queue_ms / 1000


@dataclass(slots=True)
class Counters:
    """Packets by what became of them; every one that was sent is in one of the lower rows or still on its way."""

    sent: int = 0
    sent_bytes: int = 0  # with IP and UDP headers, as in arrived_bytes
    arrived: int = 0
    arrived_bytes: int = 0
    lost: int = 0  # by the loss model
    overflowed: int = 0  # the queue was full
    darkened: int = 0
    held_back: int = 0  # of those that arrived


class Link:
    """One direction. ``now`` is in seconds on any clock that does not go back."""

    def __init__(self, conditions: Conditions | None = None, *, seed: int = 0) -> None:
        self._conditions = conditions or Conditions()
        self._random = random.Random(seed)  # one per link: what one direction carries does not change the other
        self._bad = False
        self._place = 0
        self._queue: deque[bytes] = deque()
        self._queued = 0  # bytes
        self._begun = 0.0  # when the transmitter began with what is left of the first packet
        self._left = 0.0  # bits of it
        self._flying: list[tuple[float, int, bytes]] = []
        self._numbers = count()
        self._last_arrival = float("-inf")
        self.counters = Counters()

    @property
    def conditions(self) -> Conditions:
        return self._conditions

    @property
    def queued_bytes(self) -> int:
        """What waits before the transmitter, as of the last call with a time."""
        return self._queued

    def change(self, now: float, conditions: Conditions) -> None:
        """New conditions from now on. What waits leaves at the new rate; what travels arrives as it would have."""
        self._transmit(now)
        if self._queue and self._conditions.rate_bps:
            self._left -= (now - self._begun) * self._conditions.rate_bps
            self._begun = now
        if conditions.loss != self._conditions.loss:
            self._bad, self._place = False, 0
        self._conditions = conditions
        if conditions.dark:
            self.counters.darkened += len(self._queue) + len(self._flying)
            self._queue.clear()
            self._flying.clear()
            self._queued = 0
        self._transmit(now)

    def send(self, now: float, packet: bytes) -> None:
        self._transmit(now)
        size = len(packet) + HEADERS
        self.counters.sent += 1
        self.counters.sent_bytes += size
        if self._conditions.dark:
            self.counters.darkened += 1
        elif self._is_lost():
            self.counters.lost += 1
        elif self._conditions.rate_bps is None:
            self._fly(now, packet)
        elif self._queue and self._queued + size > self._conditions.queue_limit:
            self.counters.overflowed += 1
        else:
            if not self._queue:
                self._begun, self._left = now, size * 8.0
            self._queue.append(packet)
            self._queued += size

    def take(self, now: float) -> list[bytes]:
        """The packets that have arrived by ``now`` and were not taken yet, in the order of their arrival."""
        self._transmit(now)
        arrived = []
        while self._flying and self._flying[0][0] <= now:
            packet = heapq.heappop(self._flying)[2]
            self.counters.arrived += 1
            self.counters.arrived_bytes += len(packet) + HEADERS
            arrived.append(packet)
        return arrived

    @property
    def next_at(self) -> float | None:
        """When there is something to do: a packet leaves the queue or arrives. None when nothing is on its way."""
        times = [self._flying[0][0]] if self._flying else []
        if self._queue and self._conditions.rate_bps:
            times.append(self._begun + self._left / self._conditions.rate_bps)
        return min(times, default=None)

    def _is_lost(self) -> bool:
        loss = self._conditions.loss
        if isinstance(loss, float | int):
            return self._random.random() < loss
        if isinstance(loss, Burst):
            if self._random.random() < (loss.leave if self._bad else loss.enter):
                self._bad = not self._bad
            return self._random.random() < (loss.lost_in_bad if self._bad else loss.lost_in_good)
        self._place += 1
        return bool(loss) and loss[(self._place - 1) % len(loss)]

    def _transmit(self, now: float) -> None:
        """Let go what the transmitter has finished by now."""
        rate = self._conditions.rate_bps
        while self._queue:
            done = self._begun + self._left / rate if rate else now
            if done > now:
                return
            packet = self._queue.popleft()
            self._queued -= len(packet) + HEADERS
            self._fly(done, packet)
            self._begun = done
            self._left = (len(self._queue[0]) + HEADERS) * 8.0 if self._queue else 0.0

    def _fly(self, now: float, packet: bytes) -> None:
        conditions = self._conditions
        arrival = now + conditions.delay_s + self._random.random() * conditions.jitter_s
        if self._random.random() < conditions.reorder:
            self.counters.held_back += 1
            arrival += conditions.reorder_s
        else:
            arrival = self._last_arrival = max(arrival, self._last_arrival)
        heapq.heappush(self._flying, (arrival, next(self._numbers), packet))


class _Side(asyncio.DatagramProtocol):
    """The relay's socket for one peer, and the link from that peer to the other."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.other: _Side | None = None
        self.peer: Address | None = None
        self.heard_at = float("-inf")
        self.strangers = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> Address:
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return host, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        now = self._loop.time()
        if addr != self.peer:
            # Of a peer with several addresses one gets through, as with one network that works: two ways into one
            # link would make two ICE pairs with the same counters.
            if now - self.heard_at < MOVED_S:
                self.strangers += 1
                return
            self.peer = addr
        self.heard_at = now
        self.link.send(now, data)
        self.pump()

    def pump(self) -> None:
        """Hand over what has arrived and come back when the next is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for packet in self.link.take(self._loop.time()):
            if self.other is not None:
                self.other.deliver(packet)
        if (due := self.link.next_at) is not None:
            self._timer = self._loop.call_at(due, self.pump)

    def deliver(self, packet: bytes) -> None:
        if self._transport is not None and self.peer is not None and not self._transport.is_closing():
            self._transport.sendto(packet, self.peer)

    def error_received(self, exc: OSError) -> None:
        """The peer has closed its socket: as in a network, nobody tells the other."""

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()


_CANDIDATE_LINES: Final = re.compile(r"(?:a=candidate:[^\r\n]*\r?\n)+")


@dataclass(slots=True)
class Relay:
    """Between a left and a right peer; made by ``relay()``."""

    _left: _Side
    _right: _Side
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    @property
    def left_to_right(self) -> Link:
        return self._left.link

    @property
    def right_to_left(self) -> Link:
        return self._right.link

    @property
    def for_left(self) -> Address:
        """Where the left peer sends to: in the place of the right peer's own address."""
        return self._left.address

    @property
    def for_right(self) -> Address:
        return self._right.address

    @property
    def candidate_for_left(self) -> str:
        """The only candidate the left peer may know, as ``candidate:...`` (RFC 8839)."""
        return _candidate(self.for_left)

    @property
    def candidate_for_right(self) -> str:
        return _candidate(self.for_right)

    def from_left(self, sdp: str) -> str:
        """The left peer's description as the right one is to see it: one candidate, the relay."""
        return _CANDIDATE_LINES.sub(f"a={self.candidate_for_right}\r\n", sdp)

    def from_right(self, sdp: str) -> str:
        return _CANDIDATE_LINES.sub(f"a={self.candidate_for_left}\r\n", sdp)

    def change(
        self, conditions: Conditions | None = None, *, left_to_right: Conditions | None = None,
        right_to_left: Conditions | None = None,
    ) -> None:
        """New conditions from now on; a direction that is not named by itself takes ``conditions``, or stays."""
        for side, own in ((self._left, left_to_right), (self._right, right_to_left)):
            if (wanted := own or conditions) is not None:
                side.link.change(self._loop.time(), wanted)
                side.pump()

    def close(self) -> None:
        self._left.close()
        self._right.close()


def _candidate(address: Address) -> str:
    host, port = address
    return f"candidate:1 1 udp 2130706431 {host} {port} typ host"


@asynccontextmanager
async def relay(
    both: Conditions | None = None, *, left_to_right: Conditions | None = None, right_to_left: Conditions | None = None,
    seed: int = 0, host: str = "127.0.0.1",
) -> AsyncIterator[Relay]:
    """Two sockets at ``host``. ``seed`` decides both directions, each with its own numbers."""
    loop = asyncio.get_running_loop()
    sides = []
    try:
        for number, own in enumerate((left_to_right, right_to_left)):
            side = _Side(Link(own or both, seed=2 * seed + number))
            sides.append(side)
            await loop.create_datagram_endpoint(lambda side=side: side, local_addr=(host, 0))
        sides[0].other, sides[1].other = sides[1], sides[0]
        yield Relay(*sides)
    finally:
        for side in sides:
            side.close()
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn
