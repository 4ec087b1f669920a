"""Asking one who says little by itself whether it is still there. Pure: the caller gives the time.

A server that we only publish to, or a room in which nobody sends anything, owes nothing but reports and answers, both
seldom. An answer to what is asked is due within a round trip, so a few questions tell soon what waiting tells late.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Inquiry"]

QUIET_S: Final = 0.75
"""Of silence until the first question: a server that reports on what arrives (transport-wide) is never asked."""
UNANSWERED: Final = 7
"""Questions of which none was answered are silence: where 15 of 100 are lost each way, seven in a row are 1 in 8000."""
ANSWER_S: Final = 0.5
ROUND_TRIPS: Final = 1.5
"""An answer has this time, the longer of the two: a path of 600 ms is slower and not silent."""


class Inquiry:
    """The questions since anything was heard. Seconds of one monotonic clock; asked as often as the caller looks, which
    is every 0.25 s. ``round_trips``: the time that an answer has."""

    def __init__(self, *, round_trips: float = ROUND_TRIPS) -> None:
        self._round_trips = round_trips
        self._asked: list[float] = []

    def heard(self) -> None:
        """Something came, an answer or not."""
        self._asked.clear()

    def due(self, now: float, heard_at: float) -> bool:
        """Whether to ask now."""
        return now - heard_at >= QUIET_S

    def asked(self, now: float) -> None:
        self._asked.append(now)
        del self._asked[: -4 * UNANSWERED]  # of a path so long that the first of them is awaited still

    def in_vain(self, now: float, round_trip_s: float | None) -> bool:
        """Whether answers to enough of them should have come. ``round_trip_s``: the latest; None: not known."""
        patience = max(ANSWER_S, self._round_trips * (round_trip_s or 0.0))
        return sum(now - at >= patience for at in self._asked) >= UNANSWERED
