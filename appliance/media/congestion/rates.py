"""The parts that hold a rate: what arrives, what the delay allows (AIMD), what the loss allows. Bits per second."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final

from appliance.media.congestion.delay import Usage

__all__ = ["GROWTH_PER_S", "AcknowledgedRate", "DelayBound", "LossBound"]

RATE_WINDOW_S: Final = 0.15
FIRST_WINDOW_S: Final = 0.5
PEAK_SAMPLES: Final = 3

BACK_OFF: Final = 0.92  # of what arrives, when the queue grows (gcc-02 6: 0.8 to 0.95)
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
OBSERVE_S: Final = 0.25  # one observation: a rate and what was lost of it
OBSERVE_PACKETS: Final = 20  # fewer say nothing
OBSERVATIONS: Final = 20
OBSERVATION_WEIGHT: Final = 0.9  # of each against the next younger one
CANDIDATES: Final = (1.02, 1.0, 0.95)  # times the bound in force
NEWTON_STEPS: Final = 2
PATH_LOSS: Final = (1e-3, 0.12)  # share the medium itself may lose at any rate
PATH_LOSS_BPS: Final = 75_000  # over the bound, as a share more: on thin paths each packet is a larger one
HIGHER: Final = (2e-4, 0.02)  # per packet, times kbit/s and its logarithm: what speaks for the higher of two bounds
HIGHER_LOSS: Final = (0.2, 2e-3)  # unless so much is lost; and how sharp that turns
PATH_LOSS_SEEN: Final = 8  # observations at least, before the medium is believed to lose any


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


@dataclass(slots=True)
class _Observation:
    """``packets`` sent at ``rate`` bits per second, ``lost`` of them lost."""

    packets: int
    lost: int
    rate: float


class LossBound:
    """What the loss allows. Pure.

    Loss that is the same at every rate is the medium's, and no lower rate would heal it; a bound is what loss that
    grows with the rate shows. After libwebrtc's second loss-based estimator: of some candidates it is the bound that,
    with the medium's loss that suits it best, makes what was observed most likely.

    ``window_s``: over how long ``loss`` is counted; several reports must fall into it.
    """

    def __init__(self, window_s: float = LOSS_WINDOW_S) -> None:
        self._window_s = window_s
        self.value = math.inf
        self.loss = 0.0  # share of the last second
        self._window: deque[tuple[float, int, int]] = deque()  # (time, packets, lost)
        self._seen: deque[_Observation] = deque(maxlen=OBSERVATIONS)
        self._begun: float | None = None  # of the observation that is being made
        self._now = (0, 0, 0.0)  # its packets, lost ones, and bits

    def update(self, packets: int, lost: int, bits: float, limit: float, arriving: float | None, now: float) -> None:
        """``packets`` of ``bits`` in all were reported on, ``lost`` of them missing. ``limit`` is what else bounds the
        rate, ``arriving`` the rate that arrives, both in bits per second."""
        self._window.append((now, packets, lost))
        while self._window[0][0] < now - self._window_s:
            self._window.popleft()
        told = sum(packets for _, packets, _ in self._window)
        if told >= OBSERVE_PACKETS and now - self._window[0][0] >= self._window_s / 2:
            self.loss = max(0, sum(lost for _, _, lost in self._window)) / told
        if self._begun is None:
            self._begun = now
            return
        self._now = (self._now[0] + packets, self._now[1] + lost, self._now[2] + bits)
        if now - self._begun < OBSERVE_S or self._now[0] < OBSERVE_PACKETS:
            return
        packets, lost, bits = self._now
        self._seen.append(_Observation(packets, max(0, min(packets, lost)), max(1.0, bits / (now - self._begun))))
        self._begun, self._now = now, (0, 0, 0.0)
        self._choose(limit, arriving)

    @property
    def path_loss(self) -> float:
        """Share that the medium is believed to lose: what most of the observations had, of which a queue that runs over
        makes few."""
        if len(self._seen) < PATH_LOSS_SEEN:
            return 0.0
        return min(PATH_LOSS[1], median(seen.lost / seen.packets for seen in self._seen))

    def raise_to(self, value: float) -> None:
        self.value = max(self.value, value)

    def _choose(self, limit: float, arriving: float | None) -> None:
        now = min(self.value, limit)
        if self._collapsed(now):
            return
        highest = limit
        if arriving is not None and self.value < math.inf:
            highest = min(limit, max(now, GROWTH_LIMIT[0] * arriving + GROWTH_LIMIT[1]))
        candidates = {min(factor * now, highest) for factor in CANDIDATES} | {highest}
        if arriving is not None:
            candidates.add(min(max(1.0, arriving), now))
        best = max(candidates, key=self._likelihood)
        self.value = math.inf if best >= limit else best

    def _collapsed(self, now: float) -> bool:
        """So much is lost that the path is another one than before: at once no more than what it brings."""
        if self.loss <= HIGHER_LOSS[0]:
            return False
        last = self._seen[-1]
        most = max(last.rate * (1 - last.lost / last.packets), PATH_LOSS_BPS / (self.loss - PATH_LOSS[1]))
        if most >= now:
            return False
        self.value = most
        self._seen = deque([last], OBSERVATIONS)
        return True

    def _likelihood(self, bound: float) -> float:
        """How well ``bound`` explains what was observed, with the loss of the medium with which it does best."""
        most = min(1.0, PATH_LOSS[1] + PATH_LOSS_BPS / bound)
        weighed = []  # (weight of packets that arrived, of lost ones, share lost because the rate was over the bound)
        weight, total, gone = 1.0, 0.0, 0.0
        for seen in reversed(self._seen):
            weighed.append((weight * (seen.packets - seen.lost), weight * seen.lost, max(0.0, 1 - bound / seen.rate)))
            total += weight * seen.packets
            gone += weight * seen.lost
            weight *= OBSERVATION_WEIGHT
        loss = max(PATH_LOSS[0], min(most, gone / total))
        for _ in range(NEWTON_STEPS):
            slope = bend = 0.0
            for arrived, lost, over in weighed:
                share = _share(loss + (1 - loss) * over)
                slope += (1 - over) * (lost / share - arrived / (1 - share))
                bend -= (1 - over) ** 2 * (lost / share**2 + arrived / (1 - share) ** 2)
            loss = max(PATH_LOSS[0], min(most, loss - slope / bend if bend else loss))
        likelihood = total * _for_higher(bound / 1000, self.loss)
        for arrived, lost, over in weighed:
            share = _share(loss + (1 - loss) * over)
            likelihood += lost * math.log(share) + arrived * math.log(1 - share)
        return likelihood


def _share(value: float) -> float:
    return max(1e-6, min(1 - 1e-6, value))


def _for_higher(kilobits: float, loss: float) -> float:
    """What speaks for a bound because of its height alone."""
    inclined = (HIGHER_LOSS[0] - loss) / (HIGHER_LOSS[1] + abs(HIGHER_LOSS[0] - loss))
    return inclined * (HIGHER[0] * kilobits + HIGHER[1] * math.log(1 + kilobits))
