"""Video4Linux by ioctl: the calls and structures of ``linux/videodev2.h`` that cameras and encoders need.

The sizes of the structures follow the machine's own (``long`` and pointers), so 32-bit systems work too. Calls raise
OSError with the kernel's number; ``refusal`` makes words of it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, TypeVar

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    HardwareError,
)
from hw.host.holders import holders

__all__ = [
    "CAN_CAPTURE",
    "CAN_ENCODE",
    "CAN_STREAM",
    "FLAGS_CLOCK",
    "FLAG_ERROR",
    "FLAG_KEY",
    "FLAG_LAST",
    "FLAG_MONOTONIC",
    "Done",
    "Format",
    "Node",
    "Queue",
    "QueueKind",
    "fourcc",
    "ioctl_number",
    "nodes_named",
    "refusal",
    "set_control",
    "stop_encoder",
    "text",
]  # fmt: skip

CAN_CAPTURE: Final = 0x1
CAN_ENCODE: Final = 0x4000  # V4L2_CAP_VIDEO_M2M_MPLANE
CAN_STREAM: Final = 0x4000000
_DEVICE_CAPS: Final = 0x80000000

FLAG_KEY: Final = 0x8
FLAG_ERROR: Final = 0x40
FLAG_LAST: Final = 0x100000
FLAG_MONOTONIC: Final = 0x2000
FLAGS_CLOCK: Final = 0xE000
"""Which clock a buffer was stamped by: ``FLAG_MONOTONIC`` or another, whose times mean nothing here."""

_MAX_PLANES: Final = 8
_MOST: Final = 256
"""A driver that enumerates without end is cut off here."""

Shape = TypeVar("Shape", bound=ctypes.Structure)

_u8, _u32, _i32 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_int32


class QueueKind(IntEnum):
    """``v4l2_buf_type``: CAMERA is single-planar capture; CODED and RAW are both ends of an encoder."""

    CAMERA = 1
    CODED = 9
    RAW = 10


_MMAP: Final = 1
_DMABUF: Final = 4


# --- structures, named as in videodev2.h


class _Capability(ctypes.Structure):
    _fields_ = (
        ("driver", ctypes.c_char * 16), ("card", ctypes.c_char * 32), ("bus_info", ctypes.c_char * 32),
        ("version", _u32), ("capabilities", _u32), ("device_caps", _u32), ("reserved", _u32 * 3),
    )  # fmt: skip


class _FmtDesc(ctypes.Structure):
    _fields_ = (
        ("index", _u32), ("type", _u32), ("flags", _u32), ("description", ctypes.c_char * 32),
        ("pixelformat", _u32), ("mbus_code", _u32), ("reserved", _u32 * 3),
    )  # fmt: skip


class _FrmSizeEnum(ctypes.Structure):
    _fields_ = (
        ("index", _u32), ("pixel_format", _u32), ("type", _u32), ("values", _u32 * 6), ("reserved", _u32 * 2),
    )  # fmt: skip


class _FrmIvalEnum(ctypes.Structure):
    _fields_ = (
        ("index", _u32), ("pixel_format", _u32), ("width", _u32), ("height", _u32), ("type", _u32),
        ("values", _u32 * 6), ("reserved", _u32 * 2),
    )  # fmt: skip


class _PixFormat(ctypes.Structure):
    _fields_ = (
        ("width", _u32), ("height", _u32), ("pixelformat", _u32), ("field", _u32), ("bytesperline", _u32),
        ("sizeimage", _u32), ("colorspace", _u32), ("priv", _u32), ("flags", _u32), ("ycbcr_enc", _u32),
        ("quantization", _u32), ("xfer_func", _u32),
    )  # fmt: skip


class _PlanePixFormat(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("sizeimage", _u32), ("bytesperline", _u32), ("reserved", ctypes.c_uint16 * 6))


class _PixFormatMplane(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (
        ("width", _u32), ("height", _u32), ("pixelformat", _u32), ("field", _u32), ("colorspace", _u32),
        ("plane_fmt", _PlanePixFormat * _MAX_PLANES), ("num_planes", _u8), ("flags", _u8), ("ycbcr_enc", _u8),
        ("quantization", _u8), ("xfer_func", _u8), ("reserved", _u8 * 7),
    )  # fmt: skip


class _FormatUnion(ctypes.Union):
    # The pointer stands for v4l2_window, which is what aligns the union.
    _fields_ = (("pix", _PixFormat), ("pix_mp", _PixFormatMplane), ("raw", _u8 * 200), ("align", ctypes.c_void_p))


class _Format(ctypes.Structure):
    _fields_ = (("type", _u32), ("fmt", _FormatUnion))


class _StreamParm(ctypes.Structure):
    _fields_ = (
        ("type", _u32), ("capability", _u32), ("mode", _u32), ("numerator", _u32), ("denominator", _u32),
        ("raw", _u8 * 184),
    )  # fmt: skip


class _Control(ctypes.Structure):
    _fields_ = (("id", _u32), ("value", _i32))


class _QueryCtrl(ctypes.Structure):
    _fields_ = (
        ("id", _u32), ("type", _u32), ("name", ctypes.c_char * 32), ("minimum", _i32), ("maximum", _i32),
        ("step", _i32), ("default_value", _i32), ("flags", _u32), ("reserved", _u32 * 2),
    )  # fmt: skip


class _RequestBuffers(ctypes.Structure):
    _fields_ = (("count", _u32), ("type", _u32), ("memory", _u32), ("capabilities", _u32), ("flags", _u32))


class _PlaneMemory(ctypes.Union):
    _fields_ = (("mem_offset", _u32), ("userptr", ctypes.c_ulong), ("fd", _i32))


class _Plane(ctypes.Structure):
    _fields_ = (
        ("bytesused", _u32), ("length", _u32), ("m", _PlaneMemory), ("data_offset", _u32), ("reserved", _u32 * 11),
    )  # fmt: skip


class _BufferMemory(ctypes.Union):
    _fields_ = (("offset", _u32), ("userptr", ctypes.c_ulong), ("planes", ctypes.POINTER(_Plane)), ("fd", _i32))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("index", _u32), ("type", _u32), ("bytesused", _u32), ("flags", _u32), ("field", _u32),
        ("seconds", ctypes.c_long), ("microseconds", ctypes.c_long), ("timecode", _u32 * 4), ("sequence", _u32),
        ("memory", _u32), ("m", _BufferMemory), ("length", _u32), ("reserved2", _u32), ("request_fd", _i32),
    )  # fmt: skip


class _ExportBuffer(ctypes.Structure):
    _fields_ = (
        ("type", _u32), ("index", _u32), ("plane", _u32), ("flags", _u32), ("fd", _i32), ("reserved", _u32 * 11),
    )  # fmt: skip


class _EncoderCmd(ctypes.Structure):
    _fields_ = (("cmd", _u32), ("flags", _u32), ("raw", _u32 * 8))


def ioctl_number(direction: int, number: int, shape: type[ctypes.Structure] | type[ctypes.c_int]) -> int:
    return direction << 30 | ctypes.sizeof(shape) << 16 | ord("V") << 8 | number


_QUERYCAP: Final = ioctl_number(2, 0, _Capability)
_ENUM_FMT: Final = ioctl_number(3, 2, _FmtDesc)
_S_FMT: Final = ioctl_number(3, 5, _Format)
_REQBUFS: Final = ioctl_number(3, 8, _RequestBuffers)
_QUERYBUF: Final = ioctl_number(3, 9, _Buffer)
_QBUF: Final = ioctl_number(3, 15, _Buffer)
_EXPBUF: Final = ioctl_number(3, 16, _ExportBuffer)
_DQBUF: Final = ioctl_number(3, 17, _Buffer)
_STREAMON: Final = ioctl_number(1, 18, ctypes.c_int)
_STREAMOFF: Final = ioctl_number(1, 19, ctypes.c_int)
_S_PARM: Final = ioctl_number(3, 22, _StreamParm)
_G_CTRL: Final = ioctl_number(3, 27, _Control)
_S_CTRL: Final = ioctl_number(3, 28, _Control)
_QUERYCTRL: Final = ioctl_number(3, 36, _QueryCtrl)
_ENUM_FRAMESIZES: Final = ioctl_number(3, 74, _FrmSizeEnum)
_ENUM_FRAMEINTERVALS: Final = ioctl_number(3, 75, _FrmIvalEnum)
_ENCODER_CMD: Final = ioctl_number(3, 77, _EncoderCmd)

_CMD_STOP: Final = 1
_FIELD_NONE: Final = 1
_DISABLED: Final = 0x1  # V4L2_CTRL_FLAG_DISABLED


def fourcc(text: str) -> int:
    return int.from_bytes(text.encode(), "little")


def text(code: int) -> str:
    return code.to_bytes(4, "little").decode("latin-1")


@dataclass(frozen=True, slots=True)
class Format:
    """What a queue holds: size in pixels, and of its (only) plane the bytes of a line and of a picture."""

    width: int
    height: int
    pixels: str  # four characters of videodev2.h
    line: int
    size: int


@dataclass(frozen=True, slots=True)
class Done:
    """A buffer that came back. ``pts_us`` as the driver stamped it."""

    index: int
    used: int
    flags: int
    pts_us: int


class Node:
    """An open V4L2 node, never blocking. Raises OSError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def capabilities(self) -> tuple[int, str]:
        """Capability bits of this node, and the name of the card."""
        cap = _Capability()
        self.call(_QUERYCAP, cap)
        bits = cap.device_caps if cap.capabilities & _DEVICE_CAPS else cap.capabilities
        return bits, cap.card.decode(errors="replace")

    def formats(self, kind: QueueKind) -> list[str]:
        found = self._enumerate(_ENUM_FMT, lambda index: _FmtDesc(index=index, type=kind))
        return [text(desc.pixelformat) for desc in found]

    def sizes(self, pixels: str) -> list[tuple[int, int, int, int]]:
        """Smallest and largest width and height of each size, or range of sizes, that is offered."""
        found = []
        code = fourcc(pixels)
        for size in self._enumerate(_ENUM_FRAMESIZES, lambda index: _FrmSizeEnum(index=index, pixel_format=code)):
            v = size.values
            found.append((v[0], v[1], v[0], v[1]) if size.type == 1 else (v[0], v[3], v[1], v[4]))
        return found

    def rate(self, pixels: str, width: int, height: int) -> float:
        """The fastest frame rate offered at a size; 0: not told."""
        best, code = 0.0, fourcc(pixels)
        for ival in self._enumerate(_ENUM_FRAMEINTERVALS, lambda index: _FrmIvalEnum(
                index=index, pixel_format=code, width=width, height=height)):
            best = max(best, ival.values[1] / max(1, ival.values[0]))  # of a range the first is the shortest
        return best

    def _enumerate(self, number: int, make: Callable[[int], Shape]) -> Iterator[Shape]:
        for index in range(_MOST):
            entry = make(index)
            try:
                self.call(number, entry)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.ENOTTY):  # the end; or nothing of that kind
                    return
                raise
            yield entry

    def set_format(self, kind: QueueKind, width: int, height: int, pixels: str, size: int = 0) -> Format:
        """Ask for a format (``size``: bytes of a coded unit at most); the driver answers with the nearest it can."""
        asked = _Format(type=kind)
        if kind is QueueKind.CAMERA:
            pix = asked.fmt.pix
            pix.width, pix.height, pix.pixelformat, pix.field = width, height, fourcc(pixels), _FIELD_NONE
            self.call(_S_FMT, asked)
            return Format(pix.width, pix.height, text(pix.pixelformat), pix.bytesperline, pix.sizeimage)
        pix_mp = asked.fmt.pix_mp
        pix_mp.width, pix_mp.height, pix_mp.pixelformat, pix_mp.num_planes = width, height, fourcc(pixels), 1
        pix_mp.field = _FIELD_NONE
        plane = pix_mp.plane_fmt[0]
        plane.sizeimage = size
        self.call(_S_FMT, asked)
        return Format(pix_mp.width, pix_mp.height, text(pix_mp.pixelformat), plane.bytesperline, plane.sizeimage)

    def set_rate(self, kind: QueueKind, fps: int) -> float:
        """Ask for a frame rate; what the driver will do, 0 when it does not tell."""
        parm = _StreamParm(type=kind, numerator=1, denominator=fps)
        self.call(_S_PARM, parm)
        return float(parm.denominator / parm.numerator) if parm.numerator else 0.0

    def control(self, control: int) -> int:
        """Its value now."""
        asked = _Control(id=control)
        self.call(_G_CTRL, asked)
        return int(asked.value)

    def set_control(self, control: int, value: int) -> None:
        set_control(self.file, control, value)

    def control_range(self, control: int) -> tuple[int, int] | None:
        """Smallest and largest value; None: this node has no such control."""
        query = _QueryCtrl(id=control)
        try:
            self.call(_QUERYCTRL, query)
        except OSError:
            return None
        return None if query.flags & _DISABLED else (query.minimum, query.maximum)

    def stop_encoder(self) -> None:
        """See ``stop_encoder``."""
        stop_encoder(self.file)

    def call(self, number: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        fcntl.ioctl(self.file, number, argument)


def set_control(file: int, control: int, value: int) -> None:
    """Of an open node. Raises OSError."""
    fcntl.ioctl(file, _S_CTRL, _Control(id=control, value=value))


def stop_encoder(file: int) -> None:
    """Ask for what is still inside: it ends with a buffer that has FLAG_LAST. Raises OSError."""
    fcntl.ioctl(file, _ENCODER_CMD, _EncoderCmd(cmd=_CMD_STOP))


class Queue:
    """The buffers of one direction, mapped here. Raises OSError."""

    def __init__(self, node: Node, kind: QueueKind, count: int, *, foreign: bool = False) -> None:
        """``foreign``: their memory is another device's (DMABUF), and nothing is mapped."""
        self._node, self._kind = node, kind
        self._memory = _DMABUF if foreign else _MMAP
        self._maps: list[mmap.mmap] = []
        request = _RequestBuffers(count=count, type=kind, memory=self._memory)
        node.call(_REQBUFS, request)
        self.count = int(request.count)
        try:
            for index in range(0 if foreign else self.count):
                self._map(index)
        except BaseException:
            self.close()
            raise

    def _map(self, index: int) -> None:
        buffer, plane = self._buffer(index)
        self._node.call(_QUERYBUF, buffer)
        single = self._kind is QueueKind.CAMERA
        length, offset = (buffer.length, buffer.m.offset) if single else (plane.length, plane.m.mem_offset)
        self._maps.append(mmap.mmap(self._node.file, length, offset=offset))

    def _buffer(self, index: int) -> tuple[_Buffer, _Plane]:
        buffer, plane = _Buffer(index=index, type=self._kind, memory=self._memory), _Plane()
        if self._kind is not QueueKind.CAMERA:
            buffer.m.planes, buffer.length = ctypes.pointer(plane), 1
        return buffer, plane

    def memory(self, index: int) -> mmap.mmap:
        return self._maps[index]

    def export(self, index: int) -> int:
        """A descriptor of a buffer's memory, for another device's queue; the caller closes it."""
        asked = _ExportBuffer(type=self._kind, index=index, flags=os.O_CLOEXEC | os.O_RDWR)
        self._node.call(_EXPBUF, asked)
        return int(asked.fd)

    def put(self, index: int, *, used: int = 0, pts_us: int = 0, file: int = -1) -> None:
        """Give a buffer to the driver: empty, or with ``used`` bytes of a picture. ``file``: a foreign one's memory."""
        buffer, plane = self._buffer(index)
        buffer.field = _FIELD_NONE
        buffer.seconds, buffer.microseconds = divmod(pts_us, 1_000_000)
        plane.bytesused = used
        if self._memory == _DMABUF and self._kind is QueueKind.CAMERA:
            buffer.m.fd = file
        elif self._memory == _DMABUF:
            plane.m.fd, plane.length = file, used
        self._node.call(_QBUF, buffer)

    def get(self) -> Done | None:
        """A buffer that the driver is done with; None: none yet."""
        buffer, plane = self._buffer(0)
        try:
            self._node.call(_DQBUF, buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EPIPE:  # after the last buffer of a drain
                return None
            raise
        used = buffer.bytesused if self._kind is QueueKind.CAMERA else plane.bytesused
        return Done(buffer.index, used, buffer.flags, buffer.seconds * 1_000_000 + buffer.microseconds)

    def start(self) -> None:
        self._node.call(_STREAMON, ctypes.c_int(self._kind))

    def close(self) -> None:
        """Stop and give the memory back; a device that is gone does not mind."""
        with suppress(OSError):
            self._node.call(_STREAMOFF, ctypes.c_int(self._kind))
        for one in self._maps:
            with suppress(BufferError):  # somebody still looks at it: unmapped with the last view
                one.close()
        self._maps.clear()
        with suppress(OSError):
            self._node.call(_REQBUFS, _RequestBuffers(count=0, type=self._kind, memory=self._memory))


def nodes_named(sysfs: str = "/sys") -> Sequence[tuple[str, str]]:
    """Path and name of every V4L2 node, in order of their numbers."""
    found = []
    for folder in (Path(sysfs) / "class/video4linux").glob("video*"):
        with suppress(OSError, ValueError):  # unplugged while we look
            name = (folder / "name").read_text().strip()
            found.append((int(folder.name.removeprefix("video")), f"/dev/{folder.name}", name))
    return [(path, name) for _, path, name in sorted(found)]


def refusal(what: str, path: str, error: OSError) -> HardwareError:
    """The error of opening or driving ``what`` at ``path``, in words of who can act."""
    if error.errno == errno.EBUSY:
        holder = holders(path) or "a program of another user (fuser -v shows it to root)"
        return DeviceBusyError(f"{what} is held by {holder}: end it")
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DeviceMissingError(f"{what} is not there: check cable and power")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeviceDeniedError(f"{what} ({path}) may not be opened: add the user to the group video")
    if error.errno in (errno.EINVAL, errno.ENOTTY):
        return DeviceFormatError(f"{what} ({path}) does not do what is asked of it: {error.strerror}")
    if error.errno == errno.ENOMEM:
        return DeviceFailedError(f"{what} has no memory left: raise cma= on the kernel's command line, or choose a "
                                 "smaller picture")
    return DeviceFailedError(f"{what} ({path}): {error.strerror}")
