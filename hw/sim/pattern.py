"""The test picture: a door scene that moves, carrying a frame counter and the capture clock that a machine can read.

Layout of the machine-readable band (so that a browser test reads it from a canvas as well)
------------------------------------------------------------------------------------------
The picture is divided into a grid of 20 columns and 16 rows, whatever its size in pixels. The band takes columns
1 to 18 and rows 1 to 4. Columns 1 and 18 are references: column 1 is white, black, white, black from top to
bottom, column 18 the inverse. Columns 2 to 17 hold 64 bits, row by row, most significant first, white is 1:

==========  =====================================================================
bits 0-23   frame counter, modulo 2**24
bits 24-55  capture time in milliseconds of CLOCK_MONOTONIC, modulo 2**32
bits 56-63  CRC-8 (polynomial 0x07, start 0) over the seven bytes before it
==========  =====================================================================

Read it by averaging a few pixels around the centre of each cell, comparing with the middle between the darkest
and the brightest reference, and checking the references and the CRC. It survives 720p30 H.264 at 300 kbit/s and
scaling down to 160 pixels of width. (A starved encoder repeats a picture: then the old mark is what is seen.)

In JavaScript, with ``d`` from ``getImageData(0, 0, w, h).data``::

    const at = (c, r) => d[4 * (Math.floor((r + .5) * h / 16) * w + Math.floor((c + .5) * w / 20)) + 1];
    const bits = []; for (let r = 1; r < 5; r++) for (let c = 2; c < 18; c++) bits.push(at(c, r) > 127 ? 1 : 0);

No numpy here: whole rows are copied as bytes, which is what keeps a 720p30 picture below a millisecond.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import Final

__all__ = ["Mark", "PatternPainter", "Planes", "read"]

COLUMNS: Final = 20
ROWS: Final = 16
BAND_TOP: Final = 1
BAND_ROWS: Final = 4
DATA_COLUMNS: Final = 16

BLACK: Final = 16
WHITE: Final = 235

Planes = tuple[bytes, bytes, bytes]
"""Y, U and V of 4:2:0, rows without padding."""

_Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """What the band says: ``counter`` modulo 2**24, ``clock_ms`` monotonic milliseconds modulo 2**32."""

    counter: int
    clock_ms: int


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1) ^ 0x07 if crc & 0x80 else crc << 1
        crc &= 0xFF
    return crc


def _bits(mark: Mark) -> str:
    body = (mark.counter % (1 << 24)).to_bytes(3, "big") + (mark.clock_ms % (1 << 32)).to_bytes(4, "big")
    return f"{int.from_bytes(body + bytes([_crc8(body)]), 'big'):064b}"


def read(luma: bytes | bytearray | memoryview, width: int, height: int, stride: int = 0) -> Mark | None:
    """Read the band from a luma plane (or the start of an I420 picture); None when there is no valid band.

    ``stride`` is the length of a row in bytes where rows are padded; 0 means ``width``.
    """
    stride = stride or width
    radius = max(1, min(width // COLUMNS, height // ROWS) // 6)

    def level(column: int, row: int) -> int:
        x, y = (2 * column + 1) * width // (2 * COLUMNS), (2 * row + 1) * height // (2 * ROWS)
        total = 0
        for line in range(y - radius, y + radius + 1):
            total += sum(luma[line * stride + x - radius : line * stride + x + radius + 1])
        return total // (2 * radius + 1) ** 2

    if width < COLUMNS * 4 or height < ROWS * 4:
        return None
    whites: list[int] = []
    blacks: list[int] = []
    bits: list[int] = []
    levels = [[level(c, r) for c in range(1, 19)] for r in range(BAND_TOP, BAND_TOP + BAND_ROWS)]
    for number, row in enumerate(levels):
        left, right = (whites, blacks) if number % 2 == 0 else (blacks, whites)
        left.append(row[0])
        right.append(row[-1])
        bits += row[1:-1]
    if min(whites) - max(blacks) < 40:
        return None
    middle = (min(whites) + max(blacks)) // 2
    value = 0
    for bit in bits:
        value = value << 1 | (bit > middle)
    packed = value.to_bytes(8, "big")
    if _crc8(packed[:7]) != packed[7]:
        return None
    return Mark(int.from_bytes(packed[:3], "big"), int.from_bytes(packed[3:7], "big"))


# --- drawing --------------------------------------------------------------------------------------------------------

_GLYPHS: Final = {
    "0": "0e11131519110e", "1": "040c040404040e", "2": "0e11010204081f", "3": "1f02040201110e",
    "4": "02060a121f0202", "5": "1f101e0101110e", "6": "0608101e11110e", "7": "1f010204080808",
    "8": "0e11110e11110e", "9": "0e11110f01020c", ":": "000c0c000c0c00", ".": "00000000000c0c",
    " ": "00000000000000",
}  # fmt: skip
"""Five by seven dots per sign, one byte per row."""

_WALL: Final[_Colour] = (92, 122, 134)
_WALL_DARK: Final[_Colour] = (70, 122, 134)
_DOOR: Final[_Colour] = (58, 120, 150)
_FRAME: Final[_Colour] = (150, 124, 130)
_GLASS: Final[_Colour] = (128, 146, 112)
_SKIN: Final[_Colour] = (166, 108, 152)
_HAIR: Final[_Colour] = (44, 124, 136)
_COAT: Final[_Colour] = (96, 152, 108)
_COAT_DARK: Final[_Colour] = (78, 150, 110)
_BRASS: Final[_Colour] = (170, 92, 146)
_BAND: Final[_Colour] = (34, 128, 128)


class _Canvas:
    """Three planes with rectangles and discs, drawn row by row."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.planes = (
            bytearray(width * height),
            bytearray((width // 2) * (height // 2)),
            bytearray((width // 2) * (height // 2)),
        )

    def span(self, y: int, x0: int, x1: int, colour: _Colour) -> None:
        """One row of luma, and every second one of chroma, clipped to the picture."""
        x0, x1 = max(0, x0), min(self.width, x1)
        if not 0 <= y < self.height or x1 <= x0:
            return
        base = y * self.width
        self.planes[0][base + x0 : base + x1] = bytes([colour[0]]) * (x1 - x0)
        if y % 2 == 0:
            half, c0, c1 = (y // 2) * (self.width // 2), x0 // 2, x1 // 2
            for plane, value in zip(self.planes[1:], colour[1:], strict=True):
                plane[half + c0 : half + c1] = bytes([value]) * (c1 - c0)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: _Colour) -> None:
        for y in range(int(y0), int(y1)):
            self.span(y, int(x0), int(x1), colour)

    def disc(self, cx: float, cy: float, rx: float, ry: float, colour: _Colour) -> None:
        for y in range(int(cy - ry), int(cy + ry) + 1):
            share = 1.0 - ((y - cy) / ry) ** 2
            if share > 0.0:
                half = rx * math.sqrt(share)
                self.span(y, int(cx - half), int(cx + half), colour)


class PatternPainter:
    """Paints pictures of one size. ``width`` and ``height`` must be even and at least 160 by 90."""

    def __init__(self, width: int, height: int) -> None:
        if width % 2 or height % 2 or width < 160 or height < 90:
            raise ValueError(f"test picture: size {width}x{height} must be even and at least 160x90")
        self._width, self._height = width, height
        self._floor_top = height * 13 // 16 // 2 * 2
        self._ground = self._paint_ground()
        # Grain that never repeats keeps an encoder busy the way a sensor's noise does: without it a flat scene
        # would not need the bitrate it is given, and nothing could be measured by changing it.
        seed = random.Random(7)  # noqa: S311 - looks, not secrets
        table = bytes(58 + value % 29 + value % 13 for value in range(256))
        self._grain = seed.randbytes(width * (height - self._floor_top) + 4096).translate(table)
        self._dice = seed
        self._dot = max(1, height // 240)
        self._cells = {bit: bytes([WHITE if bit == "1" else BLACK]) for bit in "01"}

    def _paint_ground(self) -> Planes:
        canvas = _Canvas(self._width, self._height)
        w, h = self._width, self._height
        for y in range(h):
            shade = _WALL[0] - 26 * y // h
            canvas.span(y, 0, w, (shade, _WALL[1], _WALL[2]))
        for row in range(6, 13):  # courses of the wall
            canvas.rect(0, h * row / 16, w, h * row / 16 + max(1, h // 360), _WALL_DARK)
        canvas.rect(w * 0.60, h * 0.345, w * 0.86, self._floor_top, _FRAME)
        canvas.rect(w * 0.615, h * 0.37, w * 0.845, self._floor_top, _DOOR)
        canvas.rect(w * 0.64, h * 0.41, w * 0.82, h * 0.56, _GLASS)
        canvas.disc(w * 0.635, h * 0.65, w * 0.006, h * 0.011, _BRASS)
        canvas.rect(w * 0.90, h * 0.50, w * 0.935, h * 0.62, _FRAME)
        canvas.disc(w * 0.9175, h * 0.585, w * 0.008, h * 0.014, _BRASS)
        canvas.rect(w / COLUMNS * 0.75, h / ROWS * 0.75, w / COLUMNS * 19.25, h / ROWS * 5.25, _BAND)
        canvas.rect(0, self._floor_top, w, h, (74, 126, 132))
        luma, blue, red = canvas.planes
        return bytes(luma), bytes(blue), bytes(red)

    def paint(self, counter: int, clock_us: int) -> Planes:
        """The picture of this frame, captured at ``clock_us`` (CLOCK_MONOTONIC, microseconds)."""
        canvas = _Canvas.__new__(_Canvas)
        canvas.width, canvas.height = self._width, self._height
        canvas.planes = (bytearray(self._ground[0]), bytearray(self._ground[1]), bytearray(self._ground[2]))
        self._paint_grain(canvas)
        self._paint_visitor(canvas, clock_us)
        self._paint_band(canvas, Mark(counter, clock_us // 1000))
        wall = (clock_us + time.time_ns() // 1000 - time.monotonic_ns() // 1000) / 1e6  # for people: the wall clock
        words = f"{time.strftime('%H:%M:%S', time.localtime(wall))}.{int(wall * 10) % 10}"
        self._paint_text(canvas, words, self._width // 20, self._height * 6 // 16)
        y, u, v = canvas.planes
        return bytes(y), bytes(u), bytes(v)

    def _paint_grain(self, canvas: _Canvas) -> None:
        start = self._floor_top * self._width
        size = self._width * (self._height - self._floor_top)
        offset = self._dice.randrange(4096)
        canvas.planes[0][start : start + size] = self._grain[offset : offset + size]

    def _paint_visitor(self, canvas: _Canvas, clock_us: int) -> None:
        """Somebody who sways in front of the door, so that motion is seen at a glance."""
        w, h = self._width, self._height
        phase = clock_us / 1_000_000
        x = w * (0.36 + 0.10 * math.sin(phase * 1.3))
        x -= x % 2
        lift = h * 0.006 * math.sin(phase * 5.2)
        canvas.disc(x, h * 0.93 + lift, w * 0.115, h * 0.33, _COAT)
        canvas.rect(x - w * 0.004, h * 0.64 + lift, x + w * 0.004, h, _COAT_DARK)
        canvas.rect(x - w * 0.022, h * 0.54 + lift, x + w * 0.022, h * 0.64 + lift, _SKIN)
        canvas.disc(x, h * 0.455 + lift, w * 0.052, h * 0.10, _HAIR)
        canvas.disc(x, h * 0.485 + lift, w * 0.044, h * 0.095, _SKIN)
        for side in (-1, 1):
            canvas.disc(x + side * w * 0.017, h * 0.475 + lift, w * 0.005, h * 0.009, _HAIR)
        canvas.rect(x - w * 0.014, h * 0.530 + lift, x + w * 0.014, h * 0.536 + lift, _HAIR)

    def _paint_band(self, canvas: _Canvas, mark: Mark) -> None:
        bits, luma, w, h = _bits(mark), canvas.planes[0], self._width, self._height
        edges = [w * column // COLUMNS for column in range(COLUMNS)]
        for row in range(BAND_ROWS):
            cells = "10"[row % 2] + bits[row * DATA_COLUMNS : (row + 1) * DATA_COLUMNS] + "01"[row % 2]
            line = b"".join(
                self._cells[bit] * (edges[column + 1] - edges[column]) for column, bit in enumerate(cells, start=1)
            )
            top, bottom = h * (BAND_TOP + row) // ROWS, h * (BAND_TOP + row + 1) // ROWS
            for y in range(top, bottom):
                start = y * w + edges[1]
                luma[start : start + len(line)] = line

    def _paint_text(self, canvas: _Canvas, words: str, x: int, y: int) -> None:
        luma, w, dot = canvas.planes[0], self._width, self._dot
        ink = bytes([WHITE]) * dot
        for sign in words:
            for row, dots in enumerate(bytes.fromhex(_GLYPHS[sign])):
                for column in range(5):
                    if dots >> (4 - column) & 1:
                        for line in range(dot):
                            start = (y + row * dot + line) * w + x + column * dot
                            luma[start : start + dot] = ink
            x += 6 * dot
