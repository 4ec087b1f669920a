"""How many pictures of others this board carries at a time, by what those cost that it shows. Pure: time comes in.

A picture costs what its decoding and drawing take. What half of the processor pays for is affordable: the rest is for
sound, the own picture and the network. One that is too much goes within seconds, one more comes after ten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appliance.media.layout import ALL, MOST
from appliance.vocabulary import Json

__all__ = ["Load", "OptimalCount", "Why"]

SHARE: Final = 0.5
"""Of all cores for pictures of others."""

HOLD_S: Final = 10.0
"""Since the last change, and so long affordable, before the count rises: as the cool-down of ACS."""

FALL_S: Final = 2.0
"""So long too much before it falls: a breath of the scheduler is none."""

THROTTLED_MOST: Final = MOST // 2
"""Of a processor that was slowed down because of heat: half of them heat it half as much, whatever they cost now."""

WEIGHT: Final = 0.3
"""Of the latest second in the cost of a picture."""


class Why(StrEnum):
    """Why the count is what it is; the words of ACS."""

    PERFORMANCE = "performance"  # of this board
    EXTERNAL_LIMIT = "externalLimit"  # no layout has more


@dataclass(frozen=True, slots=True)
class Load:
    """Of the time since the last one. ``streams``: shown; ``decode_s`` and ``draw_s``: seconds per second that decoding
    all of them and drawing the screen took; ``late``: access units thrown away because the decoders did not keep up."""

    streams: int = 0
    decode_s: float = 0.0
    draw_s: float = 0.0
    late: int = 0
    throttled: bool = False


class OptimalCount:
    """``cores``: of the board."""

    def __init__(self, cores: int) -> None:
        self._budget_s = SHARE * cores
        self._cost_s: float | None = None  # of one picture, per second
        self._changed = -math.inf
        self._turned: float | None = None  # since when another count would be right
        self.value = ALL  # content among them

    def update(self, load: Load, now: float) -> bool:
        """Whether ``value`` is another one."""
        affordable = self._affordable(load)
        if affordable == self.value:
            self._turned = None
            return False
        if self._turned is None:
            self._turned = now
        if affordable < self.value:
            due = now - self._turned >= FALL_S
        else:
            due = now - max(self._turned, self._changed) >= HOLD_S
        if due:
            self.value, self._changed, self._turned = affordable, now, None
        return due

    def document(self) -> Json:
        """Of people: as ACS counts."""
        why = Why.EXTERNAL_LIMIT if self.value >= MOST else Why.PERFORMANCE
        return {"value": min(MOST, self.value), "reason": why.value}

    def _affordable(self, load: Load) -> int:
        """What is not shown costs as much as what is; before anything is shown nothing speaks against the most."""
        if load.streams:
            cost = (load.decode_s + load.draw_s) / load.streams
            self._cost_s = cost if self._cost_s is None else self._cost_s + WEIGHT * (cost - self._cost_s)
        found = ALL if not self._cost_s else int(self._budget_s / self._cost_s)
        if load.late:
            found = min(found, load.streams - 1)
        if load.throttled:
            found = min(found, THROTTLED_MOST)
        return max(1, min(ALL, found))
