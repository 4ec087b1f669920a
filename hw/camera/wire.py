"""How the board and its camera process talk: framed messages over two pipes.

A message is a 4 byte big-endian length (of what follows), one type byte and the payload. ``CONTROL`` and ``EVENT``
carry a JSON object with the key ``do`` respectively ``event``; ``FRAME`` carries FRAME_HEAD and one access unit;
``PREVIEW`` carries PREVIEW_HEAD and a picture in I420; ``PICTURE`` carries a JPEG, ``SNAPSHOT`` a 4 byte request
number and a JPEG.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = [
    "CONTROL", "EVENT", "FRAME", "FRAME_HEAD", "MAX_MESSAGE", "PICTURE", "PREVIEW", "PREVIEW_HEAD", "SNAPSHOT",
    "Unframer", "message", "pack",
]  # fmt: skip

CONTROL: Final = 0x01  # to the process
PICTURE: Final = 0x02  # to the process: a JPEG lent from elsewhere
FRAME: Final = 0x11  # to the board
EVENT: Final = 0x12
SNAPSHOT: Final = 0x13
PREVIEW: Final = 0x14

FRAME_HEAD: Final = struct.Struct(">IBQi")
"""Number of the start it belongs to, 1 for a key frame, capture time and time in the encoder in microseconds (-1: it
was not encoded here)."""

PREVIEW_HEAD: Final = struct.Struct(">IHH")
"""Number of the start it belongs to, width and height in pixels."""

MAX_MESSAGE: Final = 8 * 1024 * 1024
"""Bytes; an intra picture of 1080p at the best quality stays far below. More means a broken stream."""

_HEAD: Final = struct.Struct(">IB")


def pack(kind: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload) + 1, kind) + payload


def message(kind: int, fields: Mapping[str, Any]) -> bytes:
    return pack(kind, json.dumps(fields, separators=(",", ":")).encode())


class Unframer:
    """Cuts a byte stream into messages. ``feed`` raises ValueError on a length that cannot be."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._buffer)
            if not 1 <= length <= MAX_MESSAGE:
                raise ValueError(f"camera pipe: message of {length} bytes")
            if len(self._buffer) < 4 + length:
                return
            payload = bytes(self._buffer[_HEAD.size : 4 + length])
            del self._buffer[: 4 + length]
            yield kind, payload
