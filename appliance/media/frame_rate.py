"""How many pictures come in a second. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final

__all__ = ["FrameRate"]

WINDOW_S: Final = 1.0  # W3C framesPerSecond: "in the last second"
LONGEST_MEMORY: Final = 240  # pictures of the last second: beyond any camera


class FrameRate:
    """Told of each picture by one thread, asked by others; the caller gives the time, of a monotonic clock."""

    def __init__(self) -> None:
        self.frames = 0
        self._recent: deque[float] = deque(maxlen=LONGEST_MEMORY)

    def frame(self, now: float) -> None:
        self.frames += 1
        self._recent.append(now)

    def per_second(self, now: float) -> float:
        """Pictures of the last second."""
        recent = list(self._recent)
        return float(len(recent) - bisect_right(recent, now - WINDOW_S))
