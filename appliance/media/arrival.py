"""How well what one person of a room sends arrives here, 5 excellent to 1 bad, by what the network lost of it. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Arrival"]

WINDOW_S: Final = 5.0
ENOUGH: Final = 50  # packets, to say anything of a share
_LEVELS: Final = ((0.01, 5), (0.03, 4), (0.06, 3), (0.10, 2))  # share of packets lost, up to which


class Arrival:
    """Of one stream; told of its counters now and then, which may begin again with another source."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()  # when, packets received, packets lost
        self.level: int | None = None
        """None: too little has come to tell."""

    def look(self, received: int, lost: int, now: float) -> None:
        if self._seen and received < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, received, lost))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()
        came, missing = received - self._seen[0][1], max(0, lost - self._seen[0][2])
        if came + missing < ENOUGH:
            if now - self._seen[0][0] >= WINDOW_S:
                self.level = None
            return
        share = missing / (came + missing)
        self.level = next((level for limit, level in _LEVELS if share <= limit), 1)
