"""A stateful H.264 encoder of the kernel (V4L2 memory to memory), as that of the Raspberry Pi up to 4: one session.

Constrained baseline, no B pictures, headers before every key frame; bit rate and key frame by control while it runs.
Nothing here waits but ``drain``, which has a deadline: pictures go in as long as there is room, units are collected
when ``poll`` says so. What goes wrong is told by EncoderError, and the session is then of no use any more.
"""

from __future__ import annotations

import errno
import mmap
import select
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from av.video.frame import VideoFrame

from hw.api import EncodedFrame, FaultKind, VideoMode
from hw.blame import fault_of
from hw.camera.x264 import KEYFRAME_S, level
from hw.pi.encoder.units import fault_of_unit
from hw.pi.patience import aside, within
from hw.pi.shot import Shot
from hw.pi.v4l2 import (
    CAN_ENCODE,
    FLAG_ERROR,
    FLAG_KEY,
    FLAG_LAST,
    Format,
    Node,
    Queue,
    QueueKind,
    refusal,
)

__all__ = ["EncoderError", "M2mEncoder", "MemoryRefusedError", "fill_planes", "floor_of"]

BUFFERS: Final = 4
"""Of each side; more only add delay when the encoder is late."""

SHARED: Final = 3
"""Pictures of the camera's memory that it is given at a time: the camera has as many left to write to."""

CODED_SIZE: Final = 512 * 1024
"""Bytes of a unit at most; a key frame of 1080p at the highest rate stays below."""

SILENT_S: Final = 0.8
"""A picture that is not coded by then: the encoder hangs. Known ones take 15 ms. Leaves a second to fall back in."""

LATE_S: Final = 0.25
LATE: Final = BUFFERS + 2
"""So many pictures in a row that took longer: it is too slow. One hold-up makes no more late than it has buffers."""

CLOSE_S: Final = 0.3
"""Drivers wait in STREAMOFF for the picture that is inside: 15 ms, or for ever."""

REFUSALS: Final = frozenset({errno.EINVAL, errno.EFAULT, errno.ENOMEM, errno.EPERM, errno.EOPNOTSUPP})
"""What drivers answer to memory of others that they cannot read, not in one piece for example."""

FAILURES: Final = 3
FAILURES_S: Final = 1.5
"""So many pictures lost or damaged within so many seconds: it is broken. One alone is made good by a key frame."""

MAX_BITRATE: Final = 14_000_000
FLOOR_BITS: Final = 0.005
"""Bits per pixel below which the rate control of known encoders (bcm2835) stalls for seconds: 138 kbit/s at 720p30."""

LAYOUTS: Final = {"YU12": ((1, 1), (2, 2), (2, 2)), "NV12": ((1, 1), (1, 2))}
"""Formats that pictures are copied in, the first that is offered: of each plane the parts of line and rows."""

BITRATE, BITRATE_MODE, B_FRAMES = 0x9909CF, 0x9909CE, 0x9909CA
REPEAT_HEADERS, FORCE_KEY = 0x9909E2, 0x9909E5
I_PERIOD, LEVEL, PROFILE = 0x990A66, 0x990A67, 0x990A6B
CONSTRAINED_BASELINE: Final = 1
CONSTANT_RATE: Final = 1
LEVELS: Final = {"3.1": 9, "4.0": 11, "4.2": 13}  # V4L2_MPEG_VIDEO_H264_LEVEL_*


class EncoderError(Exception):
    """The encoder failed, and why: ``fault`` is what it is told as."""

    def __init__(self, words: str, fault: FaultKind = FaultKind.FAILED) -> None:
        super().__init__(words)
        self.fault = fault


class MemoryRefusedError(EncoderError):
    """The encoder does not read pictures where the camera put them; copies may do."""


def floor_of(mode: VideoMode) -> int:
    """The lowest bit rate that is asked of a hardware encoder at this size and frame rate."""
    return max(50_000, int(mode.width * mode.height * mode.fps * FLOOR_BITS))


@dataclass(frozen=True, slots=True)
class _Inside:
    """A picture that was handed over at ``when`` (CLOCK_MONOTONIC, seconds)."""

    when: float
    pts_us: int
    picture: VideoFrame | Shot


class M2mEncoder:
    """One session at the node ``path``. Raises EncoderError when it cannot be opened as asked."""

    def __init__(self, path: str, mode: VideoMode, layout: Format | None = None) -> None:
        """``layout``: pictures are handed over where they lie, as it says, by ``share`` and not by ``encode``."""
        self.mode, self.layout = mode, layout
        self._reading: dict[int, Shot] = {}  # by buffer
        self._places: dict[int, int] = {}  # buffers by file: one that stays is attached once
        self._taken = False  # a picture was, from the camera's memory
        self._pending: deque[_Inside] = deque()
        self._damaged: list[_Inside] = []  # since the last unit that was whole
        self._error: EncoderError | None = None
        self._failures: deque[float] = deque()
        self._late = 0
        self._want_key = False
        self._queues: list[Queue] = []
        self._closing: Future[None] | None = None
        self._name = f"encoder {path}"
        try:
            self._node = Node(path)
        except OSError as error:
            raise _failure(self._name, path, error) from error
        try:
            self._open()
        except OSError as error:
            self.close()
            raise _failure(self._name, path, error) from error
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
        """The descriptor that wakes for ``collect`` (POLLIN)."""
        return self._node.file

    @property
    def raw(self) -> Format:
        """How a raw picture lies in memory."""
        return self._raw

    def force_keyframe(self) -> None:
        """The next picture that goes in is an IDR."""
        self._want_key = True

    def set_bitrate(self, bits_per_second: int) -> int:
        """Follow a new target; returns the target after clamping."""
        low, high = self._rates
        target = max(low, floor_of(self.mode), min(high, MAX_BITRATE, bits_per_second))
        with suppress(OSError):  # a device that is gone is noticed by the next picture
            self._node.set_control(BITRATE, target)
        return target

    # --- pictures

    @property
    def room(self) -> bool:
        """Whether a picture can go in. One that cannot is skipped before it was coded, which no decoder notices.

        Raises EncoderError.
        """
        self._reclaim()
        return bool(self._free) and (self.layout is None or len(self._reading) < SHARED)

    def encode(self, picture: VideoFrame, pts_us: int) -> None:
        """Hand over a picture in YUV 4:2:0 (planar) of the session's size, while there is ``room``.

        Raises EncoderError.
        """
        index = self._free.popleft()
        fill_planes(self._in.memory(index), self._raw, picture)
        try:
            self._wake_key()
            self._in.put(index, used=self._raw.size, pts_us=pts_us)
        except OSError as error:
            raise _failure(self._name, self._node.path, error, running=True) from error
        self._pending.append(_Inside(time.monotonic(), pts_us, picture))

    def share(self, shot: Shot) -> None:
        """Hand over a picture where it lies, while there is ``room``; it is closed here when it is coded.

        Raises EncoderError, MemoryRefusedError where it is not read there, and the shot is the caller's still.
        """
        index = self._places.get(shot.file, -1)
        if index not in self._free:
            index = self._places[shot.file] = self._free[0]
        try:
            self._wake_key()
            self._in.put(index, used=self._raw.size, pts_us=shot.pts_us, file=shot.file)
        except OSError as error:
            if not self._taken and error.errno in REFUSALS:
                raise MemoryRefusedError(f"{self._name} does not read the camera's memory: {error.strerror}") from error
            raise _failure(self._name, self._node.path, error, running=True) from error
        self._taken = True
        self._free.remove(index)
        self._reading[index] = shot.keep()
        self._pending.append(_Inside(time.monotonic(), shot.pts_us, shot))

    def _wake_key(self) -> None:
        if self._want_key:
            self._want_key = False
            self._node.set_control(FORCE_KEY, 1)

    def collect(self, now: float) -> list[EncodedFrame]:
        """What is coded by now (``time.monotonic``). Raises EncoderError when the encoder has failed, and there is
        nothing more to collect."""
        if self._error is not None:
            raise self._error
        units: list[EncodedFrame] = []
        try:
            self._gather(units, now)
            self._judge(now)
        except EncoderError as error:
            if not units:
                raise
            self._error = error
        return units

    def _gather(self, units: list[EncodedFrame], now: float) -> None:
        try:
            while (done := self._out.get()) is not None:
                frame = self._unit(done.index, done.used, done.flags, done.pts_us, now)
                self._out.put(done.index)
                if frame is not None:
                    units.append(frame)
        except OSError as error:
            raise _failure(self._name, self._node.path, error, running=True) from error
        self._reclaim()

    def _judge(self, now: float) -> None:
        if len(self._failures) >= FAILURES:
            raise EncoderError(f"{self._name}: {len(self._failures)} pictures of a second and a half came damaged")
        if self._late >= LATE:
            raise EncoderError(f"{self._name} takes over {LATE_S * 1000:.0f} ms for each picture")
        if self._pending and now - self._pending[0].when > SILENT_S:
            raise EncoderError(f"{self._name} has not answered for {SILENT_S:g} s", FaultKind.STALLED)

    @property
    def uncoded(self) -> list[tuple[VideoFrame, int]]:
        """The pictures that went in and came to nothing so far, oldest first, with their times: for who takes over."""
        found = []
        for one in (*self._damaged, *self._pending):
            picture = one.picture.picture() if isinstance(one.picture, Shot) else one.picture
            if picture is not None:
                found.append((picture, one.pts_us))
        return found

    def due_s(self, now: float) -> float | None:
        """Seconds until ``collect`` has a failure to tell; None while nothing is inside."""
        if self._error is not None:
            return 0.0
        return max(0.0, self._pending[0].when + SILENT_S - now) if self._pending else None

    def _unit(self, index: int, used: int, flags: int, pts_us: int, now: float) -> EncodedFrame | None:
        done = []
        while self._pending and self._pending[0].pts_us <= pts_us:
            done.append(self._pending.popleft())
            self._late = self._late + 1 if now - done[-1].when > LATE_S else 0
        while self._failures and now - self._failures[0] > FAILURES_S:
            self._failures.popleft()
        if flags & FLAG_LAST and not used:
            return None
        data = self._out.memory(index)[:used]
        fault = "it told an error" if flags & FLAG_ERROR else fault_of_unit(data)
        if fault:
            self._failures.append(now)
            self._damaged += done
            self.force_keyframe()  # what follows refers to what is lost
            return None
        _let_go((*self._damaged, *done))
        self._damaged.clear()
        inside = [one for one in done if one.pts_us == pts_us]
        dwell_us = round((now - inside[-1].when) * 1e6) if inside else None
        return EncodedFrame(data, pts_us, bool(flags & FLAG_KEY), dwell_us=dwell_us)

    def _reclaim(self) -> None:
        try:
            while (done := self._in.get()) is not None:
                self._free.append(done.index)
                shot = self._reading.pop(done.index, None)
                if shot is not None:
                    shot.close()
        except OSError as error:
            raise _failure(self._name, self._node.path, error, running=True) from error

    # --- the end

    def drain(self, seconds: float) -> list[EncodedFrame]:
        """What is still inside, waiting ``seconds`` at most: encoders of the field lose their last pictures."""
        units: list[EncodedFrame] = []
        deadline = time.monotonic() + seconds
        try:
            self._node.stop_encoder()
            while self._pending and (left := deadline - time.monotonic()) > 0:
                poll = select.poll()
                poll.register(self._node.file, select.POLLIN)
                poll.poll(left * 1000)
                units += self.collect(time.monotonic())
        except (OSError, EncoderError):
            return units  # it is given up either way
        return units

    def close(self) -> bool:
        """Give everything back, at any moment. False: the driver hangs in it, and is left to itself (``closed``)."""
        if self._closing is None:
            queues, self._queues = self._queues, []
            inside, reading = [*self._damaged, *self._pending], [*self._reading.values()]
            self._damaged.clear()
            self._pending.clear()
            self._reading.clear()

            def release() -> None:
                for queue in queues:
                    queue.close()
                self._node.close()
                _let_go(inside)
                for shot in reading:
                    shot.close()

            self._closing = aside("hw.encoder.close", release)
            with suppress(TimeoutError):
                within(CLOSE_S, "hw.encoder.close", self._closing)
        return self.closed

    @property
    def closed(self) -> bool:
        """Whether the driver has let go of it."""
        return self._closing is not None and self._closing.done()


def _failure(name: str, path: str, error: OSError, *, running: bool = False) -> EncoderError:
    """``running``: it was open, so that one which is not there any more was unplugged."""
    told = refusal(name, path, error)
    fault = fault_of(told)
    return EncoderError(str(told), FaultKind.PULLED if running and fault is FaultKind.MISSING else fault)


def _let_go(pictures: Iterable[_Inside]) -> None:
    for one in pictures:
        if isinstance(one.picture, Shot):
            one.picture.close()


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
