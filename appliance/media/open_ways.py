"""The ways of one transport: each opened for a line, in use by that or, in a bundle (RFC 9143), by several."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from appliance.media.ways import Place, Way
from appliance.tasks import background, fail_loudly

__all__ = ["OpenWays"]


class OpenWays:
    """``name``: of the session. They are opened in rounds, of one way for a line; what no line uses, nor may use yet,
    is closed. ``used``: the ways that lines use now."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rounds = 0
        self._open: dict[Way, int] = {}  # and the round that each is of
        self._latest: dict[str, Way] = {}  # by line, as long as nothing is agreed for it
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    def begin(self) -> None:
        """Another round."""
        self._rounds += 1

    def keep(self, kind: str, way: Way, used: Collection[Way]) -> None:
        """It is opened now for a line, and closed here. Raises OSError where all is over meanwhile."""
        if self._closed:
            raise OSError("the session is over")
        self._open[way] = self._rounds
        self._latest[kind] = way
        self._prune(used)

    def find(self, kind: str, place: Place | None) -> Way | None:
        """That to a place of ours; without one the latest of the line. None: there is none (any more)."""
        if place is None:
            return self._latest.get(kind)
        return next((way for way in self._open if way.carries(place)), None)

    def agreed(self, kind: str, way: Way, used: Collection[Way]) -> None:
        """The line uses this one: that of its own in the same round, or an earlier one, is not needed."""
        latest = self._latest.get(kind)
        if latest is not None and self._open[latest] <= self._open[way]:
            del self._latest[kind]
        self._prune(used)

    def stay(self, used: Collection[Way]) -> None:
        """Nothing comes of what was opened since."""
        self._latest.clear()
        self._prune(used)

    def _prune(self, used: Collection[Way]) -> None:
        for way in [one for one in self._open if one not in used and one not in self._latest.values()]:
            del self._open[way]
            task = background(way.close(), name=f"media.leave {self._name}", failed=fail_loudly)
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        self._closed = True
        self._latest.clear()
        for way in self._open:
            await way.close()
        self._open.clear()
        await asyncio.gather(*self._leaving)
