"""What sound in the guest delivers and tells, as it comes; and what tones are in it."""

from __future__ import annotations

import cmath
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw.api import AudioBlock, Fault, FaultKind, Kind

__all__ = ["Listener", "Tones", "loud", "starved", "tones"]

RATE: Final = 48_000
BLOCK: Final = 480

STARVED_S: Final = 0.03
"""A gap between two blocks for which sound on its way may not have lasted: the machine kept the guest from running."""


def tones(hertz: Sequence[float], peak: int, rate: int = RATE) -> npt.NDArray[np.int16]:
    """A second of tones of whole hertz, which can follow itself."""
    at = np.arange(rate) / rate
    wave = sum(np.sin(2 * np.pi * one * at) for one in hertz)
    return np.asarray(np.round(peak * wave), np.int16)


class Listener:
    """Plays a second of sound over and over; keeps what is heard and told."""

    def __init__(self, plays: bytes) -> None:
        self.plays = plays
        self.blocks: list[tuple[float, AudioBlock]] = []
        self.faults: list[Fault] = []
        self._changed = threading.Condition()

    def exchange(self, block: AudioBlock) -> bytes:
        with self._changed:
            self.blocks.append((time.monotonic(), block))
            self._changed.notify_all()
            at = len(self.blocks) % 100 * BLOCK * 2
        return self.plays[at : at + BLOCK * 2]

    def fault(self, fault: Fault) -> None:
        with self._changed:
            self.faults.append(fault)
            self._changed.notify_all()

    def until(self, condition: Callable[[], Any], seconds: float) -> float:
        """Seconds until it holds."""
        began = time.monotonic()
        with self._changed:
            assert self._changed.wait_for(condition, seconds), f"not in {seconds} s; told: {self.faults}"
        return time.monotonic() - began

    def told(self, kind: Kind, fault: FaultKind, active: bool, device: str | None = None) -> Fault | None:
        """The latest word on it, if that is it."""
        words = [one for one in self.faults if (one.kind, one.fault) == (kind, fault) and device in (None, one.device)]
        return words[-1] if words and words[-1].active == active else None

    def more(self, count: int, seconds: float) -> None:
        """So many blocks more."""
        wanted = len(self.blocks) + count
        self.until(lambda: len(self.blocks) >= wanted, seconds)

    def hears(self) -> bool:
        return bool(self.blocks) and loud(self.blocks[-1][1].heard)


def starved(blocks: Sequence[tuple[float, AudioBlock]]) -> bool:
    """Whether the machine kept the guest from running for longer than the sound on its way lasts."""
    return max(after - before for (before, _), (after, _) in itertools.pairwise(blocks)) > STARVED_S


def loud(pcm: bytes) -> bool:
    return max(memoryview(pcm).cast("h"), default=0) > 3000


class Tones:
    """Tones of ``hertz`` found in ``samples``: the level of each, how far the pitch is off, and what is left beside.

    The pitch may be off by what two clocks are apart, and the same for all tones: it is found by the phase of the first
    at both ends, and the tones are then fitted together.
    """

    def __init__(self, samples: npt.ArrayLike, hertz: Sequence[float], rate: int) -> None:
        wave = np.asarray(samples, float)
        part = len(wave) // 4
        turn = 2 * math.pi * hertz[0] / rate
        first, last = (self._fit(wave[at : at + part], hertz, rate, at)[1][0] for at in (0, len(wave) - part))
        self.pitch_ppm = cmath.phase(last / first) / (turn * (len(wave) - part)) * 1e6
        left, found = self._fit(wave, [one * (1 + self.pitch_ppm * 1e-6) for one in hertz], rate)
        self.levels = [abs(one) for one in found]
        power = sum(level**2 for level in self.levels) / 2
        self.left_db = 10 * math.log10(max(float(np.mean(left**2)), 1e-9) / power) if power else math.inf

    @staticmethod
    def _fit(wave: npt.NDArray[np.float64], hertz: Sequence[float], rate: int, begin: int = 0,
             ) -> tuple[npt.NDArray[np.float64], list[complex]]:
        """What is left of ``wave`` without the tones, and amplitude and phase of each."""
        at = 2 * np.pi * (np.arange(len(wave)) + begin) / rate
        waves = np.stack([part(one * at) for one in hertz for part in (np.cos, np.sin)], axis=1)
        weights = np.linalg.lstsq(waves, wave, rcond=None)[0]
        return wave - waves @ weights, [complex(c, -s) for c, s in zip(weights[::2], weights[1::2], strict=True)]

    def __str__(self) -> str:
        return f"levels {[round(one) for one in self.levels]}, {self.left_db:.1f} dB beside, {self.pitch_ppm:+.0f} ppm"
