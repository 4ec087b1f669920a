"""H.264 access units made by libx264, for what takes them without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
from av.video.frame import PictureType

from appliance.media.api import AccessUnit
from appliance.media.rtp_send import EncodedTrack

__all__ = ["Film", "units"]

CLOCK = 90_000
KEY_INTERVAL_S = 0.5


class Film(EncodedTrack):
    """A track that plays access units at their pace, over and over; it begins again with a key frame when asked, at
    most twice a second. ``captured``: loop time by pts."""

    kind = "video"

    def __init__(self, coded: list[AccessUnit], *, fps: int = 30) -> None:
        super().__init__()
        self._coded = coded
        self._interval = 1 / fps
        self._at = 0
        self._number = 0
        self._due = 0.0
        self._key_at = 0.0
        self.captured: dict[int, float] = {}

    def keyframe_wanted(self) -> None:
        if self._due >= self._key_at + KEY_INTERVAL_S:
            self._at = 0

    def lost(self) -> None: ...

    async def recv(self) -> av.Packet[Any]:
        loop = asyncio.get_running_loop()
        self._due = max(self._due + self._interval, loop.time() - self._interval)
        await asyncio.sleep(self._due - loop.time())
        unit = self._coded[self._at]
        self._at = (self._at + 1) % len(self._coded)
        if unit.key:
            self._key_at = self._due
        packet: av.Packet[Any] = av.Packet(unit.data)
        packet.pts = round(self._number * self._interval * CLOCK)
        packet.is_keyframe = unit.key
        self._number += 1
        self.captured[packet.pts] = self._due
        return packet

    def captured_at(self, packet: av.Packet[Any]) -> float:
        return self._due


def units(count: int, *, size: tuple[int, int] = (160, 96), fps: int = 30, key_every: int = 1000,
          begin: int = 0, slope: int = 0, paint: Callable[[int], Sequence[bytes]] | None = None) -> list[AccessUnit]:
    """A grey ramp that moves, or what ``paint`` gives (Y, U and V of each number): ``count`` frames, the first a key
    frame; RTP timestamps from ``begin`` on. Films of different ``slope`` have no frame in common."""
    width, height = size
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, fps), Fraction(fps, 1)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "100000", "forced-idr": "1"}
    encoder.profile = "Baseline"
    encoder.thread_count = 1
    made = []
    for number in range(count):
        frame = av.VideoFrame(width, height, "yuv420p")
        if paint is None:
            for plane in frame.planes:
                line = bytes((column * slope + number * 7) % 256 for column in range(plane.line_size))
                plane.update(line * plane.height)
        else:
            for plane, rows in zip(frame.planes, paint(number), strict=True):
                padding = bytes(plane.line_size - plane.width)
                plane.update(b"".join(rows[at : at + plane.width] + padding for at in range(0, len(rows), plane.width)))
        frame.pts = number
        if number % key_every == 0:
            frame.pict_type = PictureType.I
        for packet in encoder.encode(frame):
            stamp = (begin + number * CLOCK // fps) & 0xFFFFFFFF
            made.append(AccessUnit(bytes(packet), stamp, packet.is_keyframe, number / fps, number / fps))
    return made
