"""Sound made longer or shorter by whole pitch periods, so that its pitch stays (WSOLA), and sound where none came.

Periods are looked for at a quarter of the rate: speech has its pitch far below 6 kHz, and the search is sixteen times
cheaper. All lengths are samples at 48 kHz, mono s16.
"""

from __future__ import annotations

from array import array
from typing import Final

from appliance.media.sound import RATE, audioop, crossfade, scaled

__all__ = ["ALIKE", "NEEDED", "Concealer", "longer", "period", "shorter"]

COARSE: Final = 4
SHORTEST: Final = RATE * 5 // 2000  # 2.5 ms: 400 Hz
LONGEST: Final = RATE * 12 // 1000  # 12 ms: 83 Hz
OVERLAP: Final = RATE * 6 // 1000  # compared, and faded over
NEEDED: Final = LONGEST + OVERLAP
"""Samples that ``shorter`` and ``longer`` need at least: 18 ms, less than one Opus frame."""

ALIKE: Final = 0.6  # share of the energy that a period must explain
QUIET: Final = 100  # RMS of 16 bits, -50 dBFS: any cut is inaudible

HISTORY: Final = RATE * 50 // 1000  # of what was played, to go on from
FADE_AFTER: Final = RATE * 10 // 1000  # ITU-T G.711 Appendix I: full level for 10 ms, then down
FADE_OVER: Final = RATE * 50 // 1000  # and silent after 60 ms


def _coarse(pcm: bytes) -> bytes:
    return array("h", memoryview(pcm).cast("h")[::COARSE].tolist()).tobytes()


def period(pcm: bytes, most: int = LONGEST) -> tuple[int, float]:
    """The distance, SHORTEST to ``most``, after which the beginning of ``pcm`` repeats, and how well (0..1 of its
    energy)."""
    thin = _coarse(pcm[: (most + OVERLAP) * 2])
    reference = thin[: OVERLAP // COARSE * 2]
    loud = audioop.rms(reference, 2)
    if loud < QUIET:
        return most, 1.0
    searched = thin[SHORTEST // COARSE * 2 :]
    # findfit takes the opposite of a sound for a fit as well; on a bias larger than the sound only the likeness counts
    offset, _ = audioop.findfit(_biased(searched), _biased(reference))
    found = searched[offset * 2 : offset * 2 + len(reference)]
    apart = audioop.rms(audioop.add(reference, audioop.mul(found, 2, -1), 2), 2)
    energy = loud**2 + audioop.rms(found, 2) ** 2
    return SHORTEST + offset * COARSE, max(0.0, 1 - apart**2 / energy)


def _biased(pcm: bytes) -> bytes:
    return audioop.bias(audioop.mul(pcm, 2, 0.25), 2, 16_384)


def _lag(pcm: bytes, alike: float, most: int) -> int | None:
    """Bytes of the period at the beginning of ``pcm``; None where it is too short or repeats too little."""
    if len(pcm) < NEEDED * 2:
        return None
    lag, quality = period(pcm, most)
    return lag * 2 if quality >= alike else None


def shorter(pcm: bytes, alike: float = ALIKE, most: int = LONGEST) -> bytes:
    """``pcm`` without one period of at most ``most`` samples near its beginning; ``pcm`` itself where none is found or
    it is too short."""
    if most < SHORTEST or (lag := _lag(pcm, alike, min(most, LONGEST))) is None:
        return pcm
    width = OVERLAP * 2
    return crossfade(pcm[:width], pcm[lag : lag + width]) + pcm[lag + width :]


def longer(pcm: bytes, alike: float = ALIKE) -> bytes:
    """``pcm`` with one period more near its beginning; ``pcm`` itself where none is found or it is too short."""
    if (lag := _lag(pcm, alike, LONGEST)) is None:
        return pcm
    width = OVERLAP * 2
    return pcm[:lag] + crossfade(pcm[lag : lag + width], pcm[:width]) + pcm[width:]


class Concealer:
    """Goes on from the last sound by its pitch period, fading out: for codecs that cannot do it themselves.

    In the manner of ITU-T G.711 Appendix I.
    """

    def __init__(self) -> None:
        self._past = b""
        self._cycle = b""
        self._at = 0
        self._made = 0

    def heard(self, pcm: bytes) -> bytes:
        """Note good sound; returns it, faded in from what was made up before it."""
        if self._made:
            width = min(len(pcm), OVERLAP * 2)
            pcm = crossfade(self._more(width // 2), pcm[:width]) + pcm[width:]
            self._made = 0
        self._past = (self._past + pcm)[-HISTORY * 2 :]
        return pcm

    def conceal(self, samples: int) -> bytes:
        """``samples`` of what might have come."""
        if not self._made:
            backwards = audioop.reverse(self._past, 2)
            lag = period(backwards)[0] if len(backwards) >= NEEDED * 2 else 0
            self._cycle, self._at = self._past[-lag * 2 :] if lag else b"", 0
        return self._more(samples)

    def _more(self, samples: int) -> bytes:
        if not self._cycle:
            self._made += samples
            return bytes(samples * 2)
        out: list[bytes] = []
        while samples > 0:
            step = min(samples, RATE // 200, len(self._cycle) // 2 - self._at)
            gain = min(1.0, max(0.0, 1 - (self._made - FADE_AFTER) / FADE_OVER))
            out.append(scaled(self._cycle[self._at * 2 : (self._at + step) * 2], gain))
            self._at = (self._at + step) % (len(self._cycle) // 2)
            self._made += step
            samples -= step
        return b"".join(out)
