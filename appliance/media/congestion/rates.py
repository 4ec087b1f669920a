"""The parts that hold a rate: what arrives, what the delay allows (AIMD), what the loss allows. Bits per second."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from appliance.media.congestion.delay import Usage

__all__ = ["AcknowledgedRate", "DelayBound", "LossBound"]

RATE_WINDOW_S: Final = 0.15
FIRST_WINDOW_S: Final = 0.5
PEAK_SAMPLES: Final = 3

BACK_OFF: Final = 0.85  # of what arrives, when the queue grows (gcc-02 6: 0.8 to 0.95)
GROWTH_PER_S: Final = 1.08  # while the capacity is not known
GROWTH_LIMIT: Final = (1.5, 10_000)  # no further than so many times what arrives, and some bits
NEAR: Final = 1.25  # times where the queue grew: a probe that has shown more makes that history
NEAR_S: Final = 6.0  # at a real limit the queue grows more often than that
LEAST_GROWTH: Final = 4_000  # bits per second, each second
RESPONSE_S: Final = 0.1  # over the round trip: until an increase shows itself
FRAME_S: Final = 1 / 30
PACKET_BITS: Final = 1200 * 8
CUT_AGAIN_S: Final = (0.01, 0.2)  # a further cut after one round trip, within these

LOSS_WINDOW_S: Final = 1.0
LOSS_PACKETS: Final = 20  # fewer say nothing
LOSS_LOW: Final = 0.02  # up to here the rate may grow (gcc-02 6)
LOSS_HIGH: Final = 0.10  # from here on it must shrink
LOSS_GROWTH: Final = 1.08
LOSS_EVERY_S: Final = 0.3
PATH_LOSS_MAX: Final = 0.12  # loss of the medium itself that no lower rate would heal
PATH_LOSS_S: Final = 6.0  # it is the least of so long


class AcknowledgedRate:
    """Bits per second that arrive at the peer, by a Bayesian average that trusts what does not jump. Pure."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._variance = 50.0
        self._begin: float | None = None
        self._bits = 0
        self._samples: deque[float] = deque(maxlen=PEAK_SAMPLES)

    @property
    def peak(self) -> float | None:
        """The most of the last half second: what the path carries while its queue grows, even if by one large frame."""
        return max((*self._samples, self.value or 0.0), default=None) if self.value is not None else None

    def add(self, arrived: float, size: int, *, limited: bool) -> None:
        """``size`` bytes arrived; ``limited``: we send less than we may, so little says little."""
        window = FIRST_WINDOW_S if self.value is None else RATE_WINDOW_S
        if self._begin is None or arrived < self._begin or arrived - self._begin > 4 * window:
            self._begin, self._bits = arrived, 0
        if arrived - self._begin >= window:
            self._sample(self._bits / (arrived - self._begin) / 1000, limited=limited)
            self._begin, self._bits = arrived, 0
        self._bits += size * 8

    def _sample(self, kilobits: float, *, limited: bool) -> None:
        self._samples.append(kilobits * 1000)
        if self.value is None:
            self.value = kilobits * 1000
            return
        old = self.value / 1000
        scale = 20.0 if limited and kilobits < old else 10.0
        sample_variance = (scale * abs(old - kilobits) / max(old, 1.0)) ** 2
        variance = self._variance + 5.0
        self.value = 1000 * (sample_variance * old + variance * kilobits) / (sample_variance + variance)
        self._variance = sample_variance * variance / (sample_variance + variance)


class _Capacity:
    """Where the queue began to grow the last times: mean and spread, in kbit/s."""

    def __init__(self) -> None:
        self.mean: float | None = None
        self._deviation = 0.4

    def add(self, kilobits: float) -> None:
        if self.mean is None:
            self.mean = kilobits
            return
        error = self.mean - kilobits
        self.mean += 0.05 * (kilobits - self.mean)
        self._deviation = max(0.4, min(2.5, 0.95 * self._deviation + 0.05 * error * error / max(1.0, self.mean)))

    def far(self, kilobits: float, side: int) -> bool:
        """Whether ``kilobits`` is beyond three deviations on that side (1 above, -1 below)."""
        if self.mean is None:
            return False
        return side * (kilobits - self.mean) > 3 * math.sqrt(self._deviation * self.mean)

    def forget(self) -> None:
        self.mean = None


class DelayBound:
    """Additive increase, multiplicative decrease by the delay's verdict (gcc-02 section 5.5). Pure."""

    def __init__(self, start: float) -> None:
        self.value = start
        self._capacity = _Capacity()
        self._changed_at: float | None = None
        self._cut_at = -math.inf
        self._hold = False

    def update(
        self, usage: Usage, arriving: float | None, peak: float | None, round_trip: float, now: float
    ) -> None:
        """Once per report of the peer."""
        since = 0.0 if self._changed_at is None else min(1.0, now - self._changed_at)
        if usage is Usage.OVER:
            self._cut(peak, round_trip, now)
        elif usage is Usage.UNDER:
            self._hold = True  # the queue empties: let it
        elif self._hold:
            self._hold, self._changed_at = False, now
        else:
            self._grow(arriving, since, round_trip)
            self._changed_at = now

    def near_capacity(self, now: float) -> bool:
        """The queue grew not long ago, at about this rate."""
        mean = self._capacity.mean
        return mean is not None and self.value < NEAR * mean * 1000 and now - self._cut_at < NEAR_S

    def raise_to(self, value: float, now: float) -> None:
        """A probe has shown that the path carries ``value``."""
        if value > self.value:
            if self._capacity.far(value / 1000, 1):
                self._capacity.forget()
            self.value, self._changed_at = value, now

    def _cut(self, arriving: float | None, round_trip: float, now: float) -> None:
        pause = max(CUT_AGAIN_S[0], min(CUT_AGAIN_S[1], round_trip))
        if self._hold and self._changed_at is not None and now - self._changed_at < pause:
            return
        if arriving is None:
            self.value /= 2
        else:
            if self._capacity.far(arriving / 1000, -1):
                self._capacity.forget()
            self._capacity.add(arriving / 1000)
            self.value = min(self.value, BACK_OFF * arriving)
        self._hold, self._changed_at, self._cut_at = True, now, now

    def _grow(self, arriving: float | None, since: float, round_trip: float) -> None:
        if arriving is None:
            return
        if self._capacity.far(arriving / 1000, 1):
            self._capacity.forget()
        if self._capacity.mean is None:
            grown = self.value * GROWTH_PER_S**since
        else:
            packets = math.ceil(self.value * FRAME_S / PACKET_BITS)
            packet = self.value * FRAME_S / packets
            grown = self.value + since * max(LEAST_GROWTH, packet / (round_trip + RESPONSE_S))
        self.value = max(self.value, min(grown, GROWTH_LIMIT[0] * arriving + GROWTH_LIMIT[1]))


class LossBound:
    """What the loss allows (gcc-02 section 6), less what the medium itself loses at any rate. Pure.

    ``window_s``: over how long loss is counted; several reports must fall into it.
    """

    def __init__(self, window_s: float = LOSS_WINDOW_S) -> None:
        self._window_s = window_s
        self.value = math.inf
        self.loss = 0.0  # share of the last second
        self._window: deque[tuple[float, int, int]] = deque()  # (time, packets, lost)
        self._least: deque[tuple[float, float]] = deque()
        self._changed_at = -math.inf

    def update(self, packets: int, lost: int, current: float, round_trip: float, now: float) -> None:
        """``packets`` were reported on, ``lost`` of them missing; ``current`` is the rate in force."""
        self._window.append((now, packets, lost))
        while self._window[0][0] < now - self._window_s:
            self._window.popleft()
        told = sum(packets for _, packets, _ in self._window)
        if told < LOSS_PACKETS or now - self._window[0][0] < self._window_s / 2:
            return
        self.loss = max(0, sum(lost for _, _, lost in self._window)) / told
        loss = max(0.0, self.loss - self._of_the_path(now))
        if now - self._changed_at < LOSS_EVERY_S + round_trip:
            return
        if loss > LOSS_HIGH:
            self.value = min(self.value, current) * (1 - 0.5 * loss)
            self._changed_at = now
        elif loss <= LOSS_LOW and self.value < math.inf:
            self.value = self.value * LOSS_GROWTH ** min(1.0, now - self._changed_at) + 1000
            self._changed_at = now
            if self.value > 2 * current:
                self.value = math.inf

    def raise_to(self, value: float) -> None:
        self.value = max(self.value, value)

    def _of_the_path(self, now: float) -> float:
        self._least.append((now, self.loss))
        while self._least[0][0] < now - PATH_LOSS_S:
            self._least.popleft()
        if now - self._least[0][0] < PATH_LOSS_S / 2:
            return 0.0
        least = min(loss for _, loss in self._least)
        return min(PATH_LOSS_MAX, least)
