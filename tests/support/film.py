"""Films of one grey, for cameras and telephones that play a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import av
from av.bitstream import BitStreamFilterContext

from appliance.media.h264 import sprop_of

__all__ = ["FPS", "SIZE", "grey_film", "sprop_of_film"]

SIZE: Final = (640, 360)
FPS: Final = 10


def grey_film(
    path: Path, width: int = SIZE[0], height: int = SIZE[1], *, luma: int = 90, seconds: int = 1,
) -> Path:
    """H.264 in which no test pattern is read; ``luma``: 16 to 235."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", FPS, options={"profile": "baseline"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(FPS * seconds):
            picture = av.VideoFrame(width, height, "yuv420p")
            for plane, value in zip(picture.planes, (luma, 128, 128), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def sprop_of_film(path: Path) -> str:
    """Its parameter sets, as descriptions have them."""
    with av.open(path) as film:
        annexb = BitStreamFilterContext("h264_mp4toannexb", film.streams.video[0])
        first = next(packet for read in film.demux(video=0) for packet in annexb.filter(read))
        return sprop_of(bytes(first))
