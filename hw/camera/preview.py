"""Small raw pictures of what is encoded, for who looks at the camera itself: the part of the camera's process."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

from hw.api import Picture, VideoMode
from hw.camera.serve import Owner

__all__ = ["RATE", "Preview"]

RATE: Final = 15
"""Pictures a second at most: enough to find one's way before a camera."""

PERIOD_US: Final = 1_000_000 // RATE


class Preview:
    """Which pictures are shown, how small, and on their way. Each is to be shown after it was encoded, so that the one
    that is sent does not wait for it."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._side = 0
        self._due_us = 0
        self._scaler = VideoReformatter()

    def want(self, side: int) -> None:
        """So many pixels at their longer side from now on; 0: nobody looks."""
        self._side, self._due_us = side, 0

    def due(self, pts_us: int) -> bool:
        """Whether the picture that was taken then is to be shown; true once for each that is."""
        if not self._side or pts_us < self._due_us - PERIOD_US // 4:  # sensors are not that regular
            return False
        self._due_us = max(self._due_us + PERIOD_US, pts_us + PERIOD_US // 2)
        return True

    def mode_of(self, mode: VideoMode) -> VideoMode:
        """The size that pictures of ``mode`` are shown in."""
        share = min(1.0, self._side / max(mode.width, mode.height))
        width, height = (max(2, round(side * share / 2) * 2) for side in (mode.width, mode.height))
        return replace(mode, width=width, height=height)

    def show(self, generation: int, picture: VideoFrame, mode: VideoMode) -> None:
        """Scaled to the size for ``mode``, which has the shape of ``picture``. ``generation`` is the number of the
        start that it belongs to."""
        size = self.mode_of(mode)
        small = self._scaler.reformat(picture, size.width, size.height, "yuv420p", interpolation="AREA", threads=1)
        self._owner.preview(generation, Picture(size.width, size.height, _i420(small)))


def _i420(frame: VideoFrame) -> bytes:
    return b"".join(_rows(plane) for plane in frame.planes)


def _rows(plane: VideoPlane) -> bytes:
    data, line, width = memoryview(plane), plane.line_size, plane.width
    if line == width:
        return bytes(data[: width * plane.height])
    return b"".join(data[row * line : row * line + width] for row in range(plane.height))
