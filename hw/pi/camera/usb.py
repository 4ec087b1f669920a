"""USB cameras, and what else delivers pictures by Video4Linux: found by where they are plugged, streamed by mmap."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from hw.api import DeviceFailedError, DeviceFormatError, DevicePulledError, VideoMode
from hw.pi.v4l2 import (
    CAN_CAPTURE,
    CAN_STREAM,
    FLAG_ERROR,
    FLAG_MONOTONIC,
    FLAGS_CLOCK,
    Done,
    Format,
    Node,
    Queue,
    QueueKind,
    nodes_named,
    refusal,
)

__all__ = ["CSI_NODES", "Offer", "UsbCamera", "UsbSensor", "captured_us", "choose", "find_usb"]

BUFFERS: Final = 4

PIXELS: Final = {"YU12": "yuv420p", "NV12": "nv12", "YUYV": "yuyv422", "MJPG": ""}
"""Formats that are taken, the least work first, with PyAV's name; MJPG has to be decoded."""

CSI_NODES: Final = ("unicam", "rp1-cfe", "RGB/YUV Capture")
"""Receivers of CSI cameras, and of the kernel's virtual one (vimc), by the beginnings of their names: libcamera's."""

NOT_ALONE: Final = (*CSI_NODES, "Raw Capture", "bcm2835-isp", "pispbe", "bcm2835-codec", "rpivid", "rpi-hevc")
"""And what else is no camera by itself: signal processors, codecs."""

SLOWER: Final = 0.9
"""Of the frame rate that is asked: a size that is offered with less counts as too slow."""


@dataclass(frozen=True, slots=True)
class UsbCamera:
    """``id`` is where it is plugged (``usb-1-1.2:1.0``), the same after every start and every plug."""

    id: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A format that a camera offers; ``fps`` 0: not told."""

    pixels: str
    width: int
    height: int
    fps: float


def find_usb(sysfs: str = "/sys") -> Sequence[UsbCamera]:
    """The first capture node of each camera, in order of their numbers. One that cannot be asked (busy, forbidden) is
    among them."""
    found: dict[str, UsbCamera] = {}
    for path, name in nodes_named(sysfs):
        folder = Path(sysfs) / "class/video4linux" / Path(path).name
        if name.startswith(NOT_ALONE):
            continue
        try:
            place = (folder / "device").resolve(strict=True)
            if (folder / "index").read_text().strip() != "0":
                continue  # the others of a USB camera carry metadata
        except OSError:  # unplugged while we look
            continue
        with suppress(OSError), Node(path) as node:
            bits, _ = node.capabilities()
            if not (bits & CAN_CAPTURE and bits & CAN_STREAM):
                continue
        bus = (place / "subsystem").resolve().name
        found.setdefault(f"{bus}-{place.name}", UsbCamera(f"{bus}-{place.name}", name, path))
    return list(found.values())


def choose(offers: Iterable[Offer], mode: VideoMode) -> Offer:
    """The offer for ``mode``: fast enough first, then not smaller, then nearest, then the least work.

    Raises DeviceFormatError, naming what there is.
    """
    known = [offer for offer in offers if offer.pixels in PIXELS]
    if not known:
        raise DeviceFormatError(f"the camera offers none of {', '.join(PIXELS)}: take another")

    def rank(offer: Offer) -> tuple[bool, bool, int, int]:
        slow = 0 < offer.fps < mode.fps * SLOWER
        smaller = offer.width < mode.width or offer.height < mode.height
        away = abs(offer.width * offer.height - mode.width * mode.height)
        return slow, smaller, away, list(PIXELS).index(offer.pixels)

    return min(known, key=rank)


def captured_us(done: Done, now_us: int) -> int:
    """When it was taken: by the driver's stamp where that is of the monotonic clock, and not of what is to come.

    Some drivers stamp the end of a picture, and hand it over before.
    """
    return min(done.pts_us, now_us) if done.flags & FLAGS_CLOCK == FLAG_MONOTONIC else now_us


def _offers(node: Node, mode: VideoMode) -> list[Offer]:
    found = []
    for pixels in node.formats(QueueKind.CAMERA):
        if pixels not in PIXELS:
            continue
        for least_width, least_height, most_width, most_height in node.sizes(pixels):
            width = max(least_width, min(most_width, mode.width))
            height = max(least_height, min(most_height, mode.height))
            found.append(Offer(pixels, width, height, node.rate(pixels, width, height)))
    return found


class UsbSensor:
    """A camera that streams. Raises HardwareError."""

    zooms = False

    def __init__(self, camera: UsbCamera, mode: VideoMode) -> None:
        self._camera = camera
        self._what = f"camera {camera.name} ({camera.id})"
        self._decoder: VideoCodecContext | None = None
        self._queue: Queue | None = None
        try:
            self._node = Node(camera.path)
        except OSError as error:
            raise refusal(self._what, camera.path, error) from error
        try:
            self._open(mode)
        except OSError as error:
            self.close()
            raise refusal(self._what, camera.path, error) from error
        except DeviceFormatError:
            self.close()
            raise

    def _open(self, mode: VideoMode) -> None:
        node = self._node
        offer = choose(_offers(node, mode), mode)
        self._format = node.set_format(QueueKind.CAMERA, offer.width, offer.height, offer.pixels)
        if self._format.pixels not in PIXELS:
            raise DeviceFormatError(f"{self._what} answers {offer.pixels} with {self._format.pixels}")
        with suppress(OSError):  # some have one rate and no choice
            node.set_rate(QueueKind.CAMERA, mode.fps)
        if self._format.pixels == "MJPG":
            decoder = CodecContext.create("mjpeg", "r")
            assert isinstance(decoder, VideoCodecContext)  # noqa: S101
            decoder.thread_count = 1
            self._decoder = decoder
        self._queue = Queue(node, QueueKind.CAMERA, BUFFERS)
        for index in range(self._queue.count):
            self._queue.put(index)
        self._queue.start()

    @property
    def file(self) -> int:
        """Wakes (POLLIN) for ``take``."""
        return self._node.file

    @property
    def what(self) -> str:
        return self._what

    def take(self) -> tuple[VideoFrame, int] | None:
        """The newest picture and its time (CLOCK_MONOTONIC, microseconds); None: none yet, or a damaged one.

        Raises HardwareError when the camera is gone or fails.
        """
        queue = self._queue
        assert queue is not None  # noqa: S101 - only while open
        newest = None
        try:
            while (done := queue.get()) is not None:
                if newest is not None:
                    queue.put(newest.index)  # we were late: an older one is of no use
                newest = done
            if newest is None:
                return None
            good = not newest.flags & FLAG_ERROR and newest.used > 0
            picture = self._picture(queue, newest.index, newest.used) if good else None
            queue.put(newest.index)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO, errno.EPROTO, errno.ESHUTDOWN):
                raise DevicePulledError(f"{self._what} was unplugged: check its cable and its power") from error
            raise DeviceFailedError(f"{self._what} failed while it ran: {error.strerror}; plug it anew") from error
        return None if picture is None else (picture, captured_us(newest, time.monotonic_ns() // 1000))

    def _picture(self, queue: Queue, index: int, used: int) -> VideoFrame | None:
        memory = queue.memory(index)
        if self._decoder is None:
            return _frame(memory[:used], self._format)
        try:
            pictures = self._decoder.decode(av.Packet(memory[:used]))
        except (av.FFmpegError, ValueError):
            return None  # torn on the bus: the next one is whole
        return pictures[-1] if pictures else None

    def close(self) -> None:
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        self._node.close()


def _frame(data: bytes, layout: Format) -> VideoFrame | None:
    """Raw bytes of the driver's layout as a picture of our own."""
    picture = VideoFrame(layout.width, layout.height, PIXELS[layout.pixels])
    at = 0
    for number, plane in enumerate(picture.planes):
        planar = layout.pixels == "YU12" and number
        line, rows = (layout.line // 2 if planar else layout.line), plane.height
        part = data[at : at + line * rows]
        if len(part) < line * rows:
            return None
        if plane.line_size == line:
            plane.update(part.ljust(plane.buffer_size, b"\0"))
        else:
            width, pad = min(line, plane.line_size), b"\0" * max(0, plane.line_size - line)
            plane.update(b"".join(part[row * line : row * line + width] + pad for row in range(rows)
                                  ).ljust(plane.buffer_size, b"\0"))
        at += line * rows
    return picture
