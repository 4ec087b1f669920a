"""Judges what a microphone delivers: digital silence, full scale, noise. Pure, cheap enough for every block."""

from __future__ import annotations

import math
import operator
from typing import Final

from hw.api import FaultKind
from hw.pcm import FULL, samples_of

__all__ = ["Hearing"]

SILENT_S: Final = 4.0
"""Seconds of digital zero before it is told; no room is that quiet (within 10 s)."""

CLIP_SHARE_BEGINS: Final = 0.2
CLIP_SHARE_ENDS: Final = 0.05
"""Shares of blocks at full scale within a window."""

NOISE_RMS: Final = 800.0
"""-32 dBFS. What two neighbours cannot predict of a sample is taken for noise: nearly all of white noise, nearly
nothing of a tone, a few percent of speech, which pauses besides (the least of a window counts)."""

WINDOW_S: Final = 1.0


class Hearing:
    """Fed every block, answers per window of a second."""

    def __init__(self, block_s: float) -> None:
        self._window = max(1, round(WINDOW_S / block_s))
        self._silent_after = max(1, round(SILENT_S / block_s))
        self._zeros = self._blocks = self._clipped = 0
        self._floor = math.inf
        self.faults: frozenset[FaultKind] = frozenset()

    def hear(self, pcm: bytes) -> frozenset[FaultKind]:
        """What is wrong after this block."""
        before = self.faults
        if any(pcm):
            self._zeros = 0
            before -= {FaultKind.SILENT}
        else:
            self._zeros += 1
            if self._zeros >= self._silent_after:
                before |= {FaultKind.SILENT}
        self._blocks += 1
        if self._blocks % 10 == 0 and pcm:
            samples = samples_of(pcm)
            if max(samples) >= FULL - 1 or min(samples) <= -FULL + 1:
                self._clipped += 10
        if self._blocks % 10 == 5:
            self._floor = min(self._floor, _unpredictable(pcm))
        if self._blocks >= self._window:
            before = self._close_window(before)
        self.faults = before
        return before

    def _close_window(self, faults: frozenset[FaultKind]) -> frozenset[FaultKind]:
        limit = CLIP_SHARE_ENDS if FaultKind.CLIPPING in faults else CLIP_SHARE_BEGINS
        clipping = self._clipped > limit * self._blocks
        noisy = NOISE_RMS < self._floor < math.inf
        self._blocks = self._clipped = 0
        self._floor = math.inf
        faults -= {FaultKind.CLIPPING, FaultKind.NOISY}
        if clipping:
            return faults | {FaultKind.CLIPPING}  # what clips is distorted beyond any judgement of noise
        return faults | {FaultKind.NOISY} if noisy else faults


def _unpredictable(pcm: bytes) -> float:
    """RMS of what a linear prediction of second order leaves (Levinson-Durbin on three autocorrelations)."""
    samples = samples_of(pcm)
    energy = sum([value * value for value in samples])
    if energy == 0:
        return 0.0
    one = sum(map(operator.mul, samples, samples[1:])) / energy
    two = sum(map(operator.mul, samples, samples[2:])) / energy
    left = max(0.0, 1.0 - one * one)
    if left > 0.0:
        reflection = (two - one * one) / left
        left *= max(0.0, 1.0 - reflection * reflection)
    return math.sqrt(left * energy / len(samples))
