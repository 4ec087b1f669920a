"""Which size and frame rate a bit rate is worth: the steps down to 180 lines, and when to take one. Pure.

A picture that is too large for its rate is coarse and late, and below a floor that grows with the size hardware
encoders stall (picamera2 #1228): each step has the rate it is worth from, which is never below that floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from appliance.media.h264 import PictureLimit
from appliance.vocabulary import Json
from hw.api import VideoMode

__all__ = ["Constraints", "Ladder", "Preference", "Rung", "within"]

HEIGHTS: Final = (1080, 720, 540, 480, 360, 240, 180)
LEAST_30: Final = {1080: 1_200_000, 720: 500_000, 540: 320_000, 480: 270_000, 360: 180_000, 240: 110_000, 180: 80_000}
"""Bits per second from which a size is worth its while at 30 frames per second."""
ENCODER_FLOOR: Final = {1080: 300_000, 720: 150_000, 540: 110_000, 480: 100_000, 360: 80_000, 240: 60_000, 180: 50_000}
"""Bits per second that an encoder is never set below at that size; it is made smaller instead."""
LEAST_BPS: Final = 55_000
DOWN_AFTER_S: Final = 0.6  # below the step's rate: longer than a probe or a key frame disturbs the estimate
DOWN_NOW: Final = 0.6  # of the step's rate: not a moment longer
UP_FACTOR: Final = 1.25  # times the higher step's rate must be there
UP_AFTER_S: Final = 4.0  # as long: each change costs a key frame
UP_SURE: Final = 3.0  # times the higher step's rate: a probe has shown it, there is nothing to wait for
UP_SURE_AFTER_S: Final = 1.0
LEAST_FPS: Final = 15  # of a picture that a peer takes no more often: below, a smaller one is better
RATE_POWER: Final = 0.6  # bits grow slower than the frame rate: closer frames differ less


class Preference(StrEnum):
    """What is given up first (W3C mst-content-hint, RTCDegradationPreference)."""

    BALANCED = "balanced"
    FRAME_RATE = "maintain-framerate"
    RESOLUTION = "maintain-resolution"


@dataclass(frozen=True, slots=True)
class Constraints:
    """Limits on video that somebody asked for; 0: none. Heights in pixels, rates in frames and bits per second."""

    send_height: int = 0
    send_fps: int = 0
    send_bitrate: int = 0
    receive_height: int = 0
    receive_bitrate: int = 0
    preference: Preference = Preference.BALANCED
    receive_videos: int = 0
    """Pictures of others at the same time."""

    @property
    def receive_limit(self) -> int:
        """Bits per second a peer may send us at most, 0: as it likes. A height counts as what the ladder would give
        it: a peer cannot be told a size, but it can be told a rate."""
        limits = [self.receive_bitrate] if self.receive_bitrate else []
        least = max(HEIGHTS[-1], self.receive_height)  # smaller pictures than those of the last step nobody sends
        higher = [height for height in HEIGHTS if height > least]
        if self.receive_height and higher:
            limits.append(round(LEAST_30[higher[-1]] * UP_FACTOR) - 1)
        return min(limits, default=0)

    def document(self) -> Json:
        """As ``video.constraints`` takes it."""
        return {
            "send": {"frameHeight": self.send_height, "frameRate": self.send_fps, "bitrate": self.send_bitrate},
            "recv": {"frameHeight": self.receive_height, "maxBitrate": self.receive_bitrate,
                     "maxVideos": self.receive_videos},
            "degradationPreference": self.preference.value,
        }

    def in_force(self, mode: VideoMode | None) -> Json:
        """What they come to: the most that a camera in ``mode`` sends, which is a step of the ladder and never below
        the last one, and the most that each peer is asked for, 0: as it likes. None: there is no camera."""
        received: Json = {"recv": {"maxBitrate": self.receive_limit}}
        if mode is None:
            return received
        ladder = Ladder(mode, self)
        best = ladder.best.mode(ladder.demand)
        return received | {"send": {
            "frameWidth": best.width, "frameHeight": best.height, "frameRate": best.fps, "bitrate": best.bitrate,
        }}

    def changed(self, wish: Mapping[str, Any]) -> Constraints:
        """With what ``wish`` (in that form) names; what it leaves out stays."""
        send, receive = wish.get("send", {}), wish.get("recv", {})
        return Constraints(
            send.get("frameHeight", self.send_height), send.get("frameRate", self.send_fps),
            send.get("bitrate", self.send_bitrate), receive.get("frameHeight", self.receive_height),
            receive.get("maxBitrate", self.receive_bitrate),
            Preference(wish.get("degradationPreference", self.preference)),
            receive.get("maxVideos", self.receive_videos),
        )


@dataclass(frozen=True, slots=True)
class Rung:
    """One step: size, frames per second, the rate it is worth from, the rate no encoder is set below."""

    width: int
    height: int
    fps: int
    least: int
    floor: int

    def mode(self, bitrate: int) -> VideoMode:
        return VideoMode(self.width, self.height, self.fps, max(self.floor, bitrate))


class Ladder:
    """The steps below one mode, and the one to stand on."""

    def __init__(self, mode: VideoMode, constraints: Constraints | None = None) -> None:
        self._mode = mode
        self._since: float | None = None
        self._candidate: Rung | None = None
        self._anew = False  # limits have changed: no step is waited for
        self.constrain(constraints or Constraints())
        self.rung = self.rungs[0]

    def constrain(self, constraints: Constraints) -> None:
        """Take other limits; the next ``choose`` obeys them at once."""
        self.constraints = constraints
        self.top = _limited(self._mode, constraints)
        self.rungs = _rungs(self.top, constraints.preference)
        self._anew = True

    @property
    def demand(self) -> int:
        """Bits per second that could be used at most."""
        return self.top.bitrate

    @property
    def best(self) -> Rung:
        """The step for all that could be used."""
        return self._fitting(self.demand)

    def _fitting(self, bits_per_second: float) -> Rung:
        return next((rung for rung in self.rungs if rung.least <= bits_per_second), self.rungs[-1])

    def choose(self, bits_per_second: float, now: float) -> Rung:
        """The step for this rate: down soon, up when it has been enough for a while."""
        fitting = self._fitting(bits_per_second)
        if self._anew:
            self._anew = False
            self.rung, self._candidate = fitting, None
            return self.rung
        here = self.rungs.index(self.rung)
        if self.rungs.index(fitting) > here:
            self._wait(fitting, now, lower=True)
            if bits_per_second < DOWN_NOW * self.rung.least or self._waited(now) >= DOWN_AFTER_S:
                self._step_to(fitting)
            return self.rung
        higher = [rung for rung in self.rungs[:here] if rung.least * UP_FACTOR <= bits_per_second]
        if not higher:
            self._candidate = None
            return self.rung
        self._wait(higher[0], now, lower=False)
        sure = bits_per_second >= UP_SURE * higher[0].least
        if self._waited(now) >= (UP_SURE_AFTER_S if sure else UP_AFTER_S):
            self._step_to(higher[0])
        return self.rung

    def _wait(self, rung: Rung, now: float, *, lower: bool) -> None:
        """A further candidate in the same direction does not begin the wait anew; a lesser one does when going up."""
        before = self._candidate
        here = self.rungs.index(self.rung)
        same_way = before is not None and (self.rungs.index(before) > here) == lower
        if not same_way:
            self._since = now
        if before is None or not same_way or self.rungs.index(rung) > self.rungs.index(before) or lower:
            self._candidate = rung

    def _waited(self, now: float) -> float:
        return 0.0 if self._since is None else now - self._since

    def _step_to(self, rung: Rung) -> None:
        if self._candidate is not None and self.rungs.index(self._candidate) > self.rungs.index(rung):
            rung = self._candidate  # going up: only as far as it has been enough for all the while
        self.rung, self._candidate, self._since = rung, None, None


def _limited(mode: VideoMode, constraints: Constraints) -> VideoMode:
    """The mode within the limits; a height that is not a step becomes the next lower one, or the least."""
    limited = mode
    if constraints.send_height and constraints.send_height < mode.height:
        height = next((each for each in HEIGHTS if each <= constraints.send_height), HEIGHTS[-1])
        limited = replace(limited, width=_width(mode, height), height=height)
    if constraints.send_fps:
        limited = replace(limited, fps=max(1, min(mode.fps, constraints.send_fps)))
    if constraints.send_bitrate:
        limited = replace(limited, bitrate=max(LEAST_BPS, min(mode.bitrate, constraints.send_bitrate)))
    return limited


def within(mode: VideoMode, constraints: Constraints, limit: PictureLimit) -> Constraints:
    """``constraints`` narrowed to what a peer takes of a camera in ``mode``."""
    heights = [mode.height, *(height for height in HEIGHTS if height < mode.height)]
    height, fps = heights[-1], mode.fps
    for height in heights:  # the least one where none fits
        blocks = -(-_width(mode, height) // 16) * -(-height // 16)
        fps = min(mode.fps, limit.blocks_per_s // blocks) if limit.blocks_per_s else mode.fps
        if (not limit.blocks or blocks <= limit.blocks) and fps >= min(mode.fps, LEAST_FPS):
            break
    return replace(
        constraints, send_height=_narrower(constraints.send_height, height, mode.height),
        send_fps=_narrower(constraints.send_fps, max(1, fps), mode.fps),
        send_bitrate=_narrower(constraints.send_bitrate, limit.bits_per_second, mode.bitrate))


def _narrower(before: int, most: int, whole: int) -> int:
    """The lesser limit of two, 0: none; ``most`` is one below ``whole`` alone."""
    if not 0 < most < whole:
        return before
    return min(before, most) if before else most


def _rungs(top: VideoMode, preference: Preference) -> tuple[Rung, ...]:
    heights = [top.height, *(height for height in HEIGHTS if height < top.height)]
    half = min(15, top.fps)
    steps: list[tuple[int, int]] = []
    for height in heights:
        last = height == heights[-1]
        if preference is Preference.FRAME_RATE:
            steps.append((height, top.fps))
            steps += [(height, half)] * last
        elif preference is Preference.RESOLUTION:
            steps += [(height, top.fps)] * (height == heights[0]) + [(height, half)]
        else:
            steps += [(height, top.fps)] * (height >= 360 or height == heights[0])
            steps += [(height, half)] * (height <= 360)
    rungs: list[Rung] = []
    for height, fps in steps:
        floor = _of(ENCODER_FLOOR, height)
        least = max(floor, LEAST_BPS, round(_of(LEAST_30, height) * (fps / 30) ** RATE_POWER))
        if not rungs or (least < rungs[-1].least and (height, fps) != (rungs[-1].height, rungs[-1].fps)):
            rungs.append(Rung(_width(top, height), height, fps, least, floor))
    return tuple(rungs)


def _of(table: dict[int, int], height: int) -> int:
    """The entry of the nearest step that is not higher."""
    return table[next((each for each in HEIGHTS if each <= height), HEIGHTS[-1])]


def _width(mode: VideoMode, height: int) -> int:
    """In the mode's shape; encoders want even sizes."""
    return mode.width if height == mode.height else max(2, round(mode.width * height / mode.height / 2) * 2)
