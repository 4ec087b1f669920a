"""What the path carries, from the peer's transport-wide feedback: the smaller of what delay and loss allow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from appliance.media.congestion.delay import DelayDetector, Usage
from appliance.media.congestion.probing import Cluster, Prober
from appliance.media.congestion.rates import GROWTH_PER_S, AcknowledgedRate, DelayBound, LossBound
from appliance.media.congestion.sent import SentPacket

__all__ = ["FLOOR_BPS", "START_BPS", "UNHEARD_S", "Estimator"]

START_BPS: Final = 800_000
FLOOR_BPS: Final = 40_000  # sound with its headers; less is no call
ROUND_TRIP_S: Final = 0.2  # until it is known
ROUND_TRIPS: Final = 50  # reports whose round trips are remembered; the least of them is the path's
LIMITED: Final = 0.65  # of the estimate sent: the picture is the limit, not the path
LIMITED_S: Final = 0.5
ROOM: Final = 0.85  # of the estimate at most, for whoever wants to send what is not strictly needed
UNHEARD_S: Final = 1.0  # without any report although packets left
UNHEARD_CUT: Final = 0.7
STALE_S: Final = 2.0  # without any report: what was known of the queue is history
FADES_S: Final = 10.0  # and what was known of the rate is from then on: several probes have told nothing
MAX_BPS: Final = 30_000_000
CLOCK_JUMP_S: Final = 3.0  # from one packet to the next: no queue grows so fast, the peer's clock was set (libwebrtc)
BASE_DELAY_S: Final = 10.0  # the least delay of so long is the path's own
QUEUE_S: Final = 0.02  # of queueing is let be
BACKLOG_S: Final = 0.05  # of what was just sent may be on its way into one: a picture and a half
STANDING_S: Final = 0.008  # the least delay of a report over the path's own, when a queue really grows
QUEUE_LOSS: Final = 0.02  # over that of the medium: the queue is full, and therefore no longer than it is
LONGER_S: Final = 1.5  # a queue that stands so long, neither growing nor shrinking nor full, is a longer path
DRAIN_S: Final = 0.15  # a longer queue is emptied in about this time
DRAIN_LEAST: Final = 0.5  # of the estimate is used meanwhile at the least
PACING: Final = (6.0, 2.0)  # times the estimate: while nothing is known of the capacity, and close to it


class Estimator:
    """One transport's estimate. Pure: the caller gives the time (seconds, monotonic)."""

    def __init__(self, start: float = START_BPS) -> None:
        self._detector = DelayDetector()
        self._acknowledged = AcknowledgedRate()
        self._delay = DelayBound(start)
        self._loss = LossBound()
        self._prober = Prober()
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._sent: deque[tuple[float, int]] = deque()
        self._sent_bytes = 0
        self._heard_at: float | None = None
        self._backlog = 0.0  # bits sent that a path of the estimate has not carried yet
        self._backlog_at = 0.0
        self._cut_at = 0.0
        self._delay_before: float | None = None  # one-way, of the packet that arrived last, clocks apart
        self._delays: deque[tuple[float, float]] = deque()  # (time, least one-way delay of a report, clocks apart)
        self._standing_since = 0.0
        self.queue_s = 0.0  # delay of the last report over the path's own
        self._close = False  # to the capacity, as far as it is known
        self.round_trip_s: float | None = None  # of the last report, its waiting at the peer included

    @property
    def bits_per_second(self) -> float:
        """The estimate, on the wire with all headers."""
        return max(FLOOR_BPS, min(self._delay.value, self._loss.value, MAX_BPS))

    @property
    def target_bps(self) -> float:
        """What to send: the estimate, less while a queue stands on the path."""
        backlog = self._backlog / self.bits_per_second if self._close else 0.0
        over = max(0.0, self.queue_s - QUEUE_S, backlog - BACKLOG_S) / DRAIN_S
        return max(FLOOR_BPS, self.bits_per_second * max(DRAIN_LEAST, 1 - over))

    @property
    def pacing_bps(self) -> float:
        """How fast packets may leave: a key frame has several times the size of others."""
        return self.bits_per_second * PACING[self._close]

    @property
    def loss(self) -> float:
        """Share of packets that did not arrive in the last second."""
        return self._loss.loss

    @property
    def usage(self) -> Usage:
        return self._detector.usage

    @property
    def heard(self) -> bool:
        """The peer has reported at least once."""
        return self._heard_at is not None

    @property
    def arriving(self) -> float | None:
        """Bits per second that arrive at the peer."""
        return self._acknowledged.value

    def sent(self, size: int, now: float) -> None:
        """A packet of ``size`` bytes left."""
        self._sent.append((now, size))
        self._sent_bytes += size
        self._backlog = max(0.0, self._backlog - (now - self._backlog_at) * self.bits_per_second) + size * 8
        self._backlog_at = now
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0][0] < now - LIMITED_S:
            self._sent_bytes -= self._sent.popleft()[1]

    def limited(self, now: float) -> bool:
        """Less is sent than the path would carry, so what arrives says little."""
        self._forget(now)
        return self._sent_bytes * 8 / LIMITED_S < LIMITED * self.bits_per_second

    def has_room(self, now: float) -> bool:
        """The path carries clearly more than is sent: what it loses is not lost for want of rate."""
        self._forget(now)
        return not self._close and self._sent_bytes * 8 / LIMITED_S < ROOM * self.bits_per_second

    def report(self, told: Sequence[SentPacket], now: float) -> None:
        """A report of the peer; ``told`` are the packets it tells something new of."""
        self._heard_at = self._cut_at = now
        arrived = sorted(
            (packet.arrived_at, packet.sequence, packet) for packet in told if packet.arrived_at is not None
        )
        limited = self.limited(now)
        for at, _, packet in arrived:
            self._compare_clocks(at - packet.sent_at)
            self._acknowledged.add(at, packet.size, limited=limited)
            self._detector.add(packet.sent_at, at)
            if packet.probe is not None:
                self._prober.add(packet.probe, packet.sent_at, at, packet.size)
        if arrived:
            self.round_trip_s = now - max(packet.sent_at for *_, packet in arrived)
            self._round_trips.append(self.round_trip_s)
            self._measure_queue(min(at - packet.sent_at for at, _, packet in arrived), now)
        late = sum(1 for *_, packet in arrived if packet.reported)  # told as missing before
        lost = len(told) - len(arrived)
        bits = sum(packet.size for packet in told) * 8
        self._loss.update(len(told) - late, lost - late, bits, self._delay.value, self.arriving, now)
        self._bound(now)
        self._close = self._delay.near_capacity(now)

    def _compare_clocks(self, delay: float) -> None:
        before, self._delay_before = self._delay_before, delay
        if before is not None and abs(delay - before) >= CLOCK_JUMP_S:
            self._detector = DelayDetector()
            self._delays.clear()

    def _measure_queue(self, delay: float, now: float) -> None:
        delays = self._delays  # ascending in both: what is not less than its successors can never be the least
        while delays and delays[-1][1] >= delay:
            delays.pop()
        delays.append((now, delay))
        while delays[0][0] < now - BASE_DELAY_S:
            delays.popleft()
        self.queue_s = delay - delays[0][1]
        loss = self._loss.loss - self._loss.path_loss
        if self.queue_s <= QUEUE_S or self._detector.usage is not Usage.NORMAL or loss > QUEUE_LOSS:
            self._standing_since = now
        elif now - self._standing_since >= LONGER_S:
            delays.clear()
            delays.append((now, delay))
            self.queue_s = 0.0

    def _bound(self, now: float) -> None:
        usage = self._detector.usage
        if usage is Usage.OVER and self.queue_s < STANDING_S:
            usage = Usage.NORMAL  # the peer, or we, stood still for a moment: a path that is full has a queue
        shown = self._prober.result(now, self.bits_per_second, self._round_trip())
        if usage is Usage.OVER:
            self._prober.disturbed(now)
        elif shown is not None and shown > self.bits_per_second:
            self._delay.raise_to(shown, now)
            self._loss.raise_to(shown)
            return
        sent = 1 - self._loss.path_loss  # what the medium loses was carried as far as there: it is no lack of rate
        arriving, peak = (None if rate is None else rate / sent for rate in (self.arriving, self._acknowledged.peak))
        self._delay.update(usage, arriving, peak, self._round_trip(), now)

    def tick(self, now: float, *, sending: bool) -> None:
        """A few times a second: without any report although we send, the rate goes down (a dead path, a full queue)."""
        if self._heard_at is not None and now - self._heard_at >= STALE_S and self._detector.usage is not Usage.NORMAL:
            self._detector = DelayDetector()  # or no probe would ever leave, where probes alone are reported on
            self._delays.clear()
            self.queue_s = 0.0
        if not sending or self._heard_at is None:
            self._cut_at = now
        elif now - self._cut_at >= UNHEARD_S:
            self._cut_at = now
            self._delay.value = max(FLOOR_BPS, self._delay.value * UNHEARD_CUT)
            self._prober.disturbed(now)

    def fade(self, now: float, seconds: float) -> None:
        """Nothing is sent that the peer would report on, and no probe can be: for so long more what is known of the
        path holds less."""
        if self._heard_at is not None and now - self._heard_at >= FADES_S:
            self._delay.raise_to(min(START_BPS, self._delay.value * GROWTH_PER_S**seconds), now)
            self._loss.value *= GROWTH_PER_S**seconds

    def probe(self, now: float, demand: float) -> Cluster | None:
        """A cluster to send now, when more is wanted than the estimate; ``demand`` is the most that could be used."""
        if self._heard_at is None or self._detector.usage is not Usage.NORMAL:
            return None
        return self._prober.wanted(now, self.bits_per_second, demand)

    def _round_trip(self) -> float:
        return min(self._round_trips, default=ROUND_TRIP_S)

    def __repr__(self) -> str:
        loss = "" if math.isinf(self._loss.value) else f", by loss {self._loss.value:.0f}"
        return f"<Estimator {self.bits_per_second:.0f} bit/s, {self.usage.value}{loss}>"
