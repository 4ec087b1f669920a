"""HDMI inputs by Video4Linux: whether a node is one, what it receives, and the EDID that tells what it may be sent.

Source: ``linux/videodev2.h``, ``linux/v4l2-dv-timings.h``; E-EDID 1.3 (VESA). Calls raise OSError.
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import Final

from hw.pi.v4l2 import Node, ioctl_number

__all__ = ["Signal", "describe_ourselves", "edid", "receive", "receives_hdmi", "signal_of"]

_u8, _u32, _u64 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64

CAN_TIMINGS: Final = 0x2
"""V4L2_IN_CAP_DV_TIMINGS: the input's format is that of whatever is connected."""

LACKING: Final = {
    errno.ENOLINK: "nothing is connected to the HDMI input, or it sends nothing",
    errno.ENOLCK: "what the HDMI input receives is not stable",
    errno.ERANGE: "what the HDMI input receives is of a format that it cannot take: choose 1280x720",
}


class _Input(ctypes.Structure):
    _fields_ = (
        ("index", _u32), ("name", _u8 * 32), ("type", _u32), ("audioset", _u32), ("tuner", _u32), ("std", _u64),
        ("status", _u32), ("capabilities", _u32), ("reserved", _u32 * 3),
    )  # fmt: skip


class _Timings(ctypes.Structure):
    """``v4l2_dv_timings`` with ``v4l2_bt_timings``."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (
        ("type", _u32), ("width", _u32), ("height", _u32), ("interlaced", _u32), ("polarities", _u32),
        ("pixelclock", _u64), ("horizontal", _u32 * 3), ("vertical", _u32 * 3), ("rest", _u8 * 80),
    )  # fmt: skip


class _Edid(ctypes.Structure):
    _fields_ = (("pad", _u32), ("start", _u32), ("blocks", _u32), ("reserved", _u32 * 5), ("edid", ctypes.c_void_p))


_ENUMINPUT: Final = ioctl_number(3, 26, _Input)
_G_INPUT: Final = ioctl_number(2, 38, ctypes.c_int)
_G_EDID: Final = ioctl_number(3, 40, _Edid)
_S_EDID: Final = ioctl_number(3, 41, _Edid)
_S_DV_TIMINGS: Final = ioctl_number(3, 87, _Timings)
_QUERY_DV_TIMINGS: Final = ioctl_number(2, 99, _Timings)


@dataclass(frozen=True, slots=True)
class Signal:
    """What an HDMI input receives."""

    width: int
    height: int
    fps: float


def receives_hdmi(node: Node) -> bool:
    """Whether the input in use is one whose format the other end decides."""
    current, entry = ctypes.c_int(), _Input()
    try:
        node.call(_G_INPUT, current)
        entry.index = current.value
        node.call(_ENUMINPUT, entry)
    except OSError:
        return False
    return bool(entry.capabilities & CAN_TIMINGS)


def signal_of(node: Node) -> Signal | str:
    """What is received now; in words why nothing is. What streams is not disturbed."""
    timings = _query(node)
    return timings if isinstance(timings, str) else _signal(timings)


def receive(node: Node) -> Signal | str:
    """Take what is received now as the format; in words why that cannot be. Only while nothing streams."""
    timings = _query(node)
    if isinstance(timings, str):
        return timings
    node.call(_S_DV_TIMINGS, timings)
    return _signal(timings)


def _query(node: Node) -> _Timings | str:
    timings = _Timings()
    try:
        node.call(_QUERY_DV_TIMINGS, timings)
    except OSError as error:
        if error.errno in LACKING:
            return LACKING[error.errno]
        raise
    return timings


def _signal(timings: _Timings) -> Signal:
    whole = (timings.width + sum(timings.horizontal)) * (timings.height + sum(timings.vertical))
    return Signal(timings.width, timings.height, timings.pixelclock / whole if whole else 0.0)


def describe_ourselves(node: Node) -> None:
    """Give the input an EDID where it has none: without one nothing is sent to it. Inputs without that are let be."""
    asked = _Edid()
    try:
        node.call(_G_EDID, asked)
        known = asked.blocks > 0
    except OSError as error:
        if error.errno != errno.ENODATA:
            return
        known = False
    if not known:
        data = ctypes.create_string_buffer(edid(), 128)
        node.call(_S_EDID, _Edid(blocks=1, edid=ctypes.addressof(data)))


def edid() -> bytes:
    """A screen of 1280x720 that takes nothing faster: two lanes of CSI-2 carry that, and content needs no more."""
    maker = (ord("E") - 64) << 10 | (ord("D") - 64) << 5 | (ord("C") - 64)
    head = b"\0\xff\xff\xff\xff\xff\xff\0" + maker.to_bytes(2, "big") + bytes((1, 0, 0, 0, 0, 0, 1, 2026 - 1990))
    # version 1.3; digital; size not known; gamma 2.2; RGB, the first timing is the preferred one
    basics = bytes((1, 3, 0x80, 0, 0, 120, 0x0A)) + bytes.fromhex("ee91a3544c99260f5054")  # and the primaries of sRGB
    known = bytes((0x21, 0x08, 0))  # 640x480, 800x600 and 1024x768 at 60 Hz
    preferred = bytes.fromhex("011d007251d01e206e28550000000000001e")  # CTA-861 format 4
    name = b"\0\0\0\xfc\0" + b"Edgecall\n".ljust(13)
    limits = b"\0\0\0\xfd\0" + bytes((23, 61, 15, 68, 8)) + b"\0\n".ljust(8)  # Hz, kHz, and up to 80 MHz
    unused = b"\0\0\0\x10\0".ljust(18, b"\0")
    block = head + basics + known + b"\1\1" * 8 + preferred + name + limits + unused + b"\0"
    return block + bytes((-sum(block) & 0xFF,))
