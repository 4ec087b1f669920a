"""Recorded speech for the media bench, and how well it has come through: PESQ, wideband (ITU-T P.862.2).

The recording is from Debian's ``asterisk-core-sounds-en-g722`` (spoken by Allison Smith, CC-BY-SA 3.0; 16 kHz), eight
seconds that are spoken over and over. Nothing of it is in this repository. The metric is the package ``pesq``, which is
the reference code of the ITU: for benches only (the extra ``bench``). What was heard is held against what the
microphone gave, not against the file: a browser's file microphone changes the sound on its way.
"""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Final

import av
import numpy as np

__all__ = ["LOOP_S", "RATE", "SOURCE", "delays", "quality", "resampled", "speech", "speech_wav"]

SOURCE: Final = Path("/usr/share/asterisk/sounds/en_US_f_Allison/demo-instruct.g722")
RATE: Final = 48_000
WIDE: Final = 16_000
LOOP_S: Final = 8  # what P.862 is meant for is eight to twelve seconds
BEGIN_S: Final = 1.0
PEAK: Final = 0.5  # of full scale

SHORTEST_S: Final = 6.0
CHUNK_S: Final = 0.5
STEP_S: Final = 0.25
SPOKEN: Final = 0.02  # root mean square above which a chunk is speech
SURE: Final = 0.5  # normalised correlation above which a chunk has been found


def resampled(samples: np.ndarray, of: int, to: int) -> np.ndarray:
    """By FFT: the whole is taken for periodic, which a loop is and a long recording nearly."""
    count = round(len(samples) * to / of)
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(count // 2 + 1, complex)
    shared = min(len(kept), len(spectrum))
    kept[:shared] = spectrum[:shared]
    return np.fft.irfft(kept, count) * to / of


def speech(source: Path = SOURCE) -> np.ndarray:
    """The loop: LOOP_S seconds at 48 kHz, -1 to 1."""
    with av.open(str(source), format="g722") as container:
        wide = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    begin = round(BEGIN_S * WIDE)
    loop = resampled(wide[begin:begin + LOOP_S * WIDE].astype(float) / 32768, WIDE, RATE)
    return np.asarray(loop * PEAK / np.max(np.abs(loop)), np.float32)


def speech_wav(path: Path) -> Path:
    loop = speech()
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((loop * 32767).astype("<i2").tobytes())
    return path


def quality(mouth: np.ndarray, ear: np.ndarray, lag_s: float, delay_s: float) -> float | None:
    """MOS-LQO (1 to 4.64) of what was heard of what the microphone gave; None when less than SHORTEST_S overlap.

    Both at 48 kHz. ``lag_s`` as in ``delays``; ``delay_s``: from mouth to ear, about.
    """
    from pesq import NoUtterancesError, pesq

    shift = round((delay_s - lag_s) * RATE)  # a sample of the mouth is found at the ear so much later
    spoken, heard = mouth[max(0, -shift):], ear[max(0, shift):]
    length = min(len(spoken), len(heard))
    if length < SHORTEST_S * RATE:
        return None
    try:
        return float(pesq(WIDE, _wide(spoken[:length]), _wide(heard[:length]), "wb"))
    except NoUtterancesError:  # nothing has come: the worst there is
        return 1.0


def _wide(samples: np.ndarray) -> np.ndarray:
    return np.clip(resampled(samples, RATE, WIDE) * 32767, -32768, 32767).astype(np.int16)


def delays(mouth: np.ndarray, ear: np.ndarray, lag_s: float, longest_s: float = 1.5) -> list[float]:
    """Seconds from mouth to ear of each chunk that is spoken and found again, by normalised correlation.

    Both at 48 kHz. ``lag_s``: by how much the ear's recording began after the mouth's.
    """
    found = []
    chunk, reach = round(CHUNK_S * RATE), round(longest_s * RATE)
    lag = round(lag_s * RATE)
    energy = np.concatenate(([0.0], np.cumsum(ear.astype(float) ** 2)))
    for begin in range(0, len(mouth) - chunk, round(STEP_S * RATE)):
        spoken = mouth[begin:begin + chunk].astype(float)
        first = begin - lag
        if np.sqrt(np.mean(spoken**2)) < SPOKEN or first < 0 or first + chunk + reach > len(ear):
            continue
        heard = ear[first:first + chunk + reach].astype(float)
        size = 1 << (len(heard) + chunk).bit_length()
        product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(spoken, size))
        correlation = np.fft.irfft(product, size)[:reach]
        power = energy[first + chunk:first + chunk + reach] - energy[first:first + reach]
        likeness = correlation / np.sqrt(np.maximum(power, 1e-9) * np.sum(spoken**2))
        best = int(np.argmax(likeness))
        if likeness[best] > SURE:
            found.append(best / RATE)
    return found
