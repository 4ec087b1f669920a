"""A sender, a bottleneck and a receiver in virtual time: drop-tail queue, delay, jitter, loss; everything seeded.

The sender is made of the product's own parts (pacer, log, estimator); its encoder makes frames of about the size
asked for. Sizes on the wire include all headers.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.media.congestion.estimator import Estimator
from appliance.media.congestion.pacer import Pacer, Priority
from appliance.media.congestion.sent import OVERHEAD, SentLog
from appliance.media.congestion.transport_cc import Arrivals, TransportFeedback

STEP_S = 0.001
REPORT_S = 0.05
AUDIO_BYTES = 104  # 20 ms of Opus at 32 kbit/s, RTP header and extensions
AUDIO_BPS = (AUDIO_BYTES + OVERHEAD) * 8 * 50


@dataclass
class Packet:
    size: int
    kind: str
    made_at: float
    sequence: int = 0


@dataclass
class Link:
    """One direction. ``rate`` in bits per second, ``queue_s`` seconds of that rate."""

    rate: float = 10e6
    queue_s: float = 0.25
    delay_s: float = 0.02
    jitter_s: float = 0.0
    loss: float = 0.0
    seed: int = 1
    free_at: float = 0.0
    dropped: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._last = 0.0

    def carry(self, size: int, now: float) -> float | None:
        """When a packet handed over now arrives; None: lost."""
        if self._random.random() < self.loss:
            return None
        if self.free_at - now > self.queue_s:
            self.dropped += 1
            return None
        self.free_at = max(self.free_at, now) + size * 8 / self.rate
        arrives = self.free_at + self.delay_s + abs(self._random.gauss(0, self.jitter_s))
        self._last = max(self._last, arrives)  # jitter of a queue: order is kept
        return self._last


@dataclass
class Second:
    """What happened in one second."""

    estimate: float = 0.0
    sent_bits: int = 0
    arrived_bits: int = 0
    delays: list[float] = field(default_factory=list)  # of video packets, from being made to being there
    audio_delays: list[float] = field(default_factory=list)
    padding_bits: int = 0
    largest_burst: int = 0


class Simulation:
    """``demand``: bits per second of video the encoder makes at most; None sends sound alone."""

    def __init__(
        self, link: Link, *, demand: float | None = 1.5e6, fps: int = 30, seed: int = 7,
        report_loss: float = 0.0, start: float | None = None,
    ) -> None:
        self.link = link
        self.back = Link(rate=50e6, delay_s=link.delay_s, loss=report_loss, seed=seed + 1)
        self.estimator = Estimator() if start is None else Estimator(start)
        self.pacer: Pacer[Packet] = Pacer(self.estimator.pacing_bps, self._padding)
        self.demand = demand
        self.now = 100.0
        self.peer_clock_s = 0.0  # that the peer's clock is before ours
        self.seconds: list[Second] = []
        self._fps = fps
        self._random = random.Random(seed)
        self._log = SentLog()
        self._arrivals = Arrivals()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._frame_at = self._audio_at = self._report_at = self._tick_at = self.now
        self._pacer_at: float | None = None
        self._frame = 0
        self._recent: list[tuple[float, int]] = []

    @property
    def video_bps(self) -> float:
        """What the encoder is set to: what the estimate leaves beside the sound, less headers."""
        room = (self.estimator.target_bps - AUDIO_BPS) * 0.93
        return max(0.0, min(self.demand or 0.0, room))

    def run(self, seconds: float) -> list[Second]:
        """Go on; returns the seconds that were added."""
        before = len(self.seconds)
        end = self.now + seconds
        next_second = self.now
        while self.now < end - STEP_S / 2:
            if self.now >= next_second - STEP_S / 2:
                self.seconds.append(Second())
                next_second += 1.0
            self._step()
            self.now += STEP_S
            if self.now >= next_second - STEP_S / 2:
                self.seconds[-1].estimate = self.estimator.bits_per_second
        return self.seconds[before:]

    def _step(self) -> None:
        now = self.now
        while self._events and self._events[0][0] <= now:
            heapq.heappop(self._events)[2]()
        if now >= self._audio_at:
            self._audio_at += 0.02
            self.pacer.charge(AUDIO_BYTES, now)
            self._transmit(Packet(AUDIO_BYTES, "audio", now), None)
        if self.demand and now >= self._frame_at:
            self._frame_at += 1 / self._fps
            self._encode()
            self._pacer_at = now
        if now >= self._tick_at:
            self._tick_at += 0.2
            self.estimator.tick(now, sending=True)
        if now >= self._report_at:
            self._report_at += REPORT_S
            self._report()
        if self._pacer_at is not None and now >= self._pacer_at:
            self._release()

    def _encode(self) -> None:
        size = self.video_bps / self._fps / 8 * self._random.lognormvariate(0, 0.25)
        self._frame += 1
        if self._frame % (self._fps * 3) == 1:
            size *= 5  # a key frame
        while size > 0:
            part = min(1200, max(60, int(size)))
            self.pacer.put(Packet(part, "video", self.now), Priority.VIDEO)
            size -= part

    def _padding(self, size: int) -> Packet:
        return Packet(max(40, min(size, 280)), "padding", self.now)

    def _release(self) -> None:
        released = self.pacer.take(self.now)
        size = sum(packet.size + OVERHEAD for packet, cluster in released.packets)
        self.seconds[-1].largest_burst = max(self.seconds[-1].largest_burst, size)
        for packet, cluster in released.packets:
            self._transmit(packet, cluster)
        self._pacer_at = released.next_at

    def _transmit(self, packet: Packet, cluster: int | None) -> None:
        packet.sequence = self._log.add(packet.size, self.now, cluster)
        size = packet.size + OVERHEAD
        self.estimator.sent(size, self.now)
        second = self.seconds[-1]
        second.sent_bits += size * 8
        second.padding_bits += size * 8 * (packet.kind == "padding")
        arrives = self.link.carry(size, self.now)
        if arrives is not None:
            self._at(arrives, lambda: self._arrive(packet))

    def _arrive(self, packet: Packet) -> None:
        self._arrivals.add(packet.sequence, self.now + self.peer_clock_s)
        second = self.seconds[-1]
        second.arrived_bits += (packet.size + OVERHEAD) * 8
        if packet.kind == "video":
            second.delays.append(self.now - packet.made_at)
        elif packet.kind == "audio":
            second.audio_delays.append(self.now - packet.made_at)

    def _report(self) -> None:
        for report in self._arrivals.reports():
            fci = report.fci()
            arrives = self.back.carry(len(fci) + 60, self.now)
            if arrives is not None:
                self._at(arrives, lambda fci=fci: self._heard(fci))  # type: ignore[misc]

    def _heard(self, fci: bytes) -> None:
        self.estimator.report(self._log.match(TransportFeedback.parse(fci)), self.now)
        self.pacer.rate = self.estimator.pacing_bps
        if self.demand:
            cluster = self.estimator.probe(self.now, self.demand * 1.08 + AUDIO_BPS)
            if cluster is not None:
                self.pacer.probe(cluster, self.now)
                self._pacer_at = self.now

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, what))


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
