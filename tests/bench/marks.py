"""Marks and finding them again: a short sweep about once a second in a sound, a counter in a picture.

A sweep rather than a tone, because its correlation has one sharp peak: the moment is found to a fraction of a
millisecond whatever gain, codec and noise suppression did to its loudness.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["PERIOD_S", "Sound", "by_counter", "delays", "moments", "sweep", "sweep_pcm", "sweep_wav"]

RATE: Final = 48_000
SWEEP_S: Final = 0.06
PERIOD_S: Final = 1.007
"""No multiple of 20 ms: the marks fall on every place within a packet in turn, as speech does."""

PEAK: Final = 12_000
CLEAR: Final = 0.4
"""Share of the strongest correlation from which on a peak is taken for a mark."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples (-1 to 1) in blocks, and for each block the monotonic time of its first sample."""

    samples: np.ndarray
    starts: Sequence[float]
    counts: Sequence[int]
    rate: int = RATE


def sweep() -> np.ndarray:
    """400 to 3400 Hz, faded in and out; -1 to 1."""
    at = np.arange(int(RATE * SWEEP_S)) / RATE
    phase = 2 * np.pi * (400 * at + 3000 * at**2 / (2 * SWEEP_S))
    return np.asarray(np.sin(phase) * np.hanning(len(at)), np.float32)


def sweep_pcm() -> bytes:
    return np.asarray(sweep() * PEAK, "<i2").tobytes()


def sweep_wav(path: Path) -> Path:
    """Two marks, to be played in a loop."""
    pcm = sweep_pcm().ljust(round(RATE * PERIOD_S) * 2, b"\0") * 2
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(pcm)
    return path


def moments(sound: Sound) -> list[float]:
    """When the marks of a sound began, on its clock. A sound of another rate than 48 kHz raises ValueError."""
    if sound.rate != RATE:
        raise ValueError(f"marks are sought at {RATE} Hz, not at {sound.rate} Hz")
    pattern = sweep()
    if len(sound.samples) < 2 * len(pattern):
        return []
    size = 1 << (len(sound.samples) + len(pattern)).bit_length()
    spectrum = np.fft.fft(sound.samples, size) * np.conj(np.fft.fft(pattern, size))
    spectrum[size // 2 + 1:] = 0  # the analytic signal: its magnitude is free of the phase a filter may have turned
    strength = np.abs(np.fft.ifft(spectrum))[:len(sound.samples) - len(pattern)]
    floor = CLEAR * float(strength.max())
    if floor <= 0:
        return []
    bounds = np.concatenate(([0], np.cumsum(sound.counts)))
    found, gap = [], int(RATE * PERIOD_S / 2)
    place = 0
    while place < len(strength):
        if strength[place] < floor:
            place += 1
            continue
        peak = place + int(np.argmax(strength[place:place + gap]))
        block = int(np.searchsorted(bounds, peak, "right")) - 1
        found.append(sound.starts[block] + (peak - int(bounds[block])) / RATE)
        place = peak + gap
    return found


def delays(mouth: Sequence[float], ear: Sequence[float], limit_s: float = PERIOD_S * 0.9) -> list[float]:
    """Seconds from each mark at the mouth to the same one at the ear; marks that did not arrive are left out."""
    found = []
    for spoken in mouth:
        later = [heard - spoken for heard in ear if 0 < heard - spoken < limit_s]
        if later:
            found.append(min(later))
    return found


def by_counter(
    captured: Sequence[Sequence[float]], seen: Sequence[tuple[float, int]], loop_s: float,
) -> list[float]:
    """Seconds from the capture of each counter to the picture that carries it.

    ``captured``: rows of (arrival, capture time, counter, ...). ``seen``: (time, counter). Counters come again after
    ``loop_s``.
    """
    times: dict[int, list[float]] = {}
    for _, stamp, counter, _ in captured:
        times.setdefault(int(counter), []).append(stamp)
    found = []
    for at, counter in seen:
        before = [stamp for stamp in times.get(counter, ()) if 0 <= at - stamp < loop_s * 0.9]
        if before:
            found.append(at - max(before))
    return found
