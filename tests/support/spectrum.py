"""What a piece of sound is made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["SILENCE", "share_of", "strongest"]

SILENCE = (0.0, -120.0)
BESIDE = 3
"""Steps of the spectrum to each side that a tone fills through the window."""


def strongest(samples: npt.NDArray[np.float64], rate: int) -> tuple[float, float]:
    """Its strongest frequency in Hz, and its level in dB of full scale."""
    level = float(10 * np.log10(np.mean(samples**2) + 1e-12))
    return float(np.argmax(_power(samples)) * rate / len(samples)), level


def share_of(hertz: float, samples: npt.NDArray[np.float64], rate: int) -> float:
    """How much of its power is that of a tone, 0..1."""
    power = _power(samples)
    middle = round(hertz * len(samples) / rate)
    return float(np.sum(power[max(0, middle - BESIDE) : middle + BESIDE + 1]) / (np.sum(power) + 1e-12))


def _power(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2, dtype=float)
