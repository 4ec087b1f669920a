"""The software H.264 encoder of the camera process: constrained baseline, low latency, steered while it runs."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Final

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from hw.api import EncodedFrame, VideoMode

__all__ = ["MAX_BITRATE", "MIN_BITRATE", "H264Encoder", "jpeg", "least_level", "level"]

MIN_BITRATE: Final = 50_000
MAX_BITRATE: Final = 14_000_000
"""Bits per second that x264 survives at level 3.1 (table A-1 of H.264: 14 Mbit/s)."""

KEYFRAME_S: Final = 100
"""Seconds between key frames nobody asked for. Who begins to watch or has lost something asks; a key frame is worth
ten pictures, on a path of 700 kbit/s a third of a second (one every 3 s made 5 % of the pictures 100 ms later)."""

HEADROOM: Final = 2.0
"""The rate control's ceiling over the target it was opened for. x264 follows a new target while it runs only at a
constant rate (ceiling and rate the same when it is opened; else it stays where it was), and never above the ceiling."""

LOWEST: Final = 0.15
"""Of the ceiling: its buffer would hold more than a second of a lower rate, and key frames fill the buffer."""


_LEVELS: Final = (
    ("1.3", 396, 11_880, 768_000), ("2.0", 396, 11_880, 2_000_000), ("2.1", 792, 19_800, 4_000_000),
    ("2.2", 1620, 20_250, 4_000_000), ("3.0", 1620, 40_500, 10_000_000), ("3.1", 3600, 108_000, 14_000_000),
    ("4.0", 8192, 245_760, 20_000_000), ("4.2", 8704, 522_240, 50_000_000))
"""Macroblocks of a picture and a second, bits per second (table A-1 of H.264)."""


class H264Encoder:
    """One x264 instance for one picture size; ``encode`` takes pictures in capture order."""

    def __init__(self, mode: VideoMode) -> None:
        self._mode = mode
        self._target = self._ceiling = _clamp(mode.bitrate)
        self._context = self._open()
        self._force = False

    def _open(self) -> VideoCodecContext:
        mode = self._mode
        self._ceiling = min(MAX_BITRATE, int(self._target * HEADROOM))
        context = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = mode.width, mode.height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 1_000_000), Fraction(mode.fps, 1)
        context.bit_rate = self._ceiling
        context.gop_size = mode.fps * KEYFRAME_S
        context.max_b_frames = 0
        context.thread_count = 1
        context.options = {
            "preset": "superfast",
            "tune": "zerolatency",
            "profile": "baseline",  # x264's baseline has neither FMO nor ASO: constraint_set1 is set
            "level": least_level(mode, self._ceiling),
            "maxrate": str(self._ceiling),
            "bufsize": str(self._ceiling // 4),  # half a second of the target: a key frame may be a burst, not a wall
            "x264-params": "repeat-headers=1:annexb=1:scenecut=0:intra-refresh=0:threads=1"
                           + (f":slice-max-size={mode.slice_bytes}" if mode.slice_bytes else ""),
        }
        context.open()
        context.bit_rate = self._target
        return context

    @property
    def bitrate(self) -> int:
        return self._target

    def force_keyframe(self) -> None:
        """The next picture is an IDR."""
        self._force = True

    def set_bitrate(self, bits_per_second: int) -> int:
        """Follow a new target from the next picture on; returns the target after clamping."""
        self._target = _clamp(bits_per_second)
        if LOWEST * self._ceiling <= self._target <= self._ceiling:
            self._context.bit_rate = self._target  # libx264 reads it before every picture
        else:
            # Opening costs 3 ms and a key frame; the time line goes on, pts are the caller's.
            self._context = self._open()
        return self._target

    def encode(self, picture: VideoFrame, pts_us: int) -> EncodedFrame | None:
        """One access unit for one picture (no delay, no reordering)."""
        begun_ns = time.monotonic_ns()
        picture.pts = pts_us
        picture.time_base = Fraction(1, 1_000_000)
        picture.pict_type = PictureType.I if self._force else PictureType.NONE
        packets = self._context.encode(picture)
        if not packets:
            return None
        self._force = False
        return EncodedFrame(
            data=b"".join(bytes(packet) for packet in packets),
            pts_us=pts_us,
            keyframe=any(packet.is_keyframe for packet in packets),
            dwell_us=(time.monotonic_ns() - begun_ns) // 1000,
        )


def _clamp(bits_per_second: int) -> int:
    return max(MIN_BITRATE, min(MAX_BITRATE, int(bits_per_second)))


def level(mode: VideoMode) -> str:
    """3.1 carries 720p30 (108 000 macroblocks a second); larger modes say what they need."""
    return max("3.1", least_level(mode, 0))


def least_level(mode: VideoMode, ceiling: int) -> str:
    """That which carries pictures of this mode, of ``ceiling`` bits per second: decoders of old telephones refuse what
    says that it is more than they take."""
    blocks = -(-mode.width // 16) * -(-mode.height // 16)
    enough = (name for name, most, per_s, bits in _LEVELS
              if blocks <= most and blocks * mode.fps <= per_s and ceiling <= bits)
    return next(enough, _LEVELS[-1][0])


def jpeg(picture: VideoFrame) -> bytes:
    """``picture`` as a JPEG of good quality (quantiser 4)."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuvj420p"
    context.time_base = Fraction(1, 25)
    context.options = {"flags": "+qscale", "global_quality": str(4 * 118)}  # FF_QP2LAMBDA is 118
    still = picture.reformat(format="yuvj420p", src_color_range="MPEG", dst_color_range="JPEG")
    still.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(still), *context.encode(None)])
