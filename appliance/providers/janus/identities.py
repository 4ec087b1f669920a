"""Who of several under one identity is shown. No I/O.

The newest join wins: the other is the ghost of one that lost its network. Whoever holds a name of somebody else's could
take it in turns with them, so one identity changes hands at most once in 30 s, and each time it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from appliance.providers.janus.protocol import Person

__all__ = ["TAKE_OVER_S", "Identities"]

TAKE_OVER_S: Final = 30.0


class Identities:
    """Of one room."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._holder: dict[str, str] = {}  # identity -> feed
        self._taken: dict[str, float] = {}  # identity -> when it changed hands

    def forget(self) -> None:
        """We are not in the room any more; when an identity changed hands is kept."""
        self._holder.clear()

    def settle(self, persons: Iterable[Person]) -> tuple[Sequence[str], float | None]:
        """``persons``: all that are there, in the order in which they came. Returns the identities that have just
        changed hands, and after how many seconds one more may."""
        there: dict[str, list[str]] = {}
        for person in persons:
            if person.identity:
                there.setdefault(person.identity, []).append(person.feed)
        now = self._monotonic()
        self._taken = {identity: at for identity, at in self._taken.items() if now - at < TAKE_OVER_S}
        taken, waits = [], []
        for identity, feeds in there.items():
            holder, newest = self._holder.get(identity), feeds[-1]
            if holder not in feeds:
                self._holder[identity] = newest
            elif holder != newest:
                if identity in self._taken:
                    waits.append(self._taken[identity] + TAKE_OVER_S - now)
                    continue
                self._holder[identity], self._taken[identity] = newest, now
                taken.append(identity)
        for identity in self._holder.keys() - there.keys():
            del self._holder[identity]
        return taken, min(waits, default=None)

    def shown(self, person: Person) -> bool:
        """Whether this is the one of its identity."""
        return not person.identity or self._holder.get(person.identity) == person.feed
