"""Whether what is sent comes to the peer, by the peer's own reports: a path may carry everything but RTP, or the peer
may take none of it, and then it answers and reports all the same. Pure: the caller gives the time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

__all__ = ["UNHEARD_S", "Hearing", "unheard"]

UNHEARD_S: Final = 5.0
INTERVAL_S: Final = 2.0
"""That one report counts for at most: of what was sent between two of them some may be on its way still."""


class Hearing:
    """Of one stream. Seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.begun_at: float | None = None
        self.heard_at: float | None = None
        self._highest: int | None = None
        self._sent = 0  # packets, at the last report
        self._reported_at = 0.0
        self._unheard_s = 0.0  # between reports, while something was sent of which nothing came

    def begin(self, now: float) -> None:
        """A packet is sent."""
        if self.begun_at is None:
            self.begun_at = now

    def report(self, highest: int, sent: int, now: float) -> None:
        """The peer reports the ``highest`` number that came to it, when so many packets have been sent."""
        between, self._reported_at = min(now - self._reported_at, INTERVAL_S), now
        if highest != self._highest:
            self._highest, self.heard_at, self._unheard_s = highest, now, 0.0
        elif sent > self._sent:
            self._unheard_s += between
        self._sent = sent

    def heard(self, now: float) -> bool:
        """Lately."""
        return self.heard_at is not None and now - self.heard_at < UNHEARD_S

    def unheard(self, now: float) -> bool:
        """Something has been sent for long enough, and nothing of it has come, or no report at all."""
        if self.heard_at is None:
            return self.begun_at is not None and now - self.begun_at >= UNHEARD_S
        return self._unheard_s >= UNHEARD_S


def unheard(streams: Collection[Hearing], now: float) -> bool:
    """Of one connection: one of them is not heard, and none is."""
    return any(one.unheard(now) for one in streams) and not any(one.heard(now) for one in streams)
