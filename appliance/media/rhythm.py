"""How often something comes of who owes nothing but what it has shown of itself. Pure: the caller gives the time."""

from __future__ import annotations

from typing import Final

__all__ = ["Rhythm"]

KNOWN_S: Final = 12.0
"""Until the rhythm is known: in that time a media server answers two of our checks (every 4 to 6 s) and reports twice
(RFC 3550 6.2: at most 5 s apart)."""
HALF_S: Final = 30.0


class Rhythm:
    """The longest pause of the last minute. Seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0
        self._since = 0.0
        self._longest = self._before = 0.0  # of this half minute, and of the one before

    def beat(self, now: float) -> None:
        if self._first is None:
            self._first = self._since = self._last = now
        self._longest, self._last = max(self._longest, now - self._last), now
        if now - self._since > HALF_S:
            self._since, self._before, self._longest = now, self._longest, 0.0

    def missed(self, now: float) -> bool:
        """Whether it has been quiet for twice as long as it ever was; False while the rhythm is not known."""
        known = self._first is not None and self._last - self._first >= KNOWN_S
        return known and now - self._last > 2 * max(self._longest, self._before)
