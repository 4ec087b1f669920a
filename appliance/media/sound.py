"""Sums on 16-bit mono sound in C, without numpy: its 20 MB would not fit the daemon's memory budget.

``audioop`` left the standard library with Python 3.13 and lives on as ``audioop-lts``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Final

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.11 and 3.12 tell of its leaving, which pyproject answers
    import audioop

__all__ = [
    "BLOCK_BYTES",
    "BLOCK_MS",
    "BLOCK_SAMPLES",
    "RATE",
    "SILENCE",
    "Limiter",
    "Loudness",
    "attenuate",
    "audioop",
    "crossfade",
    "dbfs",
    "mean_square",
    "scaled",
]

RATE: Final = 48_000
"""Hz, everywhere between the board and Opus."""

BLOCK_MS: Final = 10
BLOCK_SAMPLES: Final = RATE * BLOCK_MS // 1000
BLOCK_BYTES: Final = BLOCK_SAMPLES * 2
SILENCE: Final = bytes(BLOCK_BYTES)
FULL_SCALE: Final = 32768.0
_HALF: Final = (1 << 15).to_bytes(4, "little")  # half a step of 16 bits, in 32
LEVEL_S: Final = 0.1  # time over which a level is averaged

FADE_STEPS: Final = 24  # of a cross-fade: each step changes the gain by 0.4 dB in its middle, which is not heard
HEADROOM: Final = 16  # voices that can be added in 32 bits
CEILING: Final = 32_000  # -0.2 dBFS: what the limiter lets through at most
RELEASE: Final = 1.02  # per block, 17 dB per second: fast enough for speech, too slow to be heard as distortion


def mean_square(block: bytes) -> float:
    """Mean of the squared samples, 0..1 of full scale."""
    return (audioop.rms(block, 2) / FULL_SCALE) ** 2 if block else 0.0


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


def scaled(block: bytes, gain: float) -> bytes:
    """``block`` times ``gain``, to the nearest step (halves upwards), limited to full scale: as ``hw.pcm`` does it.

    audioop.mul alone rounds downwards: half a step of direct current in all that is turned down.
    """
    return block if gain == 1.0 else _rounded(audioop.mul(_fine(block), 4, gain))


def _fine(block: bytes) -> bytes:
    """In 32 bits, with 16 of them below the step of 16."""
    return audioop.lin2lin(block, 2, 4)


def _rounded(fine: bytes) -> bytes:
    """Back to 16 bits; the one place where sound is rounded."""
    return audioop.lin2lin(audioop.add(fine, _HALF * (len(fine) // 4), 4), 4, 2)


def attenuate(block: bytes, shift: int) -> bytes:
    """``block`` made quieter by ``shift`` times 6 dB."""
    return scaled(block, 1.0 / (1 << shift))


def crossfade(old: bytes, new: bytes) -> bytes:
    """From ``old`` to ``new``, both of the same length; gains add up to one, for sounds that are alike."""
    parts: list[bytes] = []
    samples = len(old) // 2
    old, new = _fine(old), _fine(new)
    for step in range(FADE_STEPS):
        begin, end = samples * step // FADE_STEPS * 4, samples * (step + 1) // FADE_STEPS * 4
        gain = (step + 0.5) / FADE_STEPS
        parts.append(audioop.add(
            audioop.mul(old[begin:end], 4, 1 - gain), audioop.mul(new[begin:end], 4, gain), 4,
        ))
    return _rounded(b"".join(parts))


class Limiter:
    """Adds voices without clipping: what would pass full scale makes the whole sum quieter, and slowly back.

    At most 16 voices; one alone at full level is handed on as it is.
    """

    def __init__(self) -> None:
        self._gain = 1.0

    def mix(self, voices: Sequence[bytes]) -> bytes:
        """The sum of blocks of equal length; the loudest 16 of more."""
        if len(voices) == 1 and self._gain == 1.0:
            return voices[0]
        if len(voices) > HEADROOM:
            voices = sorted(voices, key=lambda voice: audioop.rms(voice, 2), reverse=True)[:HEADROOM]
        total = audioop.mul(_fine(voices[0]), 4, 1 / HEADROOM)
        for voice in voices[1:]:
            total = audioop.add(total, audioop.mul(_fine(voice), 4, 1 / HEADROOM), 4)
        peak = audioop.max(total, 4) * HEADROOM / 65536  # in units of 16 bits, before any limit
        before = self._gain
        self._gain = min(1.0, self._gain * RELEASE, CEILING / peak if peak else 1.0)
        if before - self._gain > 0.02:  # a jump of the gain would click: it comes down over the first part
            quarter = len(total) // 16 * 4
            fall = [before + (self._gain - before) * (part + 1) / 3 for part in range(3)]
            parts = [
                audioop.mul(total[quarter * index // 3 & ~3 : quarter * (index + 1) // 3 & ~3], 4, gain * HEADROOM)
                for index, gain in enumerate(fall)
            ]
            loud = b"".join([*parts, audioop.mul(total[quarter & ~3 :], 4, self._gain * HEADROOM)])
        else:
            loud = audioop.mul(total, 4, self._gain * HEADROOM)
        return _rounded(loud)
