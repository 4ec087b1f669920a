"""How a camera that makes H.264 by itself is steered: by controls of Video4Linux, or by the extension unit of the USB
Video Class's H.264 payload (version 1.00), which uvcvideo passes through but does not know."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from hw.api import VideoMode
from hw.pi.v4l2 import Node

__all__ = ["Steering", "extension_unit", "steering_of"]

BITRATE, FORCE_KEY, PROFILE, B_FRAMES, REPEAT_HEADERS = 0x9909CF, 0x9909E5, 0x990A6B, 0x9909CA, 0x9909E2
CONSTRAINED_BASELINE: Final = 1

H264_UNIT: Final = bytes.fromhex("41769ea204dee3478b2bf4341aff003b")
"""GUID {A29E7641-DE04-47E3-8B2B-F4341AFF003B} as it lies in a descriptor."""

_CS_INTERFACE: Final = 0x24
_EXTENSION_UNIT: Final = 6
_PROBE, _COMMIT, _PICTURE_TYPE, _BITRATE_LAYERS = 1, 2, 9, 14
_SET_CUR, _GET_CUR, _GET_LEN = 0x01, 0x81, 0x85
_IDR_WITH_HEADERS: Final = 2
_CONFIG: Final = 46
"""Bytes of what is probed and committed; longer ones are of a later version and begin the same."""
_PROFILE_CONSTRAINED_BASELINE: Final = 0x4240


class Steering(Protocol):
    """The controls of one camera. All raise OSError."""

    def prepare(self, mode: VideoMode) -> None:
        """Ask for constrained baseline without B pictures, at the mode's rates; before it streams."""

    def request_keyframe(self) -> None: ...
    def set_bitrate(self, bits_per_second: int) -> None: ...


def steering_of(node: Node, sysfs: str = "/sys") -> Steering | None:
    """None: key frames and bit rate cannot both be asked for."""
    if all(node.control_range(control) is not None for control in (FORCE_KEY, BITRATE)):
        return _Controls(node)
    interface = Path(sysfs) / "class/video4linux" / Path(node.path).name / "device"
    with suppress(OSError):
        unit = extension_unit((interface.resolve(strict=True).parent / "descriptors").read_bytes())
        if unit is not None:
            steering = _Unit(node, unit)
            if steering.complete:
                return steering
    return None


def extension_unit(descriptors: bytes) -> int | None:
    """The number of the H.264 unit in a USB device's descriptors; None: there is none, or they are cut."""
    for one in _descriptors(descriptors):
        if one[1:3] == bytes((_CS_INTERFACE, _EXTENSION_UNIT)) and one[4:20] == H264_UNIT:
            return one[3]
    return None


def _descriptors(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 2 <= len(data) and 2 <= data[at] <= len(data) - at:
        yield data[at : at + data[at]]
        at += data[at]


class _Controls:
    def __init__(self, node: Node) -> None:
        self._node = node

    def prepare(self, mode: VideoMode) -> None:
        for control, value in ((PROFILE, CONSTRAINED_BASELINE), (B_FRAMES, 0), (REPEAT_HEADERS, 1)):
            with suppress(OSError):  # what it has no control for is judged by what it delivers
                self._node.set_control(control, value)
        self.set_bitrate(mode.bitrate)

    def request_keyframe(self) -> None:
        self._node.set_control(FORCE_KEY, 1)

    def set_bitrate(self, bits_per_second: int) -> None:
        low, high = self._node.control_range(BITRATE) or (bits_per_second, bits_per_second)
        self._node.set_control(BITRATE, max(low, min(high, bits_per_second)))


class _Query(ctypes.Structure):
    """``uvc_xu_control_query`` of ``linux/uvcvideo.h``."""

    _fields_ = (
        ("unit", ctypes.c_uint8), ("selector", ctypes.c_uint8), ("query", ctypes.c_uint8), ("size", ctypes.c_uint16),
        ("data", ctypes.c_void_p),
    )  # fmt: skip


_CTRL_QUERY: Final = 3 << 30 | ctypes.sizeof(_Query) << 16 | ord("u") << 8 | 0x21


class _Unit:
    def __init__(self, node: Node, unit: int) -> None:
        self._node, self._unit = node, unit
        self._sizes: dict[int, int] = {}

    @property
    def complete(self) -> bool:
        """Whether key frames and bit rate are among what it knows."""
        return self._size(_PICTURE_TYPE) == 4 and self._size(_BITRATE_LAYERS) == 10

    def prepare(self, mode: VideoMode) -> None:
        with suppress(OSError):  # a camera that has one profile and no choice
            size = self._size(_PROBE)
            if size >= _CONFIG:
                self._commit(bytearray(self._query(_PROBE, _GET_CUR, bytes(size))), mode)
        self.set_bitrate(mode.bitrate)

    def _commit(self, config: bytearray, mode: VideoMode) -> None:
        struct.pack_into("<II", config, 0, 10_000_000 // mode.fps, mode.bitrate)
        struct.pack_into("<HH", config, 12, mode.width, mode.height)
        struct.pack_into("<H", config, 20, _PROFILE_CONSTRAINED_BASELINE)
        config[35] = 0  # entropy coding: CAVLC
        config[37] = 0  # pictures that are reordered
        self._query(_PROBE, _SET_CUR, bytes(config))
        self._query(_COMMIT, _SET_CUR, self._query(_PROBE, _GET_CUR, bytes(config)))

    def request_keyframe(self) -> None:
        self._query(_PICTURE_TYPE, _SET_CUR, struct.pack("<HH", 0, _IDR_WITH_HEADERS))

    def set_bitrate(self, bits_per_second: int) -> None:
        self._query(_BITRATE_LAYERS, _SET_CUR, struct.pack("<HII", 0, bits_per_second * 3 // 2, bits_per_second))

    def _size(self, selector: int) -> int:
        """Bytes of what is under ``selector``; 0: nothing."""
        if selector not in self._sizes:
            try:
                self._sizes[selector] = int.from_bytes(self._query(selector, _GET_LEN, bytes(2)), "little")
            except OSError:
                self._sizes[selector] = 0
        return self._sizes[selector]

    def _query(self, selector: int, query: int, data: bytes) -> bytes:
        memory = ctypes.create_string_buffer(data, len(data))
        self._node.call(_CTRL_QUERY, _Query(self._unit, selector, query, len(data),
                                            ctypes.cast(memory, ctypes.c_void_p)))
        return memory.raw
