"""Which of several servers is used: the one that is pinned, the first in order, or the nearest. No I/O.

A server that was not reached stands behind the others until it answers again, or for a while. Nearness is the round
trip of a probe; another server must be a fifth nearer to be changed to, so that two equals do not take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.vocabulary import Json

__all__ = ["Endpoints"]

SET_BACK_S: Final = 60.0  # a server that was not reached; probes make it shorter
NEARER: Final = 0.8  # of the round trip to the server in use


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    round_trip_s: float | None = None  # of the last probe
    set_back_until: float | None = None  # monotonic
    fault: str = ""


class Endpoints:
    """``urls`` in order of preference, at least one. ``choose``: order, nearest, or pinned (to the first)."""

    def __init__(self, urls: Sequence[str], choose: str, *, monotonic: Callable[[], float]) -> None:
        self._servers = {url: _Server(url) for url in urls}
        self._choose = choose
        self._monotonic = monotonic
        self._selected = next(iter(self._servers))
        self._held = False

    @property
    def urls(self) -> Sequence[str]:
        """Those that may be used at all."""
        return list(self._servers)[:1] if self._choose == "pinned" else list(self._servers)

    @property
    def selected(self) -> str:
        """The one to connect to now."""
        self._select()
        return self._selected

    @property
    def failing(self) -> bool:
        """Whether one of them was not reached the last time."""
        return any(self._servers[url].fault for url in self.urls)

    def failed(self, url: str, words: str) -> None:
        """It was not reached."""
        self._change(url, set_back_until=self._monotonic() + SET_BACK_S, fault=words, round_trip_s=None)

    def worked(self, url: str) -> None:
        """It was connected to: where the others in the room are, until ``release``."""
        self._held = True
        self._change(url, set_back_until=None, fault="")

    def release(self) -> None:
        """No room is joined any more."""
        self._held = False

    def measured(self, url: str, round_trip_s: float) -> None:
        """A probe was answered."""
        self._change(url, set_back_until=None, fault="", round_trip_s=round_trip_s)

    def state(self) -> Json:
        """For ``state/provider``."""
        self._select()
        return {
            "selectedEndpoint": {"url": self._selected, "roundTripTime": self._rounded(self._selected),
                                 "reason": self._reason},
            "endpoints": [{"url": url, "roundTripTime": self._rounded(url), "fault": self._servers[url].fault or None}
                          for url in self._servers]}

    def _change(self, url: str, **changes: object) -> None:
        if url in self._servers:
            self._servers[url] = replace(self._servers[url], **changes)  # type: ignore[arg-type]

    def _rounded(self, url: str) -> float | None:
        took = self._servers[url].round_trip_s
        return None if took is None else round(took, 4)

    def _select(self) -> None:
        now = self._monotonic()
        servers = [self._servers[url] for url in self.urls]
        usable = [one for one in servers if one.set_back_until is None or one.set_back_until <= now]
        if not usable:  # the one whose time is over first has been left alone the longest
            usable = [min(servers, key=lambda one: one.set_back_until or 0.0)]
        best, current = usable[0], self._servers[self._selected]
        if self._held and current in usable:
            return
        if self._choose == "nearest":
            best = min(usable, key=lambda one: (one.round_trip_s is None, one.round_trip_s or 0.0))
            if current in usable and not _nearer(best, current):
                best = current
        self._selected = best.url

    @property
    def _reason(self) -> str:
        if self._choose == "pinned":
            return "pinned"
        if self._choose == "nearest" and self._servers[self._selected].round_trip_s is not None:
            return "nearest"
        return "order" if self._selected == next(iter(self._servers)) else "failover"


def _nearer(one: _Server, other: _Server) -> bool:
    if one.round_trip_s is None:
        return False
    return other.round_trip_s is None or one.round_trip_s < NEARER * other.round_trip_s
