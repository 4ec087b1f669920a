"""How often sound broke up lately, and the latency that is spent against it. Pure: no clock, no card."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Dropouts"]

MANY: Final = 10
FEW: Final = 5
MINUTE_S: Final = 60.0
"""More xruns a minute than the first are told; it is over when a minute had no more than the second."""

NEAR_S: Final = 20.0
"""A loudspeaker that ran empty twice within this gets more sound to wait for it: once may be a pause of the machine."""

STEP_S: Final = 0.01
MOST_S: Final = 0.1
"""Beyond, people fall into each other's words."""


class Dropouts:
    """For one start of the sound: what was added to the latency stays until the next."""

    def __init__(self, latency_s: float) -> None:
        """``latency_s``: sound that is kept on its way to the loudspeaker."""
        self.latency_s = latency_s
        self.many = False
        self._xruns: deque[tuple[float, int]] = deque()
        self._counted = 0
        self._emptied_at: float | None = None

    @property
    def lately(self) -> int:
        """Xruns within the last minute."""
        return sum(count for _, count in self._xruns)

    def count(self, now: float, xruns: int) -> bool:
        """``xruns`` since the start, seen at ``now`` (seconds). True when ``many`` has changed."""
        if xruns > self._counted:
            self._xruns.append((now, xruns - self._counted))
            self._counted = xruns
        while self._xruns and now - self._xruns[0][0] > MINUTE_S:
            self._xruns.popleft()
        was, self.many = self.many, self.lately > (FEW if self.many else MANY)
        return self.many != was

    def ran_empty(self, now: float) -> bool:
        """The loudspeaker did. True when the latency was raised for it."""
        near = self._emptied_at is not None and now - self._emptied_at < NEAR_S
        self._emptied_at = now
        if not near or self.latency_s >= MOST_S:
            return False
        self.latency_s = min(MOST_S, self.latency_s + STEP_S)
        return True
