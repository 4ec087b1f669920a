"""The way from loudspeaker to microphone, measured with a chirp: delay, loss, and whether there is one at all.

An exponential sweep (Farina 2000) is played twice; dividing the spectrum heard by the spectrum played gives the impulse
response. Delay is exact to a sample; half a second of chirp is enough at 0 dB above the noise. Speech into the
microphone can look like a path, but not twice like the same one.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from dataclasses import dataclass
from typing import Final

from appliance.errors import Refused
from appliance.media.sound import BLOCK_BYTES, BLOCK_MS, RATE, SILENCE
from appliance.vocabulary import Json
from hw.api import AudioBlock

__all__ = ["AcousticPath", "Probe", "chirp", "find_path"]

LOW_HZ: Final = 200.0
HIGH_HZ: Final = 7000.0
SECONDS: Final = 1.0
LEVEL: Final = 0.2  # peak, -14 dBFS: as loud as speech
FADE_S: Final = 0.01
TAIL_BLOCKS: Final = 700 // BLOCK_MS  # of listening after the chirp: the longest delay and the reverberation
ALIVE_DB: Final = 24.0  # of the peak over the floor of the response: separated alive from dead in every trial
MEDIAN_OF_NOISE: Final = 0.6745  # of its RMS: the median does not see the few loud milliseconds of a real path
ARRIVAL: Final = 0.5  # of the peak: the first to reach it is the direct sound
RESPONSE_S: Final = 0.3  # counted as echo after the direct sound
FULL_SCALE: Final = 32_767
DEADLINE_S: Final = 5.0
SAME_MS: Final = 1.0  # between the delays of two measurements of one path


@dataclass(frozen=True, slots=True)
class AcousticPath:
    """``loss_db`` is the echo return loss, broadband; ``peak_db``, a measure of trust, is how far the response stands
    out of the noise."""

    delay_ms: float
    loss_db: float
    peak_db: float
    clipped: bool = False

    def document(self) -> Json:
        return {"delayMs": round(self.delay_ms, 2), "echoReturnLoss": round(self.loss_db, 1),
                "peak": round(self.peak_db, 1), "clipped": self.clipped}


def chirp() -> bytes:
    """One second from 200 to 7000 Hz, faded at both ends, in whole blocks."""
    count, ratio = int(RATE * SECONDS), math.log(HIGH_HZ / LOW_HZ)
    turn, fade = 2 * math.pi * LOW_HZ * SECONDS / ratio, RATE * FADE_S
    peak = FULL_SCALE * LEVEL
    return array("h", [
        int(peak * min(1.0, n / fade, (count - n) / fade) * math.sin(turn * math.expm1(n / count * ratio)))
        for n in range(count)
    ]).tobytes()


def find_path(played: bytes, heard: bytes) -> AcousticPath | None:
    """The path by which ``played`` came into ``heard``, both of the same moments; None where nothing of it did.
    Blocking, 30 ms. Raises ImportError without numpy."""
    import numpy as np

    far, near = (np.frombuffer(pcm, np.int16).astype(np.float64) / (FULL_SCALE + 1) for pcm in (played, heard))
    size = 1 << (2 * len(far) - 1).bit_length()
    spectrum, answer = np.fft.rfft(far, size), np.fft.rfft(near, size)
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    band = (hertz > LOW_HZ) & (hertz < HIGH_HZ)
    power = np.abs(spectrum) ** 2
    if not power[band].any() or not near.any():
        return None
    ratio = np.where(band, answer * spectrum.conj() / (power + 1e-3 * power[band].mean()), 0)
    response = np.fft.irfft(ratio, size)[: len(near)]
    size_of = np.abs(response)
    peak = float(size_of.max())
    floor = float(np.median(size_of)) / MEDIAN_OF_NOISE
    over = 20 * math.log10(peak / floor) if floor > 0 else math.inf
    if over < ALIVE_DB:
        return None
    first = int(np.argmax(size_of >= ARRIVAL * peak))
    echo = response[max(0, first - RATE // 1000) : first + int(RATE * RESPONSE_S)]
    # A path without loss has the energy of the band alone: the share of all frequencies that the chirp covers.
    energy = float(np.sum(echo**2)) / float(np.mean(band))
    return AcousticPath(first * 1000 / RATE, -10 * math.log10(energy), over, bool(np.abs(near).max() > 0.99))


class Probe:
    """One measurement: ``exchange`` stands in for the studio's own on the audio thread, ``path`` is awaited."""

    def __init__(self, sound: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._sound = (sound + SILENCE * TAIL_BLOCKS) * 2
        self._at = 0
        self._played: list[bytes] = []
        self._heard: list[bytes] = []

    def exchange(self, block: AudioBlock) -> bytes:
        """On the audio thread."""
        self._played.append(block.played)
        self._heard.append(block.heard)
        part = self._sound[self._at : self._at + BLOCK_BYTES]
        self._at += BLOCK_BYTES
        if self._at == len(self._sound):
            self._loop.call_soon_threadsafe(self._end, None)
        return part or SILENCE

    def interrupt(self) -> None:
        """Something more important needs the loudspeaker."""
        self._end(Refused("a call came between; measure again when it is over", sub_code="inCall"))

    async def listened(self) -> None:
        """Wait for the end. Raises Refused after ``interrupt`` or when the sound device stands still."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._over
        except TimeoutError:
            raise Refused("the sound device stands still", code=503, sub_code="noSound") from None

    async def path(self) -> AcousticPath | None:
        """Judge what was heard, waiting for it as ``listened`` does. Raises ImportError without numpy."""
        await self.listened()
        return await asyncio.to_thread(self._agreed)

    def _agreed(self) -> AcousticPath | None:
        """What both measurements found; None where they differ."""
        half = len(self._sound) // BLOCK_BYTES // 2
        first, second = (
            find_path(b"".join(self._played[begin : begin + half]), b"".join(self._heard[begin : begin + half]))
            for begin in (0, half)
        )
        if first is None or second is None or abs(first.delay_ms - second.delay_ms) > SAME_MS:
            return None
        return first if first.peak_db >= second.peak_db else second

    def _end(self, error: Refused | None) -> None:
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)
