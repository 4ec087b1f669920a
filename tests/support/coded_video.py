"""H.264 access units made by libx264, for what takes them without a network."""

from __future__ import annotations

from fractions import Fraction

import av
from av.video.frame import PictureType

from appliance.media.api import AccessUnit

__all__ = ["units"]

CLOCK = 90_000


def units(count: int, *, size: tuple[int, int] = (160, 96), fps: int = 30, key_every: int = 1000,
          begin: int = 0) -> list[AccessUnit]:
    """A moving grey picture: ``count`` frames, the first a key frame; RTP timestamps from ``begin`` on."""
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
        for plane in frame.planes:
            plane.update(bytes([number * 7 % 256]) * plane.buffer_size)
        frame.pts = number
        if number % key_every == 0:
            frame.pict_type = PictureType.I
        for packet in encoder.encode(frame):
            stamp = (begin + number * CLOCK // fps) & 0xFFFFFFFF
            made.append(AccessUnit(bytes(packet), stamp, packet.is_keyframe, number / fps, number / fps))
    return made
