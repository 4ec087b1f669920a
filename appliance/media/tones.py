"""Tones of the loudspeaker, and to the others, made once as 48 kHz mono PCM.

Ring, ringback and busy follow ETSI EN 300 001 / ITU-T E.180 in spirit (425 Hz, cadences) so that they are understood
everywhere; the others are short and unlike them.
"""

from __future__ import annotations

import math
from array import array
from functools import cache
from typing import Final

from appliance.media.api import Tone
from appliance.media.sound import BLOCK_BYTES, RATE

__all__ = ["REPEATING", "TonePlayer", "tone_pcm"]

REPEATING: Final = frozenset({Tone.RING, Tone.RINGBACK})
EDGE_S: Final = 0.008  # faded in and out: a hard edge clicks

# (frequencies in Hz, seconds, level 0..1); no frequencies: silence
_SCORES: Final[dict[Tone, tuple[tuple[tuple[float, ...], float, float], ...]]] = {
    Tone.RING: (((660, 880), 0.35, 0.5), ((), 0.1, 0), ((660, 880), 0.35, 0.5), ((), 2.0, 0)),
    Tone.RINGBACK: (((425,), 1.0, 0.25), ((), 4.0, 0)),
    Tone.AUTO_ANSWER: (((880,), 0.12, 0.4), ((), 0.06, 0), ((1320,), 0.18, 0.4)),
    Tone.BUSY: (((425,), 0.25, 0.3), ((), 0.25, 0)) * 3,
    Tone.END: (((330,), 0.25, 0.35),),
    Tone.CAMERA: (((2400,), 0.03, 0.4),),
    Tone.RECORDED: (((1400,), 0.3, 0.25), ((), 0.15, 0)) * 2,  # what recorders of telephones have always beeped with
}


@cache
def tone_pcm(tone: Tone) -> bytes:
    """One period of ``tone`` (its whole, when it does not repeat), a whole number of 10 ms blocks."""
    samples = array("h")
    for frequencies, seconds, level in _SCORES[tone]:
        count = int(seconds * RATE)
        edge = int(EDGE_S * RATE)
        for n in range(count):
            fade = min(1.0, n / edge, (count - n) / edge)
            wave = sum(math.sin(2 * math.pi * frequency * n / RATE) for frequency in frequencies)
            samples.append(int(32767 * level * fade * wave / max(1, len(frequencies))))
    data = samples.tobytes()
    return data + bytes(-len(data) % BLOCK_BYTES)


class TonePlayer:
    """Gives a tone block by block. ``play`` on the loop, ``block`` on the audio thread."""

    def __init__(self) -> None:
        self._current: tuple[bytes, bool] | None = None
        self._at = 0

    def warm(self) -> None:
        """Make every tone now (about 0.2 s of CPU), not at the first ring."""
        for tone in Tone:
            tone_pcm(tone)

    def play(self, tone: Tone | None) -> None:
        self._at = 0
        self._current = None if tone is None else (tone_pcm(tone), tone in REPEATING)

    def block(self) -> bytes | None:
        """The next 10 ms, or None when nothing plays."""
        current = self._current
        if current is None:
            return None
        pcm, repeats = current
        at = self._at
        self._at = at + BLOCK_BYTES
        if self._at >= len(pcm):
            self._at = 0
            if not repeats:
                self._current = None
        return pcm[at : at + BLOCK_BYTES]
