"""The room between loudspeaker and microphone: reverberation, and a loudspeaker driven past its straight range.

Needs numpy, and is loaded only where a room is asked for.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hw.pcm import FULL
from hw.sim.sounds import RATE

__all__ = ["Room"]

DIRECT: Final = 3.0
"""The direct sound over the first 2 ms of reverberation: a case with both in it, not a hall."""


class Room:
    """Reverberation that falls by 60 dB within ``reverberation_ms``, of unit energy. ``place`` picks one of many equal
    rooms: another one is what somebody makes who walks up to the device. ``drive_db``: how far the loudspeaker is
    driven into saturation (tanh), 0 for a straight one."""

    def __init__(self, reverberation_ms: float, place: int = 1, drive_db: float = 0.0) -> None:
        if not 0.0 <= reverberation_ms <= 1000.0 or not 0.0 <= drive_db <= 40.0:
            raise ValueError(f"room: {reverberation_ms} ms and {drive_db} dB are outside 0 to 1000 ms and 0 to 40 dB")
        length = max(1, round(RATE * reverberation_ms / 1000 * 0.8))
        response = np.random.default_rng(place).standard_normal(length) * np.exp(
            -6.9 * np.arange(length) / max(1.0, RATE * reverberation_ms / 1000))
        response[0] = DIRECT * np.sqrt(np.sum(response[: RATE // 500] ** 2))
        self._response = response / np.sqrt(np.sum(response**2))
        self._drive = 10.0 ** (drive_db / 20.0) if drive_db else 0.0
        self._spectrum: NDArray[np.complex128] = np.zeros(0, np.complex128)
        self._size = 0
        self._past: NDArray[np.float64] = np.zeros(length - 1)

    def pass_through(self, pcm: bytes) -> bytes:
        """The next block, as it arrives in the room (overlap-save)."""
        block = np.frombuffer(pcm, np.int16).astype(np.float64)
        if self._drive:
            scaled = block * (self._drive / FULL)
            block = np.tanh(scaled) * (FULL / self._drive)
        joined = np.concatenate((self._past, block))
        if self._size < len(joined):
            self._size = 1 << (len(joined) - 1).bit_length()
            self._spectrum = np.fft.rfft(self._response, self._size)
        self._past = joined[len(block) :]
        wet = np.fft.irfft(np.fft.rfft(joined, self._size) * self._spectrum, self._size)[: len(joined)][-len(block) :]
        return np.clip(wet, -FULL, FULL).astype(np.int16).tobytes()
