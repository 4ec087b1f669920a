"""A stateful H.264 encoder of the kernel (V4L2 memory to memory), as that of the Raspberry Pi up to 4: one session.

Constrained baseline, no B pictures, headers before every key frame; bit rate and key frame by control while it runs.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from av.video.frame import VideoFrame

from hw.api import EncodedFrame, FaultKind, VideoMode
from hw.camera.x264 import KEYFRAME_S, level
from hw.pi.encoder.session import (
    BUFFERS,
    MAX_BITRATE,
    REFUSALS,
    SHARED,
    EncoderError,
    EncoderSession,
    MemoryRefusedError,
    failure,
    floor_of,
)
from hw.pi.shot import Shot
from hw.pi.v4l2 import CAN_ENCODE, FLAG_ERROR, FLAG_KEY, FLAG_LAST, Format, Node, Queue, QueueKind

__all__ = ["BITRATE", "FORCE_KEY", "M2mEncoder", "fill_planes"]

CODED_SIZE: Final = 512 * 1024
"""Bytes of a unit at most; a key frame of 1080p at the highest rate stays below."""

LAYOUTS: Final = {"YU12": ((1, 1), (2, 2), (2, 2)), "NV12": ((1, 1), (1, 2))}
"""Formats that pictures are copied in, the first that is offered: of each plane the parts of line and rows."""

BITRATE, BITRATE_MODE, B_FRAMES = 0x9909CF, 0x9909CE, 0x9909CA
REPEAT_HEADERS, FORCE_KEY = 0x9909E2, 0x9909E5
I_PERIOD, LEVEL, PROFILE = 0x990A66, 0x990A67, 0x990A6B
CONSTRAINED_BASELINE: Final = 1
CONSTANT_RATE: Final = 1
LEVELS: Final = {"3.1": 9, "4.0": 11, "4.2": 13}  # V4L2_MPEG_VIDEO_H264_LEVEL_*


class M2mEncoder(EncoderSession):
    """One session at the node ``path``. Raises EncoderError when it cannot be opened as asked."""

    def __init__(self, path: str, mode: VideoMode, layout: Format | None = None) -> None:
        super().__init__(path, mode, layout)
        self._reading: dict[int, Shot] = {}  # by buffer
        self._places: dict[int, int] = {}  # buffers by file: one that stays is attached once
        self._queues: list[Queue] = []
        try:
            self._node = Node(path)
        except OSError as error:
            raise failure(self._name, path, error) from error
        try:
            self._open()
        except OSError as error:
            self.close()
            raise failure(self._name, path, error) from error
        except EncoderError:
            self.close()
            raise

    def _open(self) -> None:
        node, mode = self._node, self.mode
        bits, card = node.capabilities()
        self._name = f"encoder {card} ({node.path})"
        offered = node.formats(QueueKind.RAW)
        pixels = next((each for each in LAYOUTS if each in offered), "")
        if self.layout is not None:
            pixels = self.layout.pixels
            if pixels not in offered:
                raise MemoryRefusedError(f"{self._name} takes no {pixels}")
        if not bits & CAN_ENCODE or not pixels:
            raise EncoderError(f"{self._name} takes none of our formats; it offers {', '.join(offered) or 'none'}",
                               FaultKind.FORMAT)
        for control, value in (
            (PROFILE, CONSTRAINED_BASELINE), (LEVEL, LEVELS[level(mode)]), (I_PERIOD, mode.fps * KEYFRAME_S),
            (REPEAT_HEADERS, 1), (BITRATE_MODE, CONSTANT_RATE), (B_FRAMES, 0),
        ):  # fmt: skip
            # What a driver has no control for is judged by what it delivers.
            with suppress(OSError):
                node.set_control(control, value)
        self._rates = node.control_range(BITRATE) or (0, MAX_BITRATE)
        self.set_bitrate(mode.bitrate)
        self._raw = node.set_format(QueueKind.RAW, mode.width, mode.height, pixels)
        coded = node.set_format(QueueKind.CODED, mode.width, mode.height, "H264", size=CODED_SIZE)
        given = (self._raw.width, self._raw.height, self._raw.pixels, coded.pixels)
        if given != (mode.width, mode.height, pixels, "H264"):
            raise EncoderError(f"{self._name} does not do {mode.width}x{mode.height} of format {pixels}: choose "
                               "another size", FaultKind.FORMAT)
        with suppress(OSError):
            node.set_rate(QueueKind.RAW, mode.fps)
        if self.layout is not None and not _lies_as(self._raw, self.layout):
            raise MemoryRefusedError(f"{self._name} wants pictures as {self._raw}, and not as {self.layout}")
        try:
            self._in = Queue(node, QueueKind.RAW, BUFFERS, foreign=self.layout is not None)
        except OSError as error:
            if self.layout is None or error.errno not in REFUSALS:
                raise
            raise MemoryRefusedError(f"{self._name} takes no memory of others: {error.strerror}") from error
        self._queues.append(self._in)
        self._out = Queue(node, QueueKind.CODED, BUFFERS)
        self._queues.append(self._out)
        if not self._in.count or not self._out.count:
            raise EncoderError(f"{self._name} gives no buffers")
        self._free = deque(range(self._in.count))
        for index in range(self._out.count):
            self._out.put(index)
        self._in.start()
        self._out.start()

    # --- steering

    @property
    def file(self) -> int:
        return self._node.file

    @property
    def raw(self) -> Format:
        """How a raw picture lies in memory."""
        return self._raw

    def set_bitrate(self, bits_per_second: int) -> int:
        low, high = self._rates
        target = max(low, floor_of(self.mode), min(high, MAX_BITRATE, bits_per_second))
        with suppress(OSError):  # a device that is gone is noticed by the next picture
            self._node.set_control(BITRATE, target)
        return target

    # --- pictures

    @property
    def room(self) -> bool:
        self._reclaim()
        return bool(self._free) and (self.layout is None or len(self._reading) < SHARED)

    def encode(self, picture: VideoFrame, pts_us: int) -> None:
        index = self._free.popleft()
        fill_planes(self._in.memory(index), self._raw, picture)
        try:
            self._wake_key()
            self._in.put(index, used=self._raw.size, pts_us=pts_us)
        except OSError as error:
            raise failure(self._name, self._path, error, running=True) from error
        self._went_in(pts_us, picture)

    def share(self, shot: Shot) -> None:
        index = self._places.get(shot.file, -1)
        if index not in self._free:
            index = self._places[shot.file] = self._free[0]
        try:
            self._wake_key()
            self._in.put(index, used=self._raw.size, pts_us=shot.pts_us, file=shot.file)
        except OSError as error:
            if not self._taken and error.errno in REFUSALS:
                raise MemoryRefusedError(f"{self._name} does not read the camera's memory: {error.strerror}") from error
            raise failure(self._name, self._path, error, running=True) from error
        self._taken = True
        self._free.remove(index)
        self._reading[index] = shot.keep()
        self._went_in(shot.pts_us, shot)

    def _wake_key(self) -> None:
        if self._want_key:
            self._want_key = False
            self._node.set_control(FORCE_KEY, 1)

    def _gather(self, units: list[EncodedFrame], now: float) -> None:
        try:
            while (done := self._out.get()) is not None:
                frame = None
                if done.used or not done.flags & FLAG_LAST:
                    data = self._out.memory(done.index)[: done.used]
                    frame = self._unit(data, done.pts_us, now, key=bool(done.flags & FLAG_KEY),
                                       wrong=bool(done.flags & FLAG_ERROR))
                self._out.put(done.index)
                if frame is not None:
                    units.append(frame)
        except OSError as error:
            raise failure(self._name, self._path, error, running=True) from error
        self._reclaim()

    def _reclaim(self) -> None:
        try:
            while (done := self._in.get()) is not None:
                self._free.append(done.index)
                shot = self._reading.pop(done.index, None)
                if shot is not None:
                    shot.close()
        except OSError as error:
            raise failure(self._name, self._path, error, running=True) from error

    # --- the end

    def _finish(self) -> None:
        self._node.stop_encoder()

    def _ending(self) -> Callable[[], None]:
        queues, self._queues = self._queues, []
        for shot in self._reading.values():
            shot.close()
        self._reading.clear()

        def end() -> None:
            for queue in queues:
                queue.close()
            self._node.close()

        return end


def _lies_as(raw: Format, layout: Format) -> bool:
    """Whether what lies as ``layout`` says lies as ``raw`` says too, without rows between its planes."""
    parts = 1 if layout.pixels not in LAYOUTS else 1.5
    return (raw.width, raw.height, raw.line) == (layout.width, layout.height, layout.line) and (
        raw.line * raw.height * parts == raw.size <= layout.size)


def fill_planes(target: mmap.mmap, raw: Format, picture: VideoFrame) -> None:
    """Copy a planar 4:2:0 picture into memory laid out as ``raw`` says (one of LAYOUTS)."""
    at = 0
    source = picture.reformat(format="nv12") if raw.pixels == "NV12" else picture
    for plane, (part, rows_part) in zip(source.planes, LAYOUTS[raw.pixels], strict=True):
        line, rows, width = raw.line // part, raw.height // rows_part, raw.width // part
        data = memoryview(plane)
        if plane.line_size == line:
            target[at : at + line * rows] = data[: line * rows]
        else:
            for row in range(rows):
                start = row * plane.line_size
                target[at + row * line : at + row * line + width] = data[start : start + width]
        at += line * rows
