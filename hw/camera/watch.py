"""Judges a camera by what arrives: late start, standstill, low rate. Pure: time is handed in."""

from __future__ import annotations

from collections import deque
from typing import Final

from hw.api import FaultKind

__all__ = ["STALL_S", "START_TIMEOUT_S", "FrameWatch"]

START_TIMEOUT_S: Final = 5.0
"""From opening the sensor to its first picture."""

STALL_S: Final = 1.5
"""Without a picture this long the camera has stopped; leaves half a second to tell within 2 s."""

RATE_WINDOW_S: Final = 2.0
"""Seconds over which the rate is judged."""

SLOW_BEGINS: Final = 0.5
SLOW_ENDS: Final = 0.7
"""Shares of the configured rate; apart, so that a camera at the border does not flutter."""

SLOW_AFTER_S: Final = 1.5
FAST_AFTER_S: Final = 1.0
"""How long the share must be so, so that a breath of the scheduler or of the light is not told; with the window, an end
is told within 3 s."""


class FrameWatch:
    """One start of a camera. Seconds are CLOCK_MONOTONIC."""

    def __init__(self, fps: int, now: float) -> None:
        self._fps = fps
        self._opened = now
        self._first: float | None = None
        self._last = now
        self._recent: deque[float] = deque(maxlen=int(fps * RATE_WINDOW_S) + 1)
        self._slow = False
        self._turning: float | None = None  # since when the share speaks against ``_slow``

    def reopened(self, now: float) -> None:
        """The sensor was opened anew: its start time-out runs again. One that stood still is not cured by that."""
        if self._first is not None and now - self._last < STALL_S:
            self._first, self._opened, self._last = None, now, now
            self._judge_anew(slow=False)

    def retimed(self, fps: int) -> None:
        """Another rate is wanted from now on; what was seen before says nothing about it, nor that it is better."""
        self._fps = fps
        self._recent = deque(maxlen=int(fps * RATE_WINDOW_S) + 1)
        if self._first is not None:
            self._first = self._last
        self._judge_anew(slow=self._slow)

    def frame(self, now: float) -> None:
        if self._first is None or now - self._last >= STALL_S:
            self._first = now  # after a standstill the rate is judged from the beginning
            self._judge_anew(slow=False)
        self._last = now
        self._recent.append(now)

    def faults(self, now: float) -> frozenset[FaultKind]:
        """What is wrong at this moment."""
        if self._first is None:
            late = now - self._opened >= START_TIMEOUT_S
            return frozenset({FaultKind.START_TIMED_OUT}) if late else frozenset()
        if now - self._last >= STALL_S:
            return frozenset({FaultKind.STALLED})
        while self._recent and self._recent[0] < now - RATE_WINDOW_S:
            self._recent.popleft()
        # A gap that may become a standstill says nothing about the rate.
        if now - self._first >= RATE_WINDOW_S and now - self._last < max(0.5, 3 / self._fps):
            self._weigh(self.rate / self._fps, now)
        return frozenset({FaultKind.SLOW}) if self._slow else frozenset()

    @property
    def rate(self) -> float:
        """Pictures per second, over the window before the last look for faults."""
        return len(self._recent) / RATE_WINDOW_S

    def _judge_anew(self, *, slow: bool) -> None:
        self._recent.clear()
        self._slow, self._turning = slow, None

    def _weigh(self, share: float, now: float) -> None:
        if not (share >= SLOW_ENDS if self._slow else share < SLOW_BEGINS):
            self._turning = None
            return
        self._turning = now if self._turning is None else self._turning
        if now - self._turning >= (FAST_AFTER_S if self._slow else SLOW_AFTER_S):
            self._slow, self._turning = not self._slow, None
