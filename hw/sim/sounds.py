"""What the simulated microphone hears of its own: tones, quiet rooms, recordings, speech. No numpy: the daemon runs it.

Every source delivers 48 kHz mono signed 16 bit little endian.
"""

from __future__ import annotations

import math
import random
from array import array
from collections import deque
from pathlib import Path
from typing import Final, Protocol

from hw.api import DeviceFailedError, DeviceMissingError

__all__ = ["RATE", "LentSound", "Loop", "Sound", "open_sound", "quiet"]

RATE: Final = 48_000

TONE_PEAK: Final = 10_000
"""Peak of a tone: -10 dBFS, loud and far from clipping."""

MAX_RECORDING_S: Final = 120
"""Seconds of a recording that are kept in memory, 96 kB each."""

SPEECH_FILES: Final = ("/usr/share/sounds/alsa/Front_Center.wav", "/usr/share/sounds/alsa/Rear_Center.wav")
"""Recorded speech where Debian's ``alsa-utils`` is installed (GPL-2, 48 kHz, a woman naming loudspeakers)."""


class Sound(Protocol):
    def read(self, size: int) -> bytes:
        """The next ``size`` bytes."""


class Loop:
    """A recording played over and over. Reading costs one copy."""

    def __init__(self, pcm: bytes) -> None:
        if len(pcm) < 2:
            raise ValueError("a sound needs at least one sample")
        self._pcm = pcm[: len(pcm) // 2 * 2]
        self._at = 0

    def read(self, size: int) -> bytes:
        part = self._pcm[self._at : self._at + size]
        self._at += len(part)
        while len(part) < size:
            more = self._pcm[: size - len(part)]
            self._at = len(more)
            part += more
        return part


class LentSound:
    """Sound from elsewhere in real time, with a small buffer against the jitter of its way here.

    Begins when 40 ms are there, keeps at most 200 ms (drops the oldest), counts until a second without any.
    """

    START: Final = RATE * 2 * 40 // 1000
    LIMIT: Final = RATE * 2 * 200 // 1000
    FRESH_S: Final = 1.0

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._playing = False
        self._arrived = -math.inf
        self.dropped = 0

    def offer(self, pcm: bytes, now: float) -> None:
        pcm = pcm[: len(pcm) // 2 * 2][-self.LIMIT :]
        self._parts.append(pcm)
        self._size += len(pcm)
        self._arrived = now
        while self._size > self.LIMIT:
            old = self._parts.popleft()
            self._size -= len(old)
            self.dropped += len(old)

    def read(self, size: int, now: float) -> bytes | None:
        """The next block, silence on underrun, None when nothing is lent (any more)."""
        if now - self._arrived >= self.FRESH_S:
            self._parts.clear()
            self._size, self._playing = 0, False
            return None
        if not self._playing and self._size < self.START:
            return bytes(size)
        self._playing = True
        block = b""
        while self._parts and len(block) < size:
            part = self._parts.popleft()
            need = size - len(block)
            block += part[:need]
            if len(part) > need:
                self._parts.appendleft(part[need:])
        self._size -= len(block)
        if len(block) < size:
            self._playing = False
            block += bytes(size - len(block))
        return block


def open_sound(spec: str) -> Sound:
    """``tone:HZ``, ``wav:PATH``, ``speech`` or ``silence``. Raises DeviceMissingError or DeviceFailedError."""
    kind, _, rest = spec.partition(":")
    if kind == "tone":
        return Loop(_tone(rest))
    if kind == "wav" and rest:
        return Loop(_recording(rest))
    if spec == "silence":
        return Loop(quiet(RATE))
    if spec == "speech":
        recorded = [path for path in SPEECH_FILES if Path(path).is_file()]
        pause = quiet(RATE // 2)
        return Loop(b"".join(_recording(path) + pause for path in recorded) if recorded else _babble())
    raise DeviceFailedError(
        f"microphone source {spec!r} is unknown; there are tone:HZ, wav:PATH, speech and silence"
    )


def _tone(words: str) -> bytes:
    if not words.isdecimal() or not 20 <= int(words) <= 20_000:
        raise DeviceFailedError(f"microphone source: a tone needs a whole number of 20 to 20000 Hz, not {words!r}")
    step = 2 * math.pi * int(words) / RATE
    second = array("h", [round(TONE_PEAK * math.sin(step * n)) for n in range(RATE)])  # loops exactly
    return second.tobytes()


def quiet(samples: int) -> bytes:
    """A quiet room: one bit of dither, -90 dBFS. Digital zero is what a *broken* microphone delivers."""
    dice = random.Random(3)  # noqa: S311 - noise, not secrets
    return array("h", [dice.randrange(-1, 2) for _ in range(samples)]).tobytes()


def _recording(path: str) -> bytes:
    import av

    try:
        container = av.open(path)
    except FileNotFoundError as error:
        raise DeviceMissingError(f"microphone recording {path} is not there") from error
    except (av.FFmpegError, OSError) as error:
        raise DeviceFailedError(f"microphone recording {path}: {error}") from error
    with container:
        if not container.streams.audio:
            raise DeviceFailedError(f"microphone recording {path} holds no sound")
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        pcm = bytearray()
        try:
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    pcm += bytes(part.planes[0])[: part.samples * 2]
                if len(pcm) > MAX_RECORDING_S * RATE * 2:
                    raise DeviceFailedError(f"microphone recording {path} is longer than {MAX_RECORDING_S} s")
            for part in resampler.resample(None):
                pcm += bytes(part.planes[0])[: part.samples * 2]
        except av.FFmpegError as error:
            raise DeviceFailedError(f"microphone recording {path}: {error}") from error
    if not pcm:
        raise DeviceFailedError(f"microphone recording {path} is empty")
    return bytes(pcm)


_VOWELS: Final = (
    ((730, 1.0), (1090, 0.5), (2440, 0.2)),
    ((270, 1.0), (2290, 0.4), (3010, 0.2)),
    ((570, 1.0), (840, 0.6), (2410, 0.1)),
    ((530, 1.0), (1840, 0.5), (2480, 0.2)),
    ((300, 1.0), (870, 0.5), (2240, 0.1)),
)
"""Formants in Hz with their weights (Peterson and Barney 1952, men)."""


def _babble() -> bytes:
    """Vowel-like syllables with pauses: speech's rhythm and spectrum, no words. It is made, not recorded."""
    dice = random.Random(11)  # noqa: S311
    out = array("h")
    for syllable in range(14):
        period = RATE // dice.randrange(105, 150)
        vowel = _VOWELS[dice.randrange(len(_VOWELS))]
        wave = [0.0] * period
        for formant, weight in vowel:
            step, decay = 2 * math.pi * formant / RATE, 0.9965
            level = weight
            for n in range(period):
                wave[n] += level * math.sin(step * n)
                level *= decay
        top = max(map(abs, wave))
        count = dice.randrange(14, 26)
        for number in range(count):
            gain = 11_000 * math.sin(math.pi * (number + 0.5) / count) / top
            out.extend([round(gain * value) for value in wave])
        pause = RATE // 3 if syllable % 5 == 4 else RATE // 25
        out.frombytes(quiet(pause))
    return out.tobytes()
