"""Whether a queue grows on the path: trend of the one-way delay between groups of packets.

After draft-ietf-rmcat-gcc-02 section 5 and the trendline filter that succeeded its Kalman filter in practice.
Times are seconds; the peer's clock needs no relation to ours, only differences are used.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["DelayDetector", "Usage"]

GROUP_S: Final = 0.005  # packets sent within this time are one group: the pacer's burst
BURST_GAP_S: Final = 0.005  # what arrives this close behind, faster than it was sent, was held up together
BURST_S: Final = 0.1  # at most so long
REORDERED_GROUPS: Final = 3  # in a row: the peer's clock jumped
WINDOW: Final = 20  # groups in the trend: a second of sound, 0.3 s of full video
SMOOTHING: Final = 0.9
GAIN: Final = 4.0
MAX_DELTAS: Final = 60  # the trend counts fully from here on
OVERUSE_S: Final = 0.01  # over the threshold for so long
THRESHOLD_MS: Final = 12.5  # to begin with; gcc-02 5.4: it follows the trend, or other traffic would starve us
THRESHOLD_RANGE_MS: Final = (6.0, 600.0)
THRESHOLD_UP: Final = 0.0087  # per ms
THRESHOLD_DOWN: Final = 0.039
OUTLIER_MS: Final = 15.0  # a trend so far above the threshold is a spike that must not raise it


class Usage(Enum):
    """What the path's queue does."""

    NORMAL = "normal"
    OVER = "over"  # it grows
    UNDER = "under"  # it shrinks


@dataclass(slots=True)
class _Group:
    first_sent: float
    first_arrived: float
    sent: float
    arrived: float


class DelayDetector:
    """Feed it every packet that arrived, in order of arrival; ``usage`` is the verdict. Pure."""

    def __init__(self) -> None:
        self.usage = Usage.NORMAL
        self._reset()

    def _reset(self) -> None:
        self._current: _Group | None = None
        self._before: _Group | None = None
        self._reordered = 0
        self._deltas = 0
        self._total = 0.0
        self._smooth = 0.0
        self._points: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._trend = 0.0
        self._threshold = THRESHOLD_MS
        self._over_s: float | None = None
        self._over_groups = 0
        self._adapted_at: float | None = None

    def add(self, sent: float, arrived: float) -> None:
        """A packet that left at ``sent`` (our clock) and arrived at ``arrived`` (the peer's)."""
        group = self._current
        if group is None:
            self._current = _Group(sent, arrived, sent, arrived)
        elif sent < group.first_sent:
            return  # of an older group
        elif self._continues(group, sent, arrived):
            group.sent, group.arrived = max(group.sent, sent), max(group.arrived, arrived)
        else:
            if self._before is not None and not self._compare(self._before, group):
                return
            self._before, self._current = group, _Group(sent, arrived, sent, arrived)

    def _continues(self, group: _Group, sent: float, arrived: float) -> bool:
        if sent - group.first_sent <= GROUP_S:
            return True
        gap = arrived - group.arrived
        return gap < sent - group.sent and gap <= BURST_GAP_S and arrived - group.first_arrived < BURST_S

    def _compare(self, before: _Group, group: _Group) -> bool:
        """Take the delay between two groups into the trend. False: began anew."""
        arrival_delta = group.arrived - before.arrived
        if arrival_delta < 0:
            self._reordered += 1
            if self._reordered >= REORDERED_GROUPS:
                self._reset()
                return False
            return True
        self._reordered = 0
        send_delta = group.sent - before.sent
        self._deltas += 1
        self._total += (arrival_delta - send_delta) * 1000
        self._smooth = SMOOTHING * self._smooth + (1 - SMOOTHING) * self._total
        self._points.append((group.arrived * 1000, self._smooth))
        trend = _slope(self._points) if len(self._points) == WINDOW else 0.0
        self._judge(trend, send_delta, group.arrived)
        return True

    def _judge(self, trend: float, send_delta: float, now: float) -> None:
        strength = min(self._deltas, MAX_DELTAS) * trend * GAIN
        if strength > self._threshold:
            self._over_s = send_delta / 2 if self._over_s is None else self._over_s + send_delta
            self._over_groups += 1
            if self._over_s > OVERUSE_S and self._over_groups > 1 and trend >= self._trend:
                self._over_s, self._over_groups = 0.0, 0
                self.usage = Usage.OVER
        else:
            self._over_s, self._over_groups = None, 0
            self.usage = Usage.UNDER if strength < -self._threshold else Usage.NORMAL
        self._trend = trend
        self._adapt(abs(strength), now)

    def _adapt(self, strength: float, now: float) -> None:
        since_ms = 0.0 if self._adapted_at is None else min(100.0, (now - self._adapted_at) * 1000)
        self._adapted_at = now
        if strength > self._threshold + OUTLIER_MS:
            return
        speed = THRESHOLD_DOWN if strength < self._threshold else THRESHOLD_UP
        threshold = self._threshold + speed * (strength - self._threshold) * since_ms
        self._threshold = max(THRESHOLD_RANGE_MS[0], min(THRESHOLD_RANGE_MS[1], threshold))


def _slope(points: deque[tuple[float, float]]) -> float:
    """Least squares through the points; in one pass, it is the dearest step of a report."""
    origin = points[0][0]
    sum_x = sum_y = sum_xx = sum_xy = 0.0
    for at, y in points:
        x = at - origin
        sum_x += x
        sum_y += y
        sum_xx += x * x
        sum_xy += x * y
    count = len(points)
    spread = count * sum_xx - sum_x * sum_x
    return (count * sum_xy - sum_x * sum_y) / spread if spread > 0 else 0.0
