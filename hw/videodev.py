"""Video4Linux by its ioctls: what ``linux/videodev2.h`` declares, as far as cameras and encoders need it.

Layouts are ctypes' native ones, so they hold on 64-bit and 32-bit kernels whose ``time_t`` is the C library's. Errors
are ``OSError`` with the kernel's number; ``EINTR`` does not occur (PEP 475 holds for ``fcntl.ioctl``).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = [
    "CAPTURE", "CAPTURE_MPLANE", "OUTPUT_MPLANE", "Done", "Queue", "VideoDevice", "fourcc", "nodes",
]  # fmt: skip

CAPTURE: Final = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE: a camera's pictures
CAPTURE_MPLANE: Final = 9  # what an encoder gives
OUTPUT_MPLANE: Final = 10  # what an encoder takes

CAP_VIDEO_CAPTURE: Final = 0x1
CAP_M2M_MPLANE: Final = 0x4000
CAP_DEVICE_CAPS: Final = 0x80000000

FLAG_KEYFRAME: Final = 0x8
FLAG_ERROR: Final = 0x40
FLAG_LAST: Final = 0x100000

CTRL_BITRATE: Final = 0x9909CF
CTRL_BITRATE_MODE: Final = 0x9909CE
CTRL_REPEAT_HEADERS: Final = 0x9909E2
CTRL_FORCE_KEYFRAME: Final = 0x9909E5
CTRL_I_PERIOD: Final = 0x990A66
CTRL_LEVEL: Final = 0x990A67
CTRL_PROFILE: Final = 0x990A6B

BITRATE_CONSTANT: Final = 1
PROFILE_CONSTRAINED_BASELINE: Final = 1
LEVELS: Final = {"3.1": 9, "4.0": 11, "4.2": 13}

ENCODER_STOP: Final = 1
MEMORY_MMAP: Final = 1


def fourcc(text: str) -> int:
    """``YU12`` as the number that the kernel uses."""
    return int.from_bytes(text.encode().ljust(4), "little")


class _Capability(ctypes.Structure):
    _fields_ = (
        ("driver", ctypes.c_char * 16), ("card", ctypes.c_char * 32), ("bus_info", ctypes.c_char * 32),
        ("version", ctypes.c_uint32), ("capabilities", ctypes.c_uint32), ("device_caps", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    )


class _FormatDescription(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint32), ("type", ctypes.c_uint32), ("flags", ctypes.c_uint32),
        ("description", ctypes.c_char * 32), ("pixelformat", ctypes.c_uint32), ("mbus_code", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    )


class _PlaneFormat(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("sizeimage", ctypes.c_uint32), ("bytesperline", ctypes.c_uint32), ("reserved", ctypes.c_uint16 * 6))


class _PixelsMplane(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (
        ("width", ctypes.c_uint32), ("height", ctypes.c_uint32), ("pixelformat", ctypes.c_uint32),
        ("field", ctypes.c_uint32), ("colorspace", ctypes.c_uint32), ("planes", _PlaneFormat * 8),
        ("num_planes", ctypes.c_uint8), ("flags", ctypes.c_uint8), ("encoding", ctypes.c_uint8),
        ("quantization", ctypes.c_uint8), ("xfer_func", ctypes.c_uint8), ("reserved", ctypes.c_uint8 * 7),
    )


class _FormatUnion(ctypes.Union):
    # The window format holds pointers: it aligns the union to theirs.
    _fields_ = (("pix_mp", _PixelsMplane), ("raw", ctypes.c_uint8 * 200), ("_align", ctypes.c_void_p))


class _Format(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint32), ("fmt", _FormatUnion))


class _RequestBuffers(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_uint32), ("type", ctypes.c_uint32), ("memory", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32), ("flags", ctypes.c_uint8), ("reserved", ctypes.c_uint8 * 3),
    )


class _Place(ctypes.Union):
    _fields_ = (
        ("offset", ctypes.c_uint32), ("userptr", ctypes.c_ulong), ("planes", ctypes.c_void_p), ("fd", ctypes.c_int32),
    )


class _Plane(ctypes.Structure):
    _fields_ = (
        ("bytesused", ctypes.c_uint32), ("length", ctypes.c_uint32), ("m", _Place), ("data_offset", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 11),
    )


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("microseconds", ctypes.c_long))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint32), ("type", ctypes.c_uint32), ("bytesused", ctypes.c_uint32),
        ("flags", ctypes.c_uint32), ("field", ctypes.c_uint32), ("timestamp", _Time),
        ("timecode", ctypes.c_uint8 * 16), ("sequence", ctypes.c_uint32), ("memory", ctypes.c_uint32), ("m", _Place),
        ("length", ctypes.c_uint32), ("reserved2", ctypes.c_uint32), ("request_fd", ctypes.c_int32),
    )


class _Control(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint32), ("value", ctypes.c_int32))


def _code(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("V") << 8 | number


_QUERYCAP: Final = _code(2, 0, ctypes.sizeof(_Capability))
_ENUM_FMT: Final = _code(3, 2, ctypes.sizeof(_FormatDescription))
_S_FMT: Final = _code(3, 5, ctypes.sizeof(_Format))
_REQBUFS: Final = _code(3, 8, ctypes.sizeof(_RequestBuffers))
_QUERYBUF: Final = _code(3, 9, ctypes.sizeof(_Buffer))
_QBUF: Final = _code(3, 15, ctypes.sizeof(_Buffer))
_DQBUF: Final = _code(3, 17, ctypes.sizeof(_Buffer))
_STREAMON: Final = _code(1, 18, 4)
_STREAMOFF: Final = _code(1, 19, 4)
_S_PARM: Final = _code(3, 22, 204)
_S_CTRL: Final = _code(3, 28, ctypes.sizeof(_Control))
_ENCODER_CMD: Final = _code(3, 77, 40)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the driver made of a format: pixels, and bytes of a row and of a whole picture (one plane)."""

    width: int
    height: int
    bytes_per_line: int
    size: int


@dataclass(frozen=True, slots=True)
class Done:
    """A buffer that the driver is done with; ``used`` bytes of it, from ``offset`` on, hold something."""

    index: int
    flags: int
    pts_us: int
    offset: int
    used: int


class VideoDevice:
    """An open V4L2 node, not blocking. ``close`` is idempotent."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            known = _Capability()
            self.ioctl(_QUERYCAP, known)
        except OSError:
            self.close()
            raise
        self.card = known.card.decode(errors="replace")
        self.driver = known.driver.decode(errors="replace")
        self._caps = known.device_caps if known.capabilities & CAP_DEVICE_CAPS else known.capabilities

    @property
    def captures(self) -> bool:
        """Whether it delivers pictures of its own: a camera, and no codec."""
        return bool(self._caps & CAP_VIDEO_CAPTURE)

    @property
    def transforms(self) -> bool:
        """Whether what goes in comes out changed (memory to memory, several planes): en- or decoder, scaler."""
        return bool(self._caps & CAP_M2M_MPLANE)

    def formats(self, kind: int) -> Iterator[str]:
        """The pixel formats of a queue as four characters, as the driver orders them."""
        for index in range(256):
            wanted = _FormatDescription(index=index, type=kind)
            try:
                self.ioctl(_ENUM_FMT, wanted)
            except OSError:  # EINVAL: past the last one, or there is no such queue
                return
            yield int(wanted.pixelformat).to_bytes(4, "little").decode("latin-1")

    def set_format(self, kind: int, width: int, height: int, pixels: str) -> Layout:
        """S_FMT with one plane. The driver adjusts what it cannot do: look at what comes back."""
        wanted = _Format(type=kind)
        wanted.fmt.pix_mp.width, wanted.fmt.pix_mp.height = width, height
        wanted.fmt.pix_mp.pixelformat, wanted.fmt.pix_mp.field, wanted.fmt.pix_mp.num_planes = fourcc(pixels), 1, 1
        self.ioctl(_S_FMT, wanted)
        got = wanted.fmt.pix_mp
        if got.pixelformat != fourcc(pixels) or got.num_planes != 1:
            raise OSError(22, f"{self.path} takes no {pixels} of {width}x{height} in one plane")
        return Layout(got.width, got.height, got.planes[0].bytesperline, got.planes[0].sizeimage)

    def set_rate(self, kind: int, frames_per_second: int) -> None:
        self.ioctl(_S_PARM, bytearray(struct.pack("=IIIII", kind, 0, 0, 1, frames_per_second).ljust(204, b"\0")))

    def set_control(self, number: int, value: int) -> None:
        self.ioctl(_S_CTRL, _Control(number, value))

    def stop_encoding(self) -> None:
        """ENCODER_CMD: what is queued is still encoded, and the last buffer carries FLAG_LAST."""
        self.ioctl(_ENCODER_CMD, bytearray(struct.pack("=I", ENCODER_STOP).ljust(40, b"\0")))

    def wait(self, seconds: float, events: int = select.POLLIN) -> bool:
        """Until one of ``events`` is there, or not within ``seconds``. Raises OSError (ENODEV) when it is gone."""
        poll = select.poll()
        poll.register(self._file, events)
        found = poll.poll(max(0.0, seconds) * 1000)
        if found and found[0][1] & select.POLLHUP:
            raise OSError(19, f"{self.path} was unplugged")
        return bool(found)

    def ioctl(self, code: int, argument: Any) -> None:
        fcntl.ioctl(self._file, code, argument)

    def map(self, length: int, offset: int) -> mmap.mmap:
        return mmap.mmap(self._file, length, offset=offset)

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class Queue:
    """One queue of a memory-to-memory device: mapped buffers of one plane. ``close`` before the device's."""

    def __init__(self, device: VideoDevice, kind: int, count: int) -> None:
        self._device = device
        self._kind = kind
        self._maps: list[mmap.mmap] = []
        asked = _RequestBuffers(count=count, type=kind, memory=MEMORY_MMAP)
        device.ioctl(_REQBUFS, asked)
        try:
            for index in range(asked.count):
                buffer, plane = self._buffer(index)
                device.ioctl(_QUERYBUF, buffer)
                self._maps.append(device.map(plane.length, plane.m.offset))
        except OSError:
            self.close()
            raise
        self.free = list(range(asked.count))

    def memory(self, index: int) -> mmap.mmap:
        return self._maps[index]

    def put(self, index: int, used: int = 0, pts_us: int = 0) -> None:
        buffer, plane = self._buffer(index)
        seconds, microseconds = divmod(pts_us, 1_000_000)
        buffer.timestamp.seconds, buffer.timestamp.microseconds = seconds, microseconds
        plane.bytesused = used
        self._device.ioctl(_QBUF, buffer)
        if index in self.free:
            self.free.remove(index)

    def get(self) -> Done:
        """Raises BlockingIOError when there is none, BrokenPipeError (EPIPE) after the last one of a drained queue."""
        buffer, plane = self._buffer(0)
        self._device.ioctl(_DQBUF, buffer)
        self.free.append(buffer.index)
        time = buffer.timestamp.seconds * 1_000_000 + buffer.timestamp.microseconds
        return Done(buffer.index, buffer.flags, time, plane.data_offset, plane.bytesused)

    def read(self, done: Done) -> bytes:
        """A copy of what it holds."""
        return self._maps[done.index][done.offset : done.used]

    def start(self) -> None:
        self._device.ioctl(_STREAMON, struct.pack("=i", self._kind))

    def close(self) -> None:
        """Stop streaming and unmap; the driver forgets what was queued."""
        with contextlib.suppress(OSError):  # the device is gone: so is the stream
            self._device.ioctl(_STREAMOFF, struct.pack("=i", self._kind))
        for one in self._maps:
            one.close()
        self._maps.clear()

    def _buffer(self, index: int) -> tuple[_Buffer, _Plane]:
        plane = _Plane()
        buffer = _Buffer(index=index, type=self._kind, memory=MEMORY_MMAP, length=1)
        buffer.m.planes = ctypes.addressof(plane)
        return buffer, plane  # the caller holds the plane: the buffer only points at it


def nodes(sysfs: str = "/sys") -> list[str]:
    """``/dev/video*`` in order of their numbers."""
    found = (Path(sysfs) / "class" / "video4linux").glob("video*")
    return [f"/dev/{one.name}" for one in sorted(found, key=lambda path: int(path.name.removeprefix("video") or 0))]
