"""Whether a machine says the same again, by how loud it is from moment to moment. Pure.

A service that did not take what was pressed asks for it once more, by the same recording. What people say is never that
much alike, nor is another announcement.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from appliance.providers.sip.keying import SOUND_DB

__all__ = ["Recording", "is_repeated"]

STEP_S: Final = 0.05
KEPT: Final = 800  # points: 40 s and more
GAP_S: Final = 3 * STEP_S  # nobody has looked for so long: what was in between is not known
FLOOR_DB: Final = -50.0  # all below it is silence
TAIL: Final = 60  # steps: the last 3 s of an announcement tell it from others
LEAD: Final = 8  # steps of silence before it
REST: Final = 16  # and behind it; less than what makes an announcement be over
LEAST: Final = 20  # steps of sound; one beep is like another
WARP_DB: Final = 9.0  # the price of a step that one has more than the other: play-out stretches sound, or skips some
ALIKE_DB: Final = 2.5
"""On average. 50 announcements of Asterisk's voice, with steps cut elsewhere and one in fifty stretched or skipped, all
differ from themselves by less, and of 400 pairs of others five, most of which have the same words."""
UNKNOWN_DB: Final = 3.0  # of a step at which nobody looked; speaks a little against


class Recording:
    """The energy (W3C totalAudioEnergy) of what was heard, by time in seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=KEPT)

    def hear(self, at: float, energy: float) -> None:
        self._points.append((at, energy))

    def levels(self) -> list[float]:
        """dBFS of each step; NaN where nobody has looked."""
        points = list(self._points)
        if len(points) < 2:
            return []
        found: list[float] = []
        at, index = points[0][0], 1
        before: float | None = None
        while at <= points[-1][0]:
            while points[index][0] < at:
                index += 1
            (began, low), (ended, high) = points[index - 1], points[index]
            energy = low if ended <= began else low + (high - low) * (at - began) / (ended - began)
            if before is not None:
                level = max(FLOOR_DB, 10 * math.log10(max(energy - before, 0.0) / STEP_S + 1e-12))
                found.append(math.nan if ended - began > GAP_S else level)
            before = energy
            at += STEP_S
        return found


def is_repeated(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether the end of what was said before is in what was said after, by their levels. Takes 20 ms of a desktop's
    core."""
    wanted = _ending(before)
    return bool(wanted) and _distance(wanted, [FLOOR_DB] * LEAD + list(after)) <= ALIKE_DB


def _ending(levels: Sequence[float]) -> Sequence[float]:
    """The last of an announcement with silence around; empty where nothing was said that could be told from others."""
    loud = [index for index, level in enumerate(levels) if level > SOUND_DB]
    loud = [index for index in loud if index > loud[-1] - TAIL]
    if len(loud) < LEAST:
        return ()
    first, last = loud[0], loud[-1] + 1
    lead, rest = levels[max(0, first - LEAD) : first], levels[last : last + REST]
    return [*[FLOOR_DB] * (LEAD - len(lead)), *lead, *levels[first:last], *rest, *[FLOOR_DB] * (REST - len(rest))]


def _distance(wanted: Sequence[float], heard: Sequence[float]) -> float:
    """dB by which the likeliest part of ``heard`` differs, by step of ``wanted`` (subsequence dynamic time warping)."""
    row = [_difference(wanted[0], level) for level in heard]  # the least until this step of each, ending there
    for level in wanted[1:]:
        left, before, above = math.inf, math.inf, row
        row = []
        for up, other in zip(above, heard, strict=True):
            difference = _difference(level, other)
            left = min(before + difference, up + difference + WARP_DB, left + WARP_DB)
            before = up
            row.append(left)
    return min(row, default=math.inf) / len(wanted)


def _difference(one: float, other: float) -> float:
    difference = abs(one - other)
    return UNKNOWN_DB if math.isnan(difference) else difference
