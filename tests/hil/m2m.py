"""A stateful encoder driven by hand: the ioctls of ``linux/videodev2.h`` and nothing of the appliance.

What the test kernel's encoder delivers, and how it fails, is judged with this, so that the product's own encoder code
is not what vouches for it. One plane, MMAP, planar 4:2:0 unless told. Sizes are of a 64-bit kernel.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import struct
from ctypes import addressof, c_char
from dataclasses import dataclass
from pathlib import Path

OUTPUT, CAPTURE = 10, 9  # V4L2_BUF_TYPE_VIDEO_*_MPLANE: raw pictures in, H.264 out
MMAP = 1
BITRATE, REPEAT_HEADERS, FORCE_KEY, PERIOD, PROFILE = 0x9909CF, 0x9909E2, 0x9909E5, 0x990A66, 0x990A6B
CONSTRAINED_BASELINE = 1
FLAG_KEY, FLAG_ERROR, FLAG_LAST = 0x8, 0x40, 0x100000


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("V") << 8 | number


S_FMT, REQBUFS, QUERYBUF = _ioc(3, 5, 208), _ioc(3, 8, 20), _ioc(3, 9, 88)
QBUF, DQBUF = _ioc(3, 15, 88), _ioc(3, 17, 88)
STREAMON, STREAMOFF = _ioc(1, 18, 4), _ioc(1, 19, 4)
S_PARM, S_CTRL, ENCODER_CMD = _ioc(3, 22, 204), _ioc(3, 28, 8), _ioc(3, 77, 40)


@dataclass(frozen=True, slots=True)
class Unit:
    """One buffer that came out."""

    data: bytes
    pts_us: int
    flags: int

    @property
    def key(self) -> bool:
        return bool(self.flags & FLAG_KEY)

    @property
    def failed(self) -> bool:
        return bool(self.flags & FLAG_ERROR)


class M2MEncoder:
    """An open encoder node that streams. Raises OSError with the kernel's number, TimeoutError when it is silent."""

    def __init__(
        self, width: int, height: int, *, node: Path = Path("/dev/video11"), pixel_format: bytes = b"YU12",
        frames_per_second: int = 30, bits_per_second: int = 1_000_000, period: int = 60, buffers: int = 4,
    ) -> None:  # fmt: skip
        self._file = os.open(node, os.O_RDWR | os.O_NONBLOCK)
        self._maps: dict[int, list[mmap.mmap]] = {OUTPUT: [], CAPTURE: []}
        try:
            for control, value in ((BITRATE, bits_per_second), (PERIOD, period), (REPEAT_HEADERS, 1),
                                   (PROFILE, CONSTRAINED_BASELINE)):  # fmt: skip
                self.control(control, value)
            self.bytes_per_line, self.size = self._set_format(OUTPUT, width, height, pixel_format)
            self._set_format(CAPTURE, width, height, b"H264")
            self._ioctl(S_PARM, bytearray(struct.pack("<IIIII", OUTPUT, 0, 0, 1, frames_per_second).ljust(204, b"\0")))
            for kind in (OUTPUT, CAPTURE):
                self._map(kind, buffers)
            self._free = list(range(len(self._maps[OUTPUT])))
            for index in range(len(self._maps[CAPTURE])):
                self._queue(CAPTURE, index)
            for kind in (OUTPUT, CAPTURE):
                self._ioctl(STREAMON, bytearray(struct.pack("<i", kind)))
        except OSError:
            self.close()
            raise

    def control(self, number: int, value: int) -> None:
        self._ioctl(S_CTRL, bytearray(struct.pack("<Ii", number, value)))

    def put(self, picture: bytes, pts_us: int) -> None:
        """Queue a raw picture laid out as the format says (``bytes_per_line``, ``size``)."""
        index = self._free.pop()
        self._maps[OUTPUT][index][: len(picture)] = picture
        self._queue(OUTPUT, index, used=self.size, pts_us=pts_us)

    def get(self, seconds: float = 2.0) -> Unit:
        """The next access unit; its buffers go back."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        events = poll.poll(seconds * 1000)
        if not events:
            raise TimeoutError(f"the encoder gave nothing for {seconds} s")
        buffer, plane = self._buffer(CAPTURE, 0)
        self._ioctl(DQBUF, buffer)
        index, _, _, flags = struct.unpack_from("<IIII", buffer)
        second, microsecond = struct.unpack_from("<qq", buffer, 24)
        used = struct.unpack_from("<I", plane)[0]
        unit = Unit(self._maps[CAPTURE][index][:used], second * 1_000_000 + microsecond, flags)
        if not flags & FLAG_LAST:
            self._queue(CAPTURE, index)
        raw, _ = self._buffer(OUTPUT, 0)
        try:
            self._ioctl(DQBUF, raw)
            self._free.append(struct.unpack_from("<I", raw)[0])
        except BlockingIOError:
            pass  # an empty last buffer has no picture
        return unit

    def encode(self, picture: bytes, pts_us: int, seconds: float = 2.0) -> Unit:
        self.put(picture, pts_us)
        return self.get(seconds)

    def drain(self) -> None:
        """V4L2_ENC_CMD_STOP: what comes last carries FLAG_LAST."""
        self._ioctl(ENCODER_CMD, bytearray(struct.pack("<I", 1).ljust(40, b"\0")))

    def close(self) -> None:
        for maps in self._maps.values():
            for one in maps:
                one.close()
            maps.clear()
        os.close(self._file)

    def _set_format(self, kind: int, width: int, height: int, pixel_format: bytes) -> tuple[int, int]:
        asked = bytearray(208)
        struct.pack_into("<I4xII4sI", asked, 0, kind, width, height, pixel_format, 1)
        asked[188] = 1  # num_planes
        self._ioctl(S_FMT, asked)
        size, line = struct.unpack_from("<II", asked, 28)
        return line, size

    def _map(self, kind: int, count: int) -> None:
        asked = bytearray(struct.pack("<IIIII", count, kind, MMAP, 0, 0))
        self._ioctl(REQBUFS, asked)
        for index in range(struct.unpack_from("<I", asked)[0]):
            buffer, plane = self._buffer(kind, index)
            self._ioctl(QUERYBUF, buffer)
            length, offset = struct.unpack_from("<II", plane, 4)
            self._maps[kind].append(mmap.mmap(self._file, length, offset=offset))

    def _queue(self, kind: int, index: int, used: int = 0, pts_us: int = 0) -> None:
        buffer, plane = self._buffer(kind, index)
        struct.pack_into("<qq", buffer, 24, *divmod(pts_us, 1_000_000))
        struct.pack_into("<I", plane, 0, used)
        self._ioctl(QBUF, buffer)

    def _buffer(self, kind: int, index: int) -> tuple[bytearray, bytearray]:
        """A ``v4l2_buffer`` that points at its one ``v4l2_plane``."""
        plane = bytearray(64)
        buffer = bytearray(88)
        struct.pack_into("<II", buffer, 0, index, kind)
        address = _address(plane)
        struct.pack_into("<IQI", buffer, 60, MMAP, address, 1)
        return buffer, plane

    def _ioctl(self, number: int, argument: bytearray) -> None:
        fcntl.ioctl(self._file, number, argument)


def _address(buffer: bytearray) -> int:
    return addressof(c_char.from_buffer(buffer))
