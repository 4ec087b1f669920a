"""What a camera in the guest delivers and tells, as it comes; and what is in its pictures."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import av
from av.video.frame import VideoFrame

from hw.api import EncodedFrame, Fault, FaultKind
from hw.faults import FaultLine
from tests.hil.machine import Machine

__all__ = ["Seen", "longest_gap_s", "luma", "newest", "pictures"]


class Seen:
    """Frames and faults as they come."""

    def __init__(self) -> None:
        self.line = FaultLine()
        self.frames: list[EncodedFrame] = []
        self.arrived: list[float] = []
        self.faults: list[Fault] = []
        self._changed = threading.Condition()
        self.line.listen(self._fault)

    def _fault(self, fault: Fault) -> None:
        with self._changed:
            self.faults.append(fault)
            self._changed.notify_all()

    def frame(self, frame: EncodedFrame) -> None:
        with self._changed:
            self.frames.append(frame)
            self.arrived.append(time.monotonic())
            self._changed.notify_all()

    def until(self, condition: Callable[[], object], seconds: float = 10.0) -> float:
        """How long it took."""
        begin = time.monotonic()
        while not condition():  # not under the lock: what decodes pictures here would keep the camera from delivering
            assert time.monotonic() - begin < seconds, f"{len(self.frames)} frames, {self.faults}"
            with self._changed:
                self._changed.wait(0.02)  # not everything that is waited for is told
        return time.monotonic() - begin

    def more(self, count: int, seconds: float = 15.0) -> list[EncodedFrame]:
        begin = len(self.frames)
        self.until(lambda: len(self.frames) >= begin + count, seconds)
        return self.frames[begin:]

    def newer(self, count: int, seconds: float = 15.0) -> None:
        """Until ``count`` pictures are here that the camera took from now on: none of them is on its way already."""
        now = time.monotonic_ns() // 1000
        self.until(lambda: sum(frame.pts_us > now for frame in list(self.frames)) >= count, seconds)

    def told(self, kind: FaultKind, active: bool) -> Callable[[], bool]:
        """Whether the newest word on ``kind`` is ``active``."""
        return lambda: next((fault.active for fault in reversed(self.faults) if fault.fault is kind), False) is active


def pictures(frames: list[EncodedFrame]) -> list[VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    shown = [picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))]
    return [*shown, *decoder.decode(None)]


def newest(frames: list[EncodedFrame]) -> VideoFrame:
    """The last picture, decoded from the last key frame on."""
    key = max(n for n, frame in enumerate(frames) if frame.keyframe)
    return pictures(frames[key:])[-1]


def longest_gap_s(frames: list[EncodedFrame], machine: Machine) -> float:
    """Seconds between two pictures in which the machine did not stand still, at most; below 0.1 not looked at."""
    stamps = [frame.pts_us / 1e6 for frame in frames]
    return max((after - before - machine.stood_s(before, after)
                for before, after in itertools.pairwise(stamps) if after - before > 0.1), default=0.0)


def luma(picture: VideoFrame, x: float, y: float) -> int:
    plane = picture.planes[0]
    return memoryview(plane)[int(y * picture.height) * plane.line_size + int(x * picture.width)]
