"""The marks of many test pictures: what is needed to read them is copied at once, and read when time is no matter."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from hw.sim import pattern

__all__ = ["Marks", "Row"]

Row = tuple[float, int, int]
"""Time, counter, clock in ms."""

BAND: Final = range(pattern.BAND_TOP, pattern.BAND_TOP + pattern.BAND_ROWS)


class Marks:
    def __init__(self) -> None:
        self._kept: list[tuple[float, bytes, int, int]] = []

    def add(self, at: float, luma: Any, stride: int, width: int, height: int) -> None:
        """Keep the line through the middle of each row of the band. ``luma``: anything with a buffer."""
        view = memoryview(luma)
        lines = []
        for row in BAND:
            begin = (2 * row + 1) * height // (2 * pattern.ROWS) * stride
            lines.append(bytes(view[begin:begin + width]))
        self._kept.append((at, b"".join(lines), width, height))

    def take(self) -> tuple[list[Row], list[float]]:
        """The marks that could be read, and the times of all pictures; forgets them."""
        rows, times = [], [kept[0] for kept in self._kept]
        for at, lines, width, height in self._kept:
            mark = pattern.read(_picture(lines, width, height), width, height)
            if mark is not None:
                rows.append((at, mark.counter, mark.clock_ms))
        self._kept.clear()
        return rows, times


def _picture(lines: bytes, width: int, height: int) -> bytes:
    """A picture with each line of the band all over its row, as ``pattern.read`` takes it."""
    band = np.frombuffer(lines, np.uint8).reshape(len(BAND), width)
    picture = np.zeros((height, width), np.uint8)
    for number, row in enumerate(BAND):
        picture[row * height // pattern.ROWS:(row + 1) * height // pattern.ROWS] = band[number]
    return picture.tobytes()
