"""What a screen shows, read from the kernel: the frame buffer of the first CRTC that is on (needs root)."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from pathlib import Path

from PIL import Image

__all__ = ["drop_master", "scanned_out", "take_master"]


def _number(nr: int, size: int) -> int:
    return 3 << 30 | size << 16 | ord("d") << 8 | nr


def _call(node: int, nr: int, data: bytearray) -> bytearray:
    fcntl.ioctl(node, _number(nr, len(data)), data)
    return data


def take_master(node: int) -> None:
    """DRM_IOCTL_SET_MASTER: from now on nobody else may set a mode."""
    fcntl.ioctl(node, ord("d") << 8 | 0x1E)


def drop_master(node: int) -> None:
    fcntl.ioctl(node, ord("d") << 8 | 0x1F)


def scanned_out(card: str = "/dev/dri/card0") -> Image.Image:
    """The picture at the connector, as RGB. Raises LookupError when all are off."""
    node = os.open(Path(card), os.O_RDWR | os.O_CLOEXEC)
    try:
        counts = struct.unpack_from("4Q8I", _call(node, 0xA0, bytearray(64)))
        crtcs = (ctypes.c_uint32 * counts[5])()
        request = bytearray(64)
        struct.pack_into("4Q4I", request, 0, 0, ctypes.addressof(crtcs), 0, 0, 0, counts[5], 0, 0)
        _call(node, 0xA0, request)
        for crtc in crtcs:
            state = bytearray(104)
            struct.pack_into("I", state, 12, crtc)
            buffer = struct.unpack_from("I", _call(node, 0xA1, state), 16)[0]
            if buffer:
                return _mapped(node, buffer)
        raise LookupError(f"{card}: nothing is shown")
    finally:
        os.close(node)


def _mapped(node: int, buffer: int) -> Image.Image:
    frame = bytearray(104)
    struct.pack_into("I", frame, 0, buffer)
    _call(node, 0xCE, frame)  # GETFB2
    width, height, form = struct.unpack_from("3I", frame, 4)
    handle, pitch = struct.unpack_from("I", frame, 20)[0], struct.unpack_from("I", frame, 36)[0]
    assert struct.pack("<I", form) in (b"XR24", b"AR24")
    dumb = bytearray(struct.pack("IIQ", handle, 0, 0))
    offset = struct.unpack_from("Q", _call(node, 0xB3, dumb), 8)[0]  # MODE_MAP_DUMB
    with mmap.mmap(node, pitch * height, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset) as pixels:
        return Image.frombytes("RGB", (width, height), pixels[: pitch * height], "raw", "BGRX", pitch, 1)
