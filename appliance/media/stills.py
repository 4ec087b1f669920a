"""JPEG of pictures. Takes milliseconds: to be called off the loop."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from typing import Final

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from appliance.errors import EdgecallError
from hw.api import Picture

__all__ = ["jpeg_of", "scaled"]

QUALITY: Final = 4 * 118  # quantiser 4, in units of FF_QP2LAMBDA: what snapshots of the camera have


def scaled(jpeg: bytes, width: int) -> bytes:
    """The JPEG, made smaller when it is wider than ``width``."""
    with av.open(BytesIO(jpeg), "r", format="mjpeg") as container:
        frame = next(container.decode(video=0))
    if frame.width <= width:
        return jpeg
    height = frame.height * width // frame.width & ~1
    return _coded(frame.reformat(width & ~1, height, format="yuvj420p"))


def jpeg_of(picture: Picture) -> bytes:
    frame, at = VideoFrame(picture.width, picture.height, "yuv420p"), 0
    for plane in frame.planes:
        width, size = plane.width, plane.width * plane.height
        rows, pad = picture.i420[at : at + size], bytes(plane.line_size - width)  # FFmpeg may have padded its lines
        plane.update(b"".join(rows[row : row + width] + pad for row in range(0, size, width)) if pad else rows)
        at += size
    return _coded(frame.reformat(format="yuvj420p", src_color_range="MPEG", dst_color_range="JPEG"),
                  {"flags": "+qscale", "global_quality": str(QUALITY)})


def _coded(frame: VideoFrame, options: dict[str, str] | None = None) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    if not isinstance(encoder, VideoCodecContext):
        raise EdgecallError("FFmpeg has no JPEG encoder")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
    encoder.time_base = frame.time_base or Fraction(1, int(av.time_base))
    encoder.options = options or {}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
