"""Small sums on 16-bit mono sound without numpy: its 20 MB would not fit the daemon's memory budget."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from operator import mul
from typing import Final

__all__ = ["BLOCK_BYTES", "BLOCK_MS", "RATE", "SILENCE", "Loudness", "attenuate", "dbfs", "mean_square", "mix"]

RATE: Final = 48_000
"""Hz, everywhere between the board and Opus."""

BLOCK_MS: Final = 10
BLOCK_BYTES: Final = RATE * BLOCK_MS // 1000 * 2
SILENCE: Final = bytes(BLOCK_BYTES)
FULL_SCALE: Final = 32768.0
LEVEL_S: Final = 0.1  # time over which a level is averaged


def mean_square(block: bytes, step: int = 4) -> float:
    """Mean of the squared samples, 0..1 of full scale; every ``step``-th sample is enough for a meter."""
    samples = memoryview(block).cast("h")[::step].tolist()
    return sum(map(mul, samples, samples)) / (len(samples) * FULL_SCALE * FULL_SCALE) if samples else 0.0


class Loudness:
    """Level and energy of a sound as W3C webrtc-stats has them: ``audioLevel``, ``totalAudioEnergy``,
    ``totalSamplesDuration``. One thread adds; others read."""

    def __init__(self) -> None:
        self._square = 0.0
        self.energy = 0.0  # seconds of full scale
        self.seconds = 0.0

    def add(self, square: float, seconds: float = BLOCK_MS / 1000) -> None:
        """``seconds`` of sound with this mean square."""
        self._square += (square - self._square) * min(1.0, seconds / LEVEL_S)
        self.energy += square * seconds
        self.seconds += seconds

    @property
    def level(self) -> float:
        """RMS over about the last 100 ms, 0..1 of full scale."""
        return math.sqrt(self._square)


def dbfs(square: float) -> float:
    """Mean square as decibels relative to full scale, at least -127 (RFC 6464)."""
    return max(-127.0, 10 * math.log10(square)) if square > 0 else -127.0


def attenuate(block: bytes, shift: int) -> bytes:
    """``block`` made quieter by ``shift`` times 6 dB."""
    return array("h", [sample >> shift for sample in memoryview(block).cast("h")]).tobytes()


def mix(blocks: Sequence[bytes]) -> bytes:
    """Sum of blocks of equal length, limited to full scale. One block is handed on as it is."""
    if len(blocks) == 1:
        return blocks[0]
    views = [memoryview(block).cast("h") for block in blocks]
    total = [sum(samples) for samples in zip(*views, strict=True)]
    return array("h", [-32768 if value < -32768 else min(value, 32767) for value in total]).tobytes()
