"""Sound and picture of one peer in step, by the sender reports of both (RFC 3550 6.4.1). Pure.

What was captured at the same moment is to be heard and seen at the same moment. Whichever is early waits: the picture
before it is decoded, the sound in its play-out buffer.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

__all__ = ["LipSync", "Pace", "SenderClock"]

VIDEO_CLOCK: Final = 90_000  # Hz, of RTP timestamps (RFC 6184 8.2.1)
NTP_UNIT: Final = 1 << 32  # of a second, in NTP timestamps

IN_STEP_S: Final = 0.035  # less is not seen (ITU-R BT.1359: sound early from 45 ms on, late from 125): left as it is
AIM_S: Final = 0.025  # that who waits is left to be early: each millisecond of waiting is delay of the call
SAMPLES: Final = 5  # measurements whose median is acted on: a picture that was repaired is late by itself
PATIENCE: Final = 12  # measurements before sound is told to wait: that hurts a conversation, a busy moment is no reason
PUNCTUAL: Final = 3  # of them, the pictures that came soonest, tell how long: loss and load delay the others
SETTLE: Final = 6  # measurements that are left out after the sound was told to wait: it stretches slowly
VIDEO_MOST_S: Final = 0.4  # that the picture waits for the sound: 12 frames of memory at 30 fps
AUDIO_MOST_S: Final = 0.4  # that the sound waits for the picture: more is no conversation any more (ITU-T G.114)
UNRELATED_S: Final = 5.0  # of streams further apart the clocks are not the same, whatever the reports say

WINDOW_S: Final = 5.0  # the fastest way is the fastest of the last one or two windows


class SenderClock:
    """When the peer captured what carries an RTP timestamp, in seconds of the peer's own clock."""

    def __init__(self, clock_rate: int) -> None:
        self._clock_rate = clock_rate
        self._report: tuple[float, int] | None = None

    def report(self, ntp: int, timestamp: int) -> None:
        """A sender report: 64-bit NTP time and the RTP timestamp of the same moment."""
        self._report = (ntp / NTP_UNIT, timestamp)

    def captured_at(self, timestamp: int) -> float | None:
        """None before the first report."""
        if self._report is None:
            return None
        seconds, reported = self._report
        distance = (timestamp - reported + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        return seconds + distance / self._clock_rate


class LipSync:
    """Decides who waits and for how long.

    ``video_delay_s``: that pictures wait, beyond the fastest of them. ``audio_delay_s``: that sound waits at least in
    its play-out buffer. ``offset_s``: by how much the sound is behind the picture, None until measured.
    """

    def __init__(self) -> None:
        self.video_delay_s = 0.0
        self.audio_delay_s = 0.0
        self.offset_s: float | None = None
        self._samples: deque[float] = deque(maxlen=PATIENCE)
        self._settling = 0

    def update(self, audio: float, video: float, audio_waits_s: float) -> None:
        """A new measurement. ``audio`` and ``video``: from capture by the peer's clock to being heard and seen by
        ours, in seconds, with any constant in both. ``audio_waits_s``: that sound waits in its buffer now."""
        offset = audio - video
        if abs(offset) > UNRELATED_S:
            self.rest()
            return
        if self._settling:
            self._settling -= 1
            return
        self._samples.append(offset)
        if len(self._samples) < SAMPLES:
            return
        offset = self.offset_s = median(list(self._samples)[-SAMPLES:])
        if self.audio_delay_s and offset > 0:
            self._delay_audio(min(self.audio_delay_s, audio_waits_s) - offset - AIM_S)
        elif abs(offset) > IN_STEP_S:
            self._correct(offset, audio_waits_s)

    def rest(self) -> None:
        """There is nothing to bring into step: nobody waits."""
        self.video_delay_s = self.audio_delay_s = 0.0
        self.offset_s = None
        self._samples.clear()
        self._settling = 0

    def _correct(self, offset: float, audio_waits_s: float) -> None:
        if offset > 0 or self.video_delay_s:
            self._delay_video(self.video_delay_s + offset - AIM_S)
        elif len(self._samples) == PATIENCE and (early := sorted(self._samples)[-PUNCTUAL]) < -IN_STEP_S:
            self._delay_audio(audio_waits_s - early - AIM_S)

    def _delay_video(self, seconds: float) -> None:
        self.video_delay_s = min(VIDEO_MOST_S, max(0.0, seconds))
        self._samples.clear()

    def _delay_audio(self, seconds: float) -> None:
        self.audio_delay_s = min(AUDIO_MOST_S, max(0.0, seconds))
        self._samples.clear()
        self._settling = SETTLE


class Pace:
    """When a picture that waits is due: all of them equally long after the fastest could have come, so that the wait
    also takes away the jitter."""

    def __init__(self) -> None:
        self._reference: int | None = None
        self._fastest = 0.0  # arrival minus capture time, of this window and of the one before
        self._before = 0.0
        self._since = 0.0

    def due(self, timestamp: int, arrived: float, delay_s: float) -> float:
        """For an RTP timestamp (90 kHz) that was complete at monotonic ``arrived``; never before that."""
        if self._reference is None:
            self._reference = timestamp
        media = ((timestamp - self._reference + 0x80000000 & 0xFFFFFFFF) - 0x80000000) / VIDEO_CLOCK
        transit = arrived - media
        if self._since == 0.0 or abs(transit - self._fastest) > UNRELATED_S:  # the first, or the timestamps jumped
            self._reference, media, transit = timestamp, 0.0, arrived
            self._fastest = self._before = transit
            self._since = arrived
        elif arrived - self._since > WINDOW_S:
            self._before, self._fastest, self._since = self._fastest, transit, arrived
        self._fastest = min(self._fastest, transit)
        return max(arrived, min(self._fastest, self._before) + media + delay_s)
