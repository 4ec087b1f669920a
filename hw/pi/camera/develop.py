"""From what a sensor gives to what an encoder takes: masked, zoomed, turned, scaled, in YUV 4:2:0."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Final, cast

import av
import av.filter
from av.video.frame import VideoFrame

from hw.api import VideoMode
from hw.pi.camera.config import WHOLE, CameraConfig

__all__ = ["Developer"]

TURN: Final = {
    0: (), 90: (("transpose", "clock"),), 180: (("hflip", ""), ("vflip", "")), 270: (("transpose", "cclock"),),
}  # fmt: skip
"""Filters for a rotation, clockwise in degrees."""


class Developer:
    """One mode and one configuration; builds itself anew when the sensor's pictures change."""

    def __init__(self, config: CameraConfig, mode: VideoMode, *, zoomed: bool = False) -> None:
        """``zoomed``: the sensor has done that already."""
        self._config, self._mode, self._zoomed = config, mode, zoomed
        self._shape: tuple[int, int, str] | None = None
        self._graph = av.filter.Graph()

    def develop(self, picture: VideoFrame) -> VideoFrame:
        """Planar 4:2:0 in limited range, of the mode's size, with bars where the shapes differ."""
        shape = (picture.width, picture.height, picture.format.name)
        if shape != self._shape:
            self._graph, self._shape = self._build(picture), shape
        picture.pts = None
        self._graph.push(picture)
        return cast("VideoFrame", self._graph.pull())

    def _build(self, picture: VideoFrame) -> av.filter.Graph:
        config, mode, graph = self._config, self._mode, av.filter.Graph()
        turn = config.rotation
        width, height = (mode.height, mode.width) if turn in (90, 270) else (mode.width, mode.height)
        steps: list[tuple[str, str]] = []
        part = config.part
        if part != WHOLE and not self._zoomed:
            steps.append(("crop", f"iw*{part.width}:ih*{part.height}:iw*{part.left}:ih*{part.top}"))
        fit = "force_original_aspect_ratio=decrease:force_divisible_by=2:out_range=tv"
        steps += [("scale", f"{width}:{height}:{fit}"), ("format", "yuv420p")]
        # Two pixels more than asked at each side: neither rounding nor shared chroma shows anything.
        steps += [("drawbox", f"x=iw*{area.left}-2:y=ih*{area.top}-2:w=iw*{area.width}+4:h=ih*{area.height}+4:"
                              "color=black:t=fill") for area in config.hidden]
        steps += TURN[turn]
        steps.append(("pad", f"{mode.width}:{mode.height}:(ow-iw)/2:(oh-ih)/2"))
        steps.append(("buffersink", ""))
        chain = [graph.add_buffer(width=picture.width, height=picture.height, format=picture.format,
                                  time_base=Fraction(1, 1_000_000))]
        chain += [graph.add(name, words) if words else graph.add(name) for name, words in steps]
        for left, right in itertools.pairwise(chain):
            left.link_to(right)
        graph.configure()
        return graph
