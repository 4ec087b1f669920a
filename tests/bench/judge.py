"""What is said of the pictures and packets of a window: pure arithmetic over times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

__all__ = ["Cap", "capped", "freezes", "frozen_s", "regained_s"]

FRAMES: Final = 30
"""A freeze is judged against the average of this many intervals (webrtc-stats, freezeCount)."""


def freezes(times: Sequence[float]) -> list[tuple[float, float]]:
    """The intervals between pictures that are freezes by the W3C rule: longer than three times the average interval of
    the last 30 pictures, and than that average plus 150 ms. ``times`` rises; seconds."""
    found: list[tuple[float, float]] = []
    kept: list[float] = []
    for earlier, later in pairwise(times):
        interval = later - earlier
        if kept:
            average = sum(kept) / len(kept)
            if interval > max(3 * average, average + 0.15):
                found.append((earlier, later))
        kept = [*kept[1 - FRAMES:], interval]
    return found


def frozen_s(times: Sequence[float], begin: float, end: float) -> float:
    """Seconds of a window in which the picture stood: its part of all freezes, the last of which may not have ended,
    and the whole of a window before the first picture."""
    seen = [at for at in times if at < end]
    if not seen:
        return end - begin
    if seen[0] > begin:
        seen = [begin, *seen]
    return sum(max(0.0, min(later, end) - max(earlier, begin)) for earlier, later in freezes([*seen, end]))


@dataclass(frozen=True, slots=True)
class Cap:
    """How a sender lived under a cap."""

    used: float  # share of the cap that arrived, once settled
    settled_s: float  # from the cap to the last packet that its queue dropped
    dropped: float  # share of the packets sent under the cap


def capped(samples: Sequence[tuple[float, int, int, int]], rate_bps: float, begin: float, end: float) -> Cap:
    """``samples``: (time, bytes arrived, packets sent, packets dropped by the queue), all counted from the start."""
    inside = [one for one in samples if begin <= one[0] <= end]
    first, last = inside[0], inside[-1]
    drops = [later[0] for earlier, later in pairwise(inside) if later[3] > earlier[3]]
    settled = (drops[-1] - begin) if drops else 0.0
    half = [one for one in inside if one[0] >= (begin + end) / 2]
    bits = (half[-1][1] - half[0][1]) * 8
    return Cap(
        used=bits / (half[-1][0] - half[0][0]) / rate_bps, settled_s=settled,
        dropped=(last[3] - first[3]) / max(1, last[2] - first[2]),
    )


def regained_s(
    samples: Sequence[tuple[float, int, int, int]], before_bps: float, begin: float, end: float, share: float = 0.9,
) -> float:
    """Seconds from the release of a cap until one second's rate is back at ``share`` of what it was before; the whole
    window when it never is."""
    inside = [one for one in samples if begin <= one[0] <= end]
    for place, (at, arrived, _, _) in enumerate(inside):
        later = next((one for one in inside[place:] if one[0] >= at + 1.0), None)
        if later is None:
            break
        if (later[1] - arrived) * 8 / (later[0] - at) >= share * before_bps:
            return later[0] - begin
    return end - begin
