"""How smoothly one peer's pictures come: freezes as W3C counts them, and what to do when none come at all. Pure."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Final

__all__ = ["Remedy", "Smoothness", "StallWatch"]

WINDOW: Final = 30  # rendered frames over which the average is taken (W3C webrtc-stats, freezeCount)
LEAST: Final = 5  # intervals that must be known before one can be a freeze (libwebrtc)
FREEZE_S: Final = 0.150  # over the average
FREEZE_TIMES: Final = 3  # the average
PAUSE_S: Final = 5.0  # W3C pauseCount: nobody waits for the next frame so long without calling it a pause

ASK_S: Final = 1.0  # without a picture that is due: ask for a key frame, whatever the repair of packets believes
SLOW_TIMES: Final = 3  # of a peer with few frames a second, so many intervals
RESTART_S: Final = 2.5  # frames come, and the decoder gives no picture: a new decoder
STALLED_S: Final = 5.0  # people are told
AGAIN_S: Final = 5.0  # between two restarts


class Smoothness:
    """Counters of webrtc-stats over the intervals between rendered frames, in seconds."""

    def __init__(self) -> None:
        self.frames_rendered = 0
        self.freeze_count = 0
        self.total_freezes_s = 0.0
        self.pause_count = 0
        self.total_pauses_s = 0.0
        self.total_inter_frame_delay_s = 0.0
        self.total_squared_inter_frame_delay_s2 = 0.0
        self._intervals: deque[float] = deque(maxlen=WINDOW)
        self._last: float | None = None

    def rendered(self, now: float) -> None:
        """A frame was decoded for the screen, at monotonic ``now``; the screen may leave some of many out."""
        self.frames_rendered += 1
        last, self._last = self._last, now
        if last is None:
            return
        interval = now - last
        self.total_inter_frame_delay_s += interval
        self.total_squared_inter_frame_delay_s2 += interval * interval
        if interval > PAUSE_S:
            self.pause_count += 1
            self.total_pauses_s += interval
            self._intervals.clear()
            return
        if len(self._intervals) >= LEAST:
            average = self.average_s
            if interval >= max(FREEZE_TIMES * average, average + FREEZE_S):
                self.freeze_count += 1
                self.total_freezes_s += interval
        self._intervals.append(interval)

    def interrupted(self) -> None:
        """No frame is due from now on (hidden, or the peer stopped its video): the gap is no freeze."""
        self._last = None
        self._intervals.clear()

    @property
    def average_s(self) -> float:
        """Mean interval of the last frames, 0 while none is known."""
        intervals = tuple(self._intervals)  # the loop may clear them while the decoder's thread asks, and vice versa
        return sum(intervals) / len(intervals) if intervals else 0.0


class Remedy(Enum):
    """What a stalled picture needs now."""

    NONE = auto()
    KEY_FRAME = auto()
    NEW_DECODER = auto()


class StallWatch:
    """Looks at the counters of one peer's video again and again, and climbs: key frame, new decoder, diagnostic."""

    def __init__(self) -> None:
        self.stalled = False  # people should know
        self._since: float | None = None  # no picture although one is due; None: none is due
        self._decoded = 0
        self._units = 0
        self._asked_at = float("-inf")
        self._restarted_at = float("-inf")

    def look(self, now: float, *, due: bool, units: int, decoded: int, interval_s: float = 0.0) -> Remedy:
        """``units`` handed to the decoder and pictures ``decoded``, both since ever; ``interval_s`` is the usual time
        between two pictures."""
        if not due or self._since is None or decoded != self._decoded:
            self._since = now if due else None
            self._decoded, self._units = decoded, units
            self.stalled = False
            return Remedy.NONE
        lasting = now - self._since
        self.stalled = lasting >= max(STALLED_S, SLOW_TIMES * interval_s)
        if units != self._units and lasting >= RESTART_S and now - self._restarted_at >= AGAIN_S:
            self._restarted_at = self._asked_at = now
            return Remedy.NEW_DECODER
        if lasting >= max(ASK_S, SLOW_TIMES * interval_s) and now - self._asked_at >= ASK_S:
            self._asked_at = now
            return Remedy.KEY_FRAME
        return Remedy.NONE
