"""Digits as two tones in the sound itself (DTMF, ITU-T Q.23 and Q.24), at 8 kHz as G.711 carries them. Pure.

Anybody who speaks, whistles or plays a recording can make them, so they are told apart from digits that were signalled,
and what is to be trusted is never done by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["DTMF_RATE", "ToneReader", "tones_of"]

DTMF_RATE: Final = 8000  # Hz
ROWS: Final = (697.0, 770.0, 852.0, 941.0)
COLUMNS: Final = (1209.0, 1336.0, 1477.0, 1633.0)
KEYS: Final = ("123A", "456B", "789C", "*0#D")

WINDOW: Final = 205  # samples, 25.6 ms: rows are told apart, and a tone of 40 ms fills two steps
STEP: Final = 102
FAINT: Final = 10 ** (-36 / 20) * 32768 / 2**0.5  # RMS; fainter ones are nobody's keys
TWIST: Final = 10**0.8  # 8 dB in power between row and column, at most
PURE: Final = 0.7  # of the power in a window is that of both tones: voices have more of others
CLEAR: Final = 10**0.6  # 6 dB above the next row or column
SENT_LEVEL: Final = 0.2  # of full scale each: -14 dBFS

_HANN: Final = np.hanning(WINDOW).astype(np.float32)  # a tone may be 1.5 % beside its frequency (Q.24)
_PHASES: Final = (_HANN * np.exp(
    -2j * np.pi / DTMF_RATE * np.outer(np.array(ROWS + COLUMNS), np.arange(WINDOW)))).astype(np.complex64)
_GAIN: Final = 2 / float(np.sum(_HANN)) ** 2  # from what is found to the power of a tone
_ENERGY: Final = float(np.sum(_HANN**2))


class ToneReader:
    """Digits of a stream of sound; each is told once, when it has lasted for two steps (about 40 ms)."""

    def __init__(self) -> None:
        self._samples: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        self._before: str | None = None
        self._told: str | None = None

    def take(self, pcm: bytes) -> Iterator[str]:
        """16 bits linear, mono, at DTMF_RATE."""
        fresh = np.frombuffer(pcm, "<i2").astype(np.float32)
        self._samples = np.concatenate((self._samples, fresh))
        while len(self._samples) >= WINDOW:
            heard = _digit(self._samples[:WINDOW])
            self._samples = self._samples[STEP:]
            if heard is not None and heard == self._before and heard != self._told:
                self._told = heard
                yield heard
            elif heard is None and self._before is None:  # one window without may be a scratch
                self._told = None
            self._before = heard


def _digit(window: npt.NDArray[np.float32]) -> str | None:
    power = float(np.sum((_HANN * window) ** 2)) / _ENERGY
    if power < FAINT**2:
        return None
    found: npt.NDArray[np.floating] = _GAIN * np.abs(_PHASES @ window) ** 2  # the power of each tone
    rows, columns = found[:4], found[4:]
    row, column = int(np.argmax(rows)), int(np.argmax(columns))
    high, low = max(rows[row], columns[column]), min(rows[row], columns[column])
    alone = _clear(rows, row) and _clear(columns, column)
    if not alone or high > TWIST * low or high + low < PURE * power:
        return None
    return KEYS[row][column]


def _clear(group: npt.NDArray[np.floating], best: int) -> bool:
    return bool(group[best] > CLEAR * max(np.delete(group, best)))


def tones_of(digit: str, samples: int) -> bytes:
    """So many samples of a digit's tones. Raises ValueError for what is none."""
    row = next((n for n, keys in enumerate(KEYS) if len(digit) == 1 and digit in keys), None)
    if row is None:
        raise ValueError(f"{digit!r} is no digit of a telephone: {''.join(KEYS)}")
    at = 2 * np.pi / DTMF_RATE * np.arange(samples)
    wave = np.sin(ROWS[row] * at) + np.sin(COLUMNS[KEYS[row].index(digit)] * at)
    return bytes((wave * SENT_LEVEL * 32767).astype("<i2").tobytes())
