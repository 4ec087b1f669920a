"""Who speaks, and who has the floor: a ranking by loudness that does not flap. Pure: time comes in.

A voice counts with its loudness of the last moments, rising at once and falling slowly, so that the pause between two
words gives nothing away. Who is louder by 3 dB goes ahead; the ranking changes twice a second at most, and silence
changes nothing: whoever spoke last keeps the floor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Final

__all__ = ["Speakers"]

SPEECH_DB: Final = -45.0  # dBFS: voices are above, rooms below
HOLD_S: Final = 0.4  # a pause between words
AHEAD_DB: Final = 3.0
CHANGE_S: Final = 0.5
RISE_S: Final = 0.15  # time constants of the loudness
FALL_S: Final = 0.8
SILENT_DB: Final = -80.0
RANKED: Final = 5


class Speakers:
    """Of one call. Participants are their ids."""

    def __init__(self) -> None:
        self.ranking: tuple[str, ...] = ()
        """Those who have spoken, whoever has the floor first."""
        self.speaking: Set[str] = frozenset()
        self._loudness: dict[str, float] = {}
        self._spoke: dict[str, float] = {}  # when last
        self._at: float | None = None
        self._changed = -math.inf

    @property
    def measured(self) -> bool:
        """Whether anybody measures."""
        return self._at is not None

    def update(self, levels: Mapping[str, float], now: float) -> bool:
        """``levels``: dBFS of everybody there since the last time. Whether ``ranking`` or ``speaking`` changed."""
        before = self.ranking, self.speaking
        elapsed = 0.25 if self._at is None else max(0.0, now - self._at)
        self._at = now
        for one in self._loudness.keys() - levels.keys():
            del self._loudness[one]
            self._spoke.pop(one, None)
        for one, level in levels.items():
            old, new = self._loudness.get(one, SILENT_DB), max(level, SILENT_DB)
            constant = RISE_S if new > old else FALL_S
            self._loudness[one] = old + (new - old) * (1 - math.exp(-elapsed / constant))
            if level > SPEECH_DB:
                self._spoke[one] = now
        self.speaking = frozenset(one for one, at in self._spoke.items() if now - at < HOLD_S)
        self._rank(now)
        return before != (self.ranking, self.speaking)

    def _rank(self, now: float) -> None:
        there = [one for one in self.ranking if one in self._loudness]
        ranked = [*there, *sorted(self._spoke.keys() - set(there), key=lambda one: -self._loudness[one])]
        for place in range(1, len(ranked)):  # each moves up past those it is clearly louder than
            one, at = ranked[place], place
            while at > 0 and one in self.speaking and (
                self._loudness[one] > self._loudness[ranked[at - 1]] + AHEAD_DB
            ):
                ranked[at] = ranked[at - 1]
                at -= 1
            ranked[at] = one
        found = tuple(ranked[:RANKED])
        if len(there) < len(self.ranking):  # somebody has left: that waits for nothing
            self.ranking = tuple(there)
        if found != self.ranking and now - self._changed >= CHANGE_S:
            self.ranking, self._changed = found, now
