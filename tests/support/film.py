"""Short films for cameras that play a file."""

from __future__ import annotations

from pathlib import Path

import av

__all__ = ["grey_film"]


def grey_film(path: Path, width: int = 640, height: int = 360) -> Path:
    """A second of grey: a picture in which no test pattern is read."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", 10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(10):
            picture = av.VideoFrame(width, height, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([90]) * plane.buffer_size)
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path
