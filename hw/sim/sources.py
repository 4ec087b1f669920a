"""What the simulated sensor sees: test picture, video file, recorded clip. Runs in the camera process only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Protocol, cast

import av
import av.filter
from av.bitstream import BitStreamFilterContext
from av.video.frame import VideoFrame

from hw.api import EncodedFrame, VideoMode
from hw.sim.pattern import PatternPainter

__all__ = ["Clip", "Lent", "PictureSource", "SourceError", "open_source"]

_MICROSECOND: Final = Fraction(1, 1_000_000)

MAX_CLIP: Final = 64 * 1024 * 1024
"""Bytes of a recorded clip: it is held in memory so that a disk never delays a frame."""


MOST_PIXELS: Final = 40_000_000
"""Of a picture of a file: 8K with room; more would take memory from everything else."""


class SourceError(Exception):
    """The source cannot be opened or read; ``why`` is a value of FaultKind."""

    def __init__(self, why: str, text: str) -> None:
        super().__init__(text)
        self.why = why


class PictureSource(Protocol):
    """Delivers pictures of the mode's size as yuv420p. ``live``: ``picture`` waits for the sensor, which paces."""

    @property
    def live(self) -> bool: ...

    def picture(self, counter: int, clock_us: int) -> VideoFrame: ...

    def resize(self, mode: VideoMode) -> None:
        """Pictures have that size from now on; nothing is opened anew."""

    def close(self) -> None: ...


class _Pattern:
    live = False

    def __init__(self, mode: VideoMode) -> None:
        self._painter = PatternPainter(mode.width, mode.height)
        self._mode = mode

    def picture(self, counter: int, clock_us: int) -> VideoFrame:
        frame = VideoFrame(self._mode.width, self._mode.height, "yuv420p")
        for plane, data in zip(frame.planes, self._painter.paint(counter, clock_us), strict=True):
            _fill(plane, data)
        return frame

    def resize(self, mode: VideoMode) -> None:
        self._painter = PatternPainter(mode.width, mode.height)
        self._mode = mode

    def close(self) -> None:
        pass


def _fill(plane: av.video.plane.VideoPlane, data: bytes) -> None:
    """Copy rows without padding into a plane whose rows FFmpeg may have padded."""
    if plane.line_size == plane.width:
        plane.update(data)
        return
    pad = bytes(plane.line_size - plane.width)
    rows = (data[y * plane.width : (y + 1) * plane.width] + pad for y in range(plane.height))
    plane.update(b"".join(rows))


class Fitter:
    """Scales any picture into the mode's size, with bars where the shapes differ."""

    def __init__(self, mode: VideoMode) -> None:
        self._mode = mode
        self._shape: tuple[int, int, str] | None = None
        self._graph = av.filter.Graph()

    def fit(self, frame: VideoFrame) -> VideoFrame:
        shape = (frame.width, frame.height, frame.format.name)
        if shape != self._shape:
            self._build(frame)
            self._shape = shape
        frame.pts = None
        self._graph.push(frame)
        return cast("VideoFrame", self._graph.pull())

    def _build(self, frame: VideoFrame) -> None:
        size = f"{self._mode.width}:{self._mode.height}"
        graph = av.filter.Graph()
        steps = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_MICROSECOND),
            graph.add("scale", f"{size}:force_original_aspect_ratio=decrease:force_divisible_by=2:out_range=tv"),
            graph.add("pad", f"{size}:(ow-iw)/2:(oh-ih)/2"),
            graph.add("format", "yuv420p"),
            graph.add("buffersink"),
        ]
        for left, right in itertools.pairwise(steps):
            left.link_to(right)
        graph.configure()
        self._graph = graph


class _VideoFile:
    """Any file PyAV decodes, at its own speed, looped."""

    live = False

    def __init__(self, path: str, mode: VideoMode) -> None:
        self._path, self._mode = path, mode
        self._container = _open(path)
        self._fitter = Fitter(mode)
        self._frames = self._decode()
        self._began_us: int | None = None
        self._current: VideoFrame | None = None
        self._next: tuple[float, VideoFrame] | None = None

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        """Frames with the time they are due, in seconds, rising over the loops."""
        base, step = 0.0, 1.0 / self._mode.fps
        while True:
            due, first, pictures = base, None, 0
            for frame in self._container.decode(video=0):
                pictures += 1
                stamp = frame.time if frame.time is not None else due - base + step
                first = stamp if first is None else first
                due = max(due, base + stamp - first)
                yield due, frame
            if first is None:
                raise SourceError("format", f"file {self._path} has no picture in it")
            if pictures == 1:  # a still: there is nothing to decode again
                yield math.inf, frame
                return
            base = due + step
            self._container.close()
            self._container = _open(self._path)

    def picture(self, counter: int, clock_us: int) -> VideoFrame:
        if self._began_us is None:
            self._began_us = clock_us
        now = (clock_us - self._began_us) / 1_000_000
        fresh: VideoFrame | None = None
        try:
            while self._next is None or self._next[0] <= now:  # of a still the second is never due
                if self._next is not None:
                    fresh = self._next[1]
                self._next = next(self._frames)
            if fresh is not None:
                self._current = self._fitter.fit(fresh)
            elif self._current is None:
                self._current = self._fitter.fit(self._next[1])
        except av.FFmpegError as error:
            raise _unreadable(self._path, error) from error
        return self._current

    def resize(self, mode: VideoMode) -> None:
        self._fitter = Fitter(mode)
        self._current = None

    def close(self) -> None:
        self._frames = iter(())
        self._container.close()


def _open(path: str) -> av.container.InputContainer:
    try:
        container = av.open(path)
    except FileNotFoundError as error:
        raise SourceError("missing", f"file {path} is not there") from error
    except PermissionError as error:
        raise SourceError("denied", f"file {path} may not be read") from error
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error
    why = _useless(container)
    if why:
        container.close()
        raise SourceError("format", f"file {path} {why}")
    return container


def _useless(container: av.container.InputContainer) -> str:
    if not container.streams.video:
        return "has no picture in it"
    context = container.streams.video[0].codec_context
    if cast("object", context) is None:  # PyAV, of what FFmpeg has no decoder for
        return "is of a kind that cannot be decoded here"
    if context.width * context.height > MOST_PIXELS:
        return f"has more than {MOST_PIXELS / 1e6:.0f} million pixels"
    return ""


def _unreadable(path: str, error: Exception) -> SourceError:
    """Of the disk, or of what stands in the file; FFmpeg's own text names its functions."""
    words = getattr(error, "strerror", None) or str(error)
    if isinstance(error, OSError):
        return SourceError("failed", f"file {path} cannot be read: {words}")
    return SourceError("format", f"file {path} is damaged, or neither picture nor video: {words}")


@dataclass(frozen=True, slots=True)
class _Unit:
    data: bytes
    keyframe: bool


class Clip:
    """A recorded H.264 stream, passed through. A key-frame request jumps to the next IDR of the clip."""

    def __init__(self, path: str) -> None:
        if Path(path).is_file() and Path(path).stat().st_size > MAX_CLIP:
            raise SourceError("failed", f"clip {path} is larger than {MAX_CLIP >> 20} MiB")
        container = _open(path)
        with container:
            stream = container.streams.video[0]
            self.mode = _clip_mode(path, stream)
            try:
                self._units = _units(container, stream)
            except av.FFmpegError as error:
                raise SourceError("failed", f"clip {path}: {error}") from error
        while self._units and not self._units[0].keyframe:
            self._units.pop(0)
        if not self._units:
            raise SourceError("failed", f"clip {path} has no key frame")
        profile = _profile(self._units[0].data)
        if profile is None or profile[0] != 66:  # Table A-1: baseline and constrained baseline
            raise SourceError("failed", f"clip {path} is not constrained baseline: record it with profile baseline")
        self._position = 0

    def jump(self) -> None:
        """Go on with the next IDR, the first one again after the last."""
        count = len(self._units)
        for step in range(count):
            if self._units[(self._position + step) % count].keyframe:
                self._position = (self._position + step) % count
                return

    def unit(self, pts_us: int) -> EncodedFrame:
        unit = self._units[self._position]
        self._position = (self._position + 1) % len(self._units)
        return EncodedFrame(unit.data, pts_us, unit.keyframe)

    def picture(self, mode: VideoMode) -> VideoFrame:
        """The picture of the last key frame played, for a snapshot."""
        position = self._position
        while not self._units[position].keyframe:
            position -= 1
        decoder = av.CodecContext.create("h264", "r")
        packet = av.Packet(self._units[position].data)
        frames = [*decoder.decode(packet), *decoder.decode(None)]
        return Fitter(mode).fit(frames[0])


def _clip_mode(path: str, stream: av.video.stream.VideoStream) -> VideoMode:
    if stream.codec_context.name != "h264":
        raise SourceError("failed", f"clip {path} is {stream.codec_context.name}, not H.264")
    rate = stream.average_rate or stream.guessed_rate or 30
    context = stream.codec_context
    return VideoMode(context.width, context.height, max(1, round(float(rate))), int(context.bit_rate or 0))


def _units(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> list[_Unit]:
    """Annex-B access units, parameter sets in front of every IDR."""
    to_annexb = BitStreamFilterContext("h264_mp4toannexb", stream)
    extradata = bytes(stream.codec_context.extradata or b"")
    headers = extradata if extradata.startswith(b"\0\0") else b""
    units: list[_Unit] = []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        for part in to_annexb.filter(packet):
            data = bytes(part)
            types = {kind for kind, _ in nal_units(data)}
            if 5 in types and 7 not in types:
                data = headers + data
            units.append(_Unit(data, 5 in types))
    return units


def nal_units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(nal_unit_type, unit without start code) of an Annex-B stream (H.264 annex B)."""
    starts = []
    at = data.find(b"\0\0\1")
    while at >= 0:
        starts.append(at + 3)
        at = data.find(b"\0\0\1", at + 3)
    for start, after in zip(starts, [*starts[1:], len(data) + 3], strict=True):
        unit = data[start : after - 3].rstrip(b"\0") if after - 3 < len(data) else data[start:]
        if unit:
            yield unit[0] & 0x1F, unit


def _profile(data: bytes) -> tuple[int, int] | None:
    """(profile_idc, constraint flags) of the first sequence parameter set."""
    for kind, unit in nal_units(data):
        if kind == 7 and len(unit) > 3:
            return unit[1], unit[2]
    return None


class Lent:
    """JPEG pictures from elsewhere: the newest wins and counts for a second."""

    FRESH_US: Final = 1_000_000

    def __init__(self) -> None:
        self._jpeg = b""
        self._arrived_us = -self.FRESH_US
        self._frame: VideoFrame | None = None
        self._fitter: Fitter | None = None
        self._mode: VideoMode | None = None

    def offer(self, data: bytes, now_us: int) -> None:
        self._jpeg, self._arrived_us, self._frame = data, now_us, None

    def picture(self, mode: VideoMode, now_us: int) -> VideoFrame | None:
        """The newest lent picture, or None when there is no fresh one. A broken JPEG counts as none."""
        if now_us - self._arrived_us >= self.FRESH_US:
            self._jpeg, self._frame = b"", None
            return None
        if self._frame is None or self._mode != mode:
            decoder = av.CodecContext.create("mjpeg", "r")
            try:
                frames = decoder.decode(av.Packet(self._jpeg))
            except av.FFmpegError:
                frames = []
            if not frames:
                self._arrived_us = now_us - self.FRESH_US
                return None
            if self._fitter is None or self._mode != mode:
                self._fitter, self._mode = Fitter(mode), mode
            self._frame = self._fitter.fit(frames[0])
        return self._frame


def open_source(spec: str, mode: VideoMode) -> PictureSource:
    """``pattern`` or ``file:PATH``. Raises SourceError."""
    if spec == "pattern":
        return _Pattern(mode)
    kind, _, path = spec.partition(":")
    if kind == "file" and path:
        return _VideoFile(path, mode)
    if kind == "v4l2" and path:
        from hw.host.v4l2 import V4l2Source

        return V4l2Source(path, mode)
    raise SourceError("failed", f"camera source {spec!r} is unknown; there are pattern, file:PATH and clip:PATH")
