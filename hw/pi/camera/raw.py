"""Raw pictures in a driver's memory, as pictures of our own: copied once."""

from __future__ import annotations

from typing import Final

from av.video.frame import VideoFrame

from hw.pi.v4l2 import Format

__all__ = ["PIXELS", "picture_of"]

PIXELS: Final = {"YU12": "yuv420p", "NV12": "nv12", "YUYV": "yuyv422", "UYVY": "uyvy422", "RGB3": "rgb24"}
"""Formats of videodev2.h, the least work first, with PyAV's names."""


def picture_of(source: memoryview, layout: Format) -> VideoFrame | None:
    """A copy of what lies as ``layout`` says; None where that is less than a picture."""
    picture = VideoFrame(layout.width, layout.height, PIXELS[layout.pixels])
    at = 0
    for number, plane in enumerate(picture.planes):
        # of planar 4:2:0 the lines of chroma are half as long
        line, rows = layout.line // 2 if layout.pixels == "YU12" and number else layout.line, plane.height
        if at + line * rows > len(source):
            return None
        target, used = memoryview(plane), min(line, plane.line_size)
        if plane.line_size == line:
            target[: line * rows] = source[at : at + line * rows]
        else:
            for row in range(rows):
                begin = row * plane.line_size
                target[begin : begin + used] = source[at + row * line : at + row * line + used]
        at += line * rows
    return picture
