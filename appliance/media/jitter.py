"""How long sound must wait so that its packets are there in time. Pure: the caller gives the time.

Every packet's transit time is compared with the fastest one of late; the delay to play out with is what nearly all
of them needed. While packets are lost it is also what most copies need, which travel in the packet that follows: one
that is missed costs only a lost packet, so fewer of them have to be waited for. The clock of the peer, which runs by
itself, cancels out since both sides of the comparison drift.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["LEAST_S", "MOST_S", "DelayTarget", "Lag"]

LEAST_S: Final = 0.02
MOST_S: Final = 0.2
GUARD_S: Final = 0.0025  # what the delay may be off

BASE_WINDOW_S: Final = 10.0  # of which the fastest packet is remembered
BASE_STEP_S: Final = 1.0
INTERVAL_S: Final = 0.5  # whose slowest packet is one entry of the histogram
BUCKET_S: Final = 0.002
BUCKETS: Final = 110
FORGET: Final = 0.95  # per interval: an entry weighs half after 7 s, and one slow interval by itself is no jitter
QUANTILE: Final = 0.95
COPIES: Final = 250  # packets of late, 5 s of most codecs, that tell when a copy would have come
COPY_QUANTILE: Final = 0.9
LOSS_MEMORY_S: Final = 10.0
LAG_BLOCKS: Final = 50


class DelayTarget:
    """Delay, in seconds, between the arrival of the fastest packet and its play-out."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque()  # (begin, fastest transit) of each step of the window
        self._base: float | None = None
        self._histogram = [1.0] + [0.0] * (BUCKETS - 1)  # a calm path, until it shows otherwise
        self._interval: tuple[float, float] | None = None  # (begin, slowest of it)
        self._lost_at = -LOSS_MEMORY_S
        self._frame_s = 0.02
        self._quantile_s = 0.0
        self._lateness: deque[float] = deque(maxlen=COPIES)
        self._copy_s = 0.0

    @property
    def base(self) -> float | None:
        """The fastest transit of late: arrival time less RTP time, in seconds. None before the first packet."""
        return self._base

    def reset(self) -> None:
        """Another source: its RTP time has nothing to do with the one before. What the path does is kept."""
        self._recent.clear()
        self._base = self._interval = None

    def lost(self, now: float) -> None:
        """A packet did not come: for a while its copy in the next one is waited for."""
        self._lost_at = now

    def found(self) -> None:
        """What was told lost came after all: only late, which the transit times tell of."""
        self._lost_at = -LOSS_MEMORY_S

    def add(self, transit: float, now: float, frame_s: float) -> None:
        """A packet of ``frame_s`` arrived at ``now``, ``transit`` after its RTP time."""
        self._frame_s = frame_s
        recent = self._recent
        if not recent or now - recent[-1][0] >= BASE_STEP_S:
            recent.append((now, transit))
        elif transit < recent[-1][1]:
            recent[-1] = (recent[-1][0], transit)
        while now - recent[0][0] > BASE_WINDOW_S:
            recent.popleft()
        self._base = base = min(fastest for _, fastest in recent)
        late = transit - base
        self._lateness.append(late)
        if self._interval is None:
            self._interval = (now, late)
        elif now - self._interval[0] < INTERVAL_S:
            self._interval = (self._interval[0], max(late, self._interval[1]))
        else:
            self._note(self._interval[1])
            self._interval = (now, late)

    def at(self, now: float, lead_s: float = 0.0) -> float:
        """The delay to play out with, where a packet is needed ``lead_s`` before its first sample is played."""
        needed = self._quantile_s
        if now - self._lost_at < LOSS_MEMORY_S:
            needed = max(needed, self._frame_s + self._copy_s)
        return max(LEAST_S, min(MOST_S, needed + GUARD_S + lead_s))

    def _note(self, late: float) -> None:
        ordered = sorted(self._lateness)
        self._copy_s = ordered[int((len(ordered) - 1) * COPY_QUANTILE)]
        histogram = [weight * FORGET for weight in self._histogram]
        histogram[min(BUCKETS - 1, int(late / BUCKET_S))] += 1 - FORGET
        self._histogram = histogram
        limit = sum(histogram) * QUANTILE
        total = 0.0
        for index, weight in enumerate(histogram):
            total += weight
            if total >= limit - 1e-12:
                self._quantile_s = (index + 1) * BUCKET_S
                return


class Lag:
    """The delay of what is played, judged by the least of the last half second. Pure.

    A thread that pulls late, and then several blocks at once, sees more delay than the card plays with: going by the
    mean would shrink the buffer by just what the thread's next turn in time needs.
    """

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=LAG_BLOCKS)
        self._moved = 0.0

    @property
    def least(self) -> float | None:
        """Seconds; None before anything was noted."""
        return min(self._seen) + self._moved if self._seen else None

    def note(self, delay: float) -> None:
        """A block is pulled whose sound is ``delay`` seconds old beyond its fastest packet."""
        self._seen.append(delay - self._moved)

    def moved(self, seconds: float) -> None:
        """From now on everything is played so much later (or, below zero, earlier) than before."""
        self._moved += seconds

    def reset(self) -> None:
        self._seen.clear()
        self._moved = 0.0
