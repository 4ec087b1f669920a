"""USB cameras, and what else delivers pictures by Video4Linux: found by where they are plugged, streamed by mmap."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from hw.api import DeviceFailedError, DeviceFormatError, DevicePulledError, HardwareError, VideoMode
from hw.pi.camera.config import CameraConfig
from hw.pi.camera.raw import picture_of
from hw.pi.camera.steer import Steering, steering_of
from hw.pi.dv import receives_hdmi
from hw.pi.encoder.m2m import M2mEncoder
from hw.pi.encoder.session import Driver
from hw.pi.shot import Shot
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

__all__ = ["CSI_NODES", "Offer", "UsbCamera", "UsbSensor", "captured_us", "choose", "find_hdmi", "find_usb"]

BUFFERS: Final = 4

SHARED: Final = ("YU12", "NV12")
"""Formats that encoders read where they lie."""

SHARED_BUFFERS: Final = 6
"""Of those: one is shown in snapshots, and up to three are in the encoder."""

DECODERS: Final = {"MJPG": "mjpeg", "H264": "h264"}

TAKEN: Final = ("YU12", "NV12", "YUYV", "UYVY", "RGB3", *DECODERS)
"""Formats, the least work first."""

EXPOSURE_AUTO, EXPOSURE_ABSOLUTE, FOCUS_ABSOLUTE, FOCUS_AUTO = 0x9A0901, 0x9A0902, 0x9A090A, 0x9A090C
EXPOSURE_MANUAL: Final = 1
EXPOSURE_AUTOMATIC: Final = (3, 0)  # what USB cameras call aperture priority, and what others have
EXPOSURE_UNIT_US: Final = 100

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
    """The first capture node of each camera, in order of their numbers, HDMI inputs last. One that cannot be asked
    (busy, forbidden) is among them."""
    found: dict[str, UsbCamera] = {}
    hdmi: dict[str, UsbCamera] = {}
    for camera in _nodes(sysfs):
        if camera.name.startswith(NOT_ALONE):
            continue
        is_hdmi = False
        with suppress(OSError), Node(camera.path) as node:
            if not can_stream(node):
                continue
            is_hdmi = receives_hdmi(node)
        (hdmi if is_hdmi else found).setdefault(camera.id, camera)
    return [*found.values(), *(one for one in hdmi.values() if one.id not in found)]


def find_hdmi(sysfs: str = "/sys") -> Sequence[UsbCamera]:
    """The HDMI inputs, those behind a receiver of CSI cameras too."""
    found: dict[str, UsbCamera] = {}
    for camera in _nodes(sysfs):
        with suppress(OSError), Node(camera.path) as node:
            if can_stream(node) and receives_hdmi(node):
                found.setdefault(camera.id, camera)
    return list(found.values())


def can_stream(node: Node) -> bool:
    bits, _ = node.capabilities()
    return bool(bits & CAN_CAPTURE and bits & CAN_STREAM)


def _nodes(sysfs: str) -> Iterator[UsbCamera]:
    """The first node of each device, whatever it is."""
    for path, name in nodes_named(sysfs):
        folder = Path(sysfs) / "class/video4linux" / Path(path).name
        try:
            place = (folder / "device").resolve(strict=True)
            if (folder / "index").read_text().strip() != "0":
                continue  # the others of a USB camera carry metadata
        except OSError:  # unplugged while we look
            continue
        yield UsbCamera(f"{(place / 'subsystem').resolve().name}-{place.name}", name, path)


def choose(offers: Iterable[Offer], mode: VideoMode) -> Offer:
    """Of offers in TAKEN, one at least, that for ``mode``: fast enough first, then not smaller, then nearest, then the
    least work."""

    def rank(offer: Offer) -> tuple[bool, bool, int, int]:
        slow = 0 < offer.fps < mode.fps * SLOWER
        smaller = offer.width < mode.width or offer.height < mode.height
        away = abs(offer.width * offer.height - mode.width * mode.height)
        return slow, smaller, away, TAKEN.index(offer.pixels)

    return min(offers, key=rank)


def captured_us(done: Done, now_us: int) -> int:
    """When it was taken: by the driver's stamp where that is of the monotonic clock, and not of what is to come.

    Some drivers stamp the end of a picture, and hand it over before.
    """
    return min(done.pts_us, now_us) if done.flags & FLAGS_CLOCK == FLAG_MONOTONIC else now_us


def _offers_of(node: Node, mode: VideoMode) -> list[Offer]:
    """What a camera has, in the sizes nearest to the mode."""
    found = []
    for pixels in node.formats(QueueKind.CAMERA):
        if pixels not in TAKEN:
            continue
        for least_width, least_height, most_width, most_height in node.sizes(pixels):
            width = max(least_width, min(most_width, mode.width))
            height = max(least_height, min(most_height, mode.height))
            found.append(Offer(pixels, width, height, node.rate(pixels, width, height)))
    return found


class UsbSensor:
    """A camera that streams. Raises HardwareError."""

    zooms = False

    def __init__(self, camera: UsbCamera, mode: VideoMode, config: CameraConfig | None = None, *,
                 own: bool = False) -> None:
        """``own``: its own H.264 is wanted where it makes the mode and can be steered. ``steering`` is None where not,
        and ``note`` says why."""
        self._camera = camera
        self.steering: Steering | None = None
        self.note = ""
        self.driver: Driver = M2mEncoder
        self._what = f"camera {camera.name} ({camera.id})"
        self._decoder: VideoCodecContext | None = None
        self._queue: Queue | None = None
        self._files: list[int] = []
        try:
            self._node = Node(camera.path)
        except OSError as error:
            raise refusal(self._what, camera.path, error) from error
        try:
            self._open(mode, own=own)
            self._adjust(config or CameraConfig())
        except OSError as error:
            self.close()
            raise refusal(self._what, camera.path, error) from error
        except HardwareError:
            self.close()
            raise

    def _open(self, mode: VideoMode, *, own: bool) -> None:
        node = self._node
        offers = self._offers(mode)
        if not offers:
            there = ", ".join(node.formats(QueueKind.CAMERA)) or "nothing"
            raise DeviceFormatError(f"{self._what} offers {there}, and none of {', '.join(TAKEN)}: take another")
        offer = (self._own(offers, mode) if own else None) or choose(offers, mode)
        self._format = node.set_format(QueueKind.CAMERA, offer.width, offer.height, offer.pixels)
        if self._format.pixels not in TAKEN:
            raise DeviceFormatError(f"{self._what} answers {offer.pixels} with {self._format.pixels}")
        with suppress(OSError):  # some have one rate and no choice
            node.set_rate(QueueKind.CAMERA, mode.fps)
        if self.steering is not None:
            self.steering.prepare(mode)
        shared = self._format.pixels in SHARED
        self._queue = Queue(node, QueueKind.CAMERA, SHARED_BUFFERS if shared else BUFFERS)
        if shared:
            with suppress(OSError):  # its driver shares no memory
                self._files += (self._queue.export(index) for index in range(self._queue.count))
        for index in range(self._queue.count):
            self._queue.put(index)
        self._queue.start()

    def _offers(self, mode: VideoMode) -> list[Offer]:
        return _offers_of(self._node, mode)

    def _own(self, offers: Sequence[Offer], mode: VideoMode) -> Offer | None:
        known = [offer for offer in offers if offer.pixels == "H264"]
        fitting = [offer for offer in known if (offer.width, offer.height) == (mode.width, mode.height)
                   and not 0 < offer.fps < mode.fps * SLOWER]
        self.steering = steering_of(self._node) if fitting else None
        if self.steering is not None:
            return fitting[0]
        if fitting:
            self.note = "its own H.264 is not used: key frames and bit rate cannot be asked for"
        elif known:
            self.note = f"its own H.264 is not used: it is not of {mode.width}x{mode.height} at {mode.fps} a second"
        return None

    def _adjust(self, config: CameraConfig) -> None:
        """Lens and exposure, as far as there are controls for them."""
        wanted = [(FOCUS_AUTO, int(config.focus == "auto"))]
        lens = self._node.control_range(FOCUS_ABSOLUTE)
        if lens is not None and config.focus == "fixed" and config.focus_distance_m == 0:
            wanted.append((FOCUS_ABSOLUTE, lens[0]))  # the only distance that cameras agree on
        if config.exposure_us:
            low, high = self._node.control_range(EXPOSURE_ABSOLUTE) or (0, 0)
            wanted += [(EXPOSURE_AUTO, EXPOSURE_MANUAL),
                       (EXPOSURE_ABSOLUTE, max(low, min(high, config.exposure_us // EXPOSURE_UNIT_US)))]
        else:
            wanted += [(EXPOSURE_AUTO, each) for each in reversed(EXPOSURE_AUTOMATIC)]
        for control, value in wanted:
            with suppress(OSError):  # most cameras have some of them
                self._node.set_control(control, value)

    @property
    def node(self) -> Node:
        return self._node

    @property
    def file(self) -> int:
        """Wakes (POLLIN) for ``take`` and ``units``."""
        return self._node.file

    @property
    def what(self) -> str:
        return self._what

    @property
    def layout(self) -> Format | None:
        """How its pictures lie in memory that can be shared; None: they do not."""
        return self._format if len(self._files) == self._buffers.count else None

    def take(self) -> Shot | None:
        """The newest picture, stamped in CLOCK_MONOTONIC; None: none yet, or a damaged one.

        Raises HardwareError when the camera is gone or fails.
        """
        if self._format.pixels == "H264":  # each refers to the one before
            newest = None
            for data, pts_us in self.units():
                picture = self._decoded(data)
                newest = newest if picture is None else _decoded_shot(picture, pts_us)
            return newest
        with self._failing():
            done = self._newest()
            if done is None:
                return None
            pts_us = captured_us(done, _now_us())
            if self._format.pixels not in DECODERS and not done.flags & FLAG_ERROR and done.used:
                return self._shot(done, pts_us)
            data = b"" if done.flags & FLAG_ERROR else self._buffers.memory(done.index)[: done.used]
            self._buffers.put(done.index)
        picture = self._decoded(data) if data else None
        return None if picture is None else _decoded_shot(picture, pts_us)

    def _shot(self, done: Done, pts_us: int) -> Shot:
        queue, layout = self._buffers, self._format

        def copy() -> VideoFrame | None:
            with memoryview(queue.memory(done.index)) as memory, memory[: done.used] as data:
                return picture_of(data, layout)

        def give_back() -> None:
            if self._queue is queue:
                with suppress(OSError):  # a camera that is gone is noticed by the next look
                    queue.put(done.index)

        return Shot(pts_us, copy, file=self._files[done.index] if self.layout is not None else -1, give_back=give_back)

    def _newest(self) -> Done | None:
        newest = None
        while (done := self._buffers.get()) is not None:
            if newest is not None:
                self._buffers.put(newest.index)  # we were late: an older one is of no use
            newest = done
        return newest

    def units(self) -> list[tuple[bytes, int]]:
        """What came since, each with its time, as it lies in the camera's own stream. Raises HardwareError."""
        found = []
        with self._failing():
            while (done := self._buffers.get()) is not None:
                if not done.flags & FLAG_ERROR and done.used > 0:
                    found.append((self._buffers.memory(done.index)[: done.used], captured_us(done, _now_us())))
                self._buffers.put(done.index)
        return found

    @property
    def _buffers(self) -> Queue:
        assert self._queue is not None  # noqa: S101 - only while open
        return self._queue

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO, errno.EPROTO, errno.ESHUTDOWN):
                raise DevicePulledError(f"{self._what} was unplugged: check its cable and its power") from error
            raise DeviceFailedError(f"{self._what} failed while it ran: {error.strerror}; plug it anew") from error

    def _decoded(self, data: bytes) -> VideoFrame | None:
        if self._decoder is None:
            decoder = CodecContext.create(DECODERS[self._format.pixels], "r")
            assert isinstance(decoder, VideoCodecContext)  # noqa: S101
            decoder.thread_count = 1
            decoder.options = {"flags": "low_delay"}
            self._decoder = decoder
        try:
            pictures = self._decoder.decode(av.Packet(data))
        except (av.FFmpegError, ValueError):
            return None  # torn on the bus: the next one is whole
        return pictures[-1] if pictures else None

    def close(self) -> None:
        if self._queue is not None:
            queue, self._queue = self._queue, None
            queue.close()
        for file in self._files:
            os.close(file)
        self._files.clear()
        self._node.close()


def _decoded_shot(picture: VideoFrame, pts_us: int) -> Shot:
    return Shot(pts_us, lambda: picture)


def _now_us() -> int:
    return time.monotonic_ns() // 1000
