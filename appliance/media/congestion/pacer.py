"""When each packet leaves: in bursts of at most 5 ms, what was lost before the picture. Sound never waits here; it
is only charged for.

There is no tick: the first burst of a frame leaves at once, and only what is over budget waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, Protocol, TypeVar

from appliance.media.congestion.probing import Cluster
from appliance.media.congestion.sent import OVERHEAD

__all__ = ["BURST_S", "Pacer", "Priority", "Release", "RetransmissionBudget"]

BURST_S: Final = 0.005
LEAST_BPS: Final = 150_000
QUEUE_PACKETS: Final = 1024  # waiting at most: a key frame of a megabyte
CLOCK_S: Final = 0.001  # the loop wakes up by whole milliseconds: a probe that waited for them would be too slow
CLUSTER_LAG_S: Final = 0.02  # of a late wake-up are caught up: the cluster's rate is what it is about
RESEND_SHARE: Final = 0.25
RESEND_BURST_S: Final = 1.0
RESEND_LEAST: Final = 12_000  # bytes: the lost packets of one small key frame


class Priority(IntEnum):
    """What goes first."""

    RETRANSMISSION = 0
    VIDEO = 1


class Sized(Protocol):
    @property
    def size(self) -> int:
        """Bytes of RTP."""


P = TypeVar("P", bound=Sized)


@dataclass(slots=True)
class Release(Generic[P]):
    """Packets that leave now, each with the probe cluster it belongs to, and when the next may (None: none wait)."""

    packets: Sequence[tuple[P, int | None]]
    next_at: float | None


class Pacer(Generic[P]):
    """Holds the packets of one transport. ``padding(size)`` makes a packet that carries nothing, or None when the peer
    takes none. Pure: the caller gives the time."""

    def __init__(self, rate: float, padding: Callable[[int], P | None]) -> None:
        self._padding = padding
        self._queues: dict[Priority, deque[P]] = {priority: deque() for priority in Priority}
        self._free_at = 0.0
        self._cluster: Cluster | None = None
        self._cluster_left = (0, 0)  # bytes, packets
        self._cluster_free_at = 0.0
        self.rate = rate  # bits per second at which packets leave while any wait
        self.dropped = 0

    def put(self, packet: P, priority: Priority) -> bool:
        """False: too much waits, it is dropped and counted."""
        if sum(map(len, self._queues.values())) >= QUEUE_PACKETS:
            self.dropped += 1
            return False
        self._queues[priority].append(packet)
        return True

    def probe(self, cluster: Cluster, now: float) -> None:
        """Send the next packets at the cluster's rate, and padding when there are too few."""
        if self._cluster is None:
            self._cluster, self._cluster_left, self._cluster_free_at = cluster, (cluster.size, cluster.packets), now

    def charge(self, size: int, now: float) -> None:
        """A packet of ``size`` bytes left past the queues (sound)."""
        self._free_at = max(self._free_at, now - BURST_S) + (size + OVERHEAD) * 8 / max(LEAST_BPS, self.rate)

    @property
    def waiting(self) -> int:
        """Packets of the picture that wait."""
        return len(self._queues[Priority.VIDEO])

    def take(self, now: float) -> Release[P]:
        """All that may leave now."""
        released: list[tuple[P, int | None]] = []
        if self._cluster is not None:
            self._take_cluster(released, now)
        while self._free_at <= now and (packet := self._pop()) is not None:
            self.charge(packet.size, now)
            released.append((packet, None))
        next_at = max(self._cluster_free_at - CLOCK_S, now + CLOCK_S) if self._cluster is not None else None
        if any(self._queues.values()):
            # a whole burst later, not one packet: each time costs a wake-up
            free_at = self._free_at + BURST_S
            next_at = free_at if next_at is None else min(next_at, free_at)
        return Release(released, next_at)

    def _take_cluster(self, released: list[tuple[P, int | None]], now: float) -> None:
        cluster = self._cluster
        while cluster is not None and self._cluster_free_at <= now + CLOCK_S:
            left, packets = self._cluster_left
            # small enough for the packets that a cluster must have, so that thin paths are not filled by it
            packet = self._pop() or self._padding(max(1, left // max(1, packets) - OVERHEAD))
            if packet is None:
                self._cluster = None
                return
            size = packet.size + OVERHEAD
            self.charge(packet.size, now)
            self._cluster_free_at = max(self._cluster_free_at, now - CLUSTER_LAG_S) + size * 8 / cluster.rate
            self._cluster_left = (left - size, packets - 1)
            released.append((packet, cluster.number))
            if self._cluster_left[0] <= 0 and self._cluster_left[1] <= 0:
                cluster = self._cluster = None

    def _pop(self) -> P | None:
        for queue in self._queues.values():
            if queue:
                return queue.popleft()
        return None


class RetransmissionBudget:
    """How much may be sent again: a share of the rate, so that a NACK storm cannot multiply the traffic. Pure."""

    def __init__(self) -> None:
        self._left = float(RESEND_LEAST)
        self._at = 0.0

    def take(self, size: int, estimate: float, now: float) -> bool:
        """Whether ``size`` bytes more are within the budget at an ``estimate`` in bits per second."""
        share = estimate / 8 * RESEND_SHARE
        depth = max(RESEND_LEAST, share * RESEND_BURST_S)
        self._left = min(depth, self._left + (now - self._at) * share)
        self._at = now
        if size > self._left:
            return False
        self._left -= size
        return True
