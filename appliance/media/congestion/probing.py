"""Finding out whether the path carries more: short clusters sent faster, judged by how fast they arrive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Cluster", "Prober"]

CLUSTER_S: Final = 0.02
CLUSTER_PACKETS: Final = 5
STEP: Final = 2.0  # times the estimate; a further step follows a probe that went through
AGAIN_FROM: Final = 0.7  # of the probed rate reached: it went through
HEADROOM: Final = 1.2  # over what is wanted: with less the next key frame would be the probe
INTERVAL_S: Final = (2.0, 4.0)  # between probes: the shortest, and the longest after vain ones
CALM_S: Final = 1.0  # after the queue grew, before anything is tried
ANSWER_S: Final = 1.5  # over the round trip: a cluster is judged by then, or not at all
KEPT_S: Final = 6.0  # clusters of which nothing was told
SHARE: Final = 0.8  # of its packets and bytes that must have arrived
CREDIBLE: Final = 2.0  # times as fast as it was sent: more means that it was held up and let go at once
SLOWED: Final = 0.9  # of the rate sent: it filled the path, of which a little less is then taken
FILLED: Final = 0.95


@dataclass(slots=True)
class Cluster:
    """Packets that are to leave at ``rate`` bits per second: at least ``size`` bytes in ``packets`` packets."""

    number: int
    rate: float
    size: int
    packets: int = CLUSTER_PACKETS


@dataclass(slots=True)
class _Result:
    """What is known of a cluster: (sent, arrived, size) of each of its packets that arrived."""

    cluster: Cluster
    begun: float
    arrived: list[tuple[float, float, int]]

    def rate(self) -> float | None:
        """Bits per second the path carried; None while, or when, it cannot be told."""
        arrived = self.arrived
        if len(arrived) < SHARE * self.cluster.packets or sum(size for *_, size in arrived) < SHARE * self.cluster.size:
            return None
        total = sum(size for *_, size in arrived)
        first_sent, last_sent = min(arrived), max(arrived)
        first_in, last_in = min(arrived, key=lambda one: one[1]), max(arrived, key=lambda one: one[1])
        sending, arriving = last_sent[0] - first_sent[0], last_in[1] - first_in[1]
        if sending <= 0 or arriving <= 0:
            return None
        sent = (total - last_sent[2]) * 8 / sending
        received = (total - first_in[2]) * 8 / arriving
        if received > CREDIBLE * sent:
            return None
        return received * FILLED if received < SLOWED * sent else min(sent, received)


class Prober:
    """When to probe, how fast, and what came of it. Pure.

    As long as the estimate is below what is wanted: at once in the beginning and after each success, else every few
    seconds, ever less often while nothing comes of it.
    """

    def __init__(self) -> None:
        self._number = 0
        self._results: dict[int, _Result] = {}
        self._next_at: float | None = None
        self._interval = INTERVAL_S[0]

    def wanted(self, now: float, estimate: float, demand: float) -> Cluster | None:
        """The cluster to send now, if any. ``demand`` is the most that could be used."""
        ceiling = demand * HEADROOM
        if estimate >= ceiling * FILLED:
            return None
        if self._next_at is not None and now < self._next_at:
            return None
        self._next_at = now + self._interval
        self._interval = min(INTERVAL_S[1], self._interval * 1.3)  # success sets it back
        self._number += 1
        rate = min(STEP * estimate, ceiling)
        cluster = Cluster(self._number, rate, max(1, round(rate * CLUSTER_S / 8)))
        self._results[cluster.number] = _Result(cluster, now, [])
        for old in [number for number, result in self._results.items() if result.begun < now - KEPT_S]:
            del self._results[old]
        return cluster

    def add(self, number: int, sent: float, arrived: float, size: int) -> None:
        """A packet of a cluster arrived."""
        result = self._results.get(number)
        if result is not None:
            result.arrived.append((sent, arrived, size))

    def result(self, now: float, estimate: float, round_trip: float = 0.0) -> float | None:
        """The rate a cluster has shown since the last call. ``round_trip`` in seconds."""
        for number, result in list(self._results.items()):
            rate = result.rate()
            if rate is None:
                if now - result.begun > ANSWER_S + round_trip:
                    del self._results[number]
                continue
            del self._results[number]
            if rate >= AGAIN_FROM * result.cluster.rate and rate > estimate:
                self._next_at, self._interval = now, INTERVAL_S[0]
            return rate
        return None

    def disturbed(self, now: float) -> None:
        """The queue grew: nothing is tried for a while."""
        self._next_at = max(self._next_at or 0.0, now + CALM_S)
        self._results.clear()
