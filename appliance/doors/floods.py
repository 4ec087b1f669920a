"""Events that others cause, as many as the device can keep: whoever stands at a door without a key must not wear the
flash, nor push out of the outbox what matters.

Each kind has a limit of its own, so that knocking at one door silences nothing that happens at another. State is not
concerned: its documents are the newest alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.clock import RateLimit

__all__ = ["LIMITS", "Floods", "Limit"]

QUIET_S: Final = 600.0  # without one that was dropped; what comes then is another flood


@dataclass(frozen=True, slots=True)
class Limit:
    """``burst`` at once, ``per_s`` on and on, of all these types together."""

    types: frozenset[str]
    per_s: float
    burst: float


LIMITS: Final[Mapping[str, Limit]] = {
    "refusals": Limit(frozenset({"security.refused"}), 0.5, 100.0),
    "calls": Limit(frozenset({
        "call.incoming", "call.missed", "call.started", "call.stateChanged", "call.ended", "call.participant.added",
        "call.participant.updated", "call.participant.removed", "call.dominantSpeakersChanged"}), 2.0, 1000.0),
    "messages": Limit(frozenset({"data.received", "call.dtmf.received"}), 20.0, 1000.0),
}
"""Far above what people do: a room of hundreds may come at once, and a message a second and sender go on for ever."""


class Floods:
    """``tell``: of a kind that is dropped from now on, once for each flood."""

    def __init__(self, monotonic: Callable[[], float], tell: Callable[[str, Limit], None]) -> None:
        self._monotonic = monotonic
        self._tell = tell
        self._kinds = {one: kind for kind, limit in LIMITS.items() for one in limit.types}
        self._limits = {kind: RateLimit(limit.per_s, limit.burst, monotonic) for kind, limit in LIMITS.items()}
        self._dropped_at = dict.fromkeys(LIMITS, float("-inf"))

    def takes(self, event_type: str) -> bool:
        """Whether one more of this type is to be kept."""
        kind = self._kinds.get(event_type)
        if kind is None or self._limits[kind].take():
            return True
        now = self._monotonic()
        begins = now - self._dropped_at[kind] > QUIET_S
        self._dropped_at[kind] = now
        if begins:
            self._tell(kind, LIMITS[kind])
        return False
