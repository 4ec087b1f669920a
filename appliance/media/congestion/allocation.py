"""Who gets what of the estimate: sound first, then repair, and the picture the rest, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["AUDIO_BPS", "Allocation", "Allocator", "Meter"]

AUDIO_BPS: Final = 65_000  # on the wire until it is measured: 40 kbit/s of Opus, 50 times a second with all headers
AUDIO_LEAST_BPS: Final = 30_000  # kept for it while it is silent: it may speak at any moment
OVERHEAD: Final = (0.05, 0.4)  # of the picture's bits are headers: never less, never believed to be more
VIDEO_LEAST_BPS: Final = 55_000
"""What a picture of 180 lines is worth sending for; with less the sound would pay for it."""
VIDEO_AGAIN_BPS: Final = 85_000
PAUSE_AFTER_S: Final = 1.0  # below the least: a probe or a burst of others is over by then
AGAIN_AFTER_S: Final = (2.0, 30.0)  # above: the shortest, and the longest after pauses in a row
RELAPSE_S: Final = 15.0  # a pause that comes so soon after the last one doubles the wait
REPAIR_SHARE: Final = 0.25  # of the rest at most is kept for retransmissions
METER_S: Final = 1.0


class Meter:
    """Bits per second over the last whole second. Pure."""

    def __init__(self) -> None:
        self._begin: float | None = None
        self._bytes = 0
        self._value: float | None = None

    def add(self, size: int, now: float) -> None:
        self._roll(now)
        self._bytes += size

    def bps(self, now: float) -> float | None:
        """None until a second has passed."""
        self._roll(now)
        return self._value

    def _roll(self, now: float) -> None:
        if self._begin is None:
            self._begin = now
        elapsed = now - self._begin
        if elapsed >= METER_S:
            self._value = self._bytes * 8 / elapsed
            self._begin, self._bytes = now, 0


@dataclass(frozen=True, slots=True)
class Allocation:
    """Bits per second on the wire, and ``video`` as what the encoder may make; None: the picture pauses. ``lasting``
    is what it may make once no queue has to be emptied: size and frame rate go by that."""

    total: float
    audio: float
    video: int | None
    lasting: int = 0


class Allocator:
    """Pure: the caller gives measures and time."""

    def __init__(self) -> None:
        self._paused = False
        self._since: float | None = None  # the border has been crossed
        self._again_after = AGAIN_AFTER_S[0]
        self._resumed_at: float | None = None

    def allocate(
        self, total: float, lasting: float, *, audio: float, repair: float, overhead: float, now: float
    ) -> Allocation:
        """``total`` may be sent now, ``lasting`` as soon as no queue stands; ``audio`` and ``repair`` as measured on
        the wire, ``overhead`` the share of headers in the picture's bits."""
        audio = max(AUDIO_LEAST_BPS, audio)
        payload = 1 - max(OVERHEAD[0], min(OVERHEAD[1], overhead))
        repair = min(repair, REPAIR_SHARE * max(0.0, lasting - audio))
        later = max(0, round((lasting - audio - repair) * payload))
        self._judge(later, now)
        if self._paused:
            return Allocation(total, audio, None)
        now_possible = max(VIDEO_LEAST_BPS, round((total - audio - repair) * payload))
        return Allocation(total, audio, now_possible, max(later, now_possible))

    def _judge(self, video: int, now: float) -> None:
        crossed = video >= VIDEO_AGAIN_BPS if self._paused else video < VIDEO_LEAST_BPS
        if not crossed:
            self._since = None
            return
        if self._since is None:
            self._since = now
        if now - self._since < (self._again_after if self._paused else PAUSE_AFTER_S):
            return
        self._paused, self._since = not self._paused, None
        if not self._paused:
            self._resumed_at = now
        elif self._resumed_at is not None and now - self._resumed_at < RELAPSE_S:
            self._again_after = min(AGAIN_AFTER_S[1], self._again_after * 2)
        else:
            self._again_after = AGAIN_AFTER_S[0]
