"""Sound as mono signed 16 bit samples: how loud, and two at once. One rounding for every board. Pure.

Samples are in the machine's order, which is ALSA's S16_LE on everything this runs on. The sums are audioop's, in C:
numpy would not fit the daemon's memory budget.
"""

from __future__ import annotations

import warnings
from typing import Final

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.11 and 3.12 tell of its leaving; audioop-lts follows it
    import audioop

__all__ = ["FULL", "audioop", "mix", "samples_of", "scale"]

FULL: Final = 32_767

_HALF: Final = (1 << 15).to_bytes(4, "little")
"""Half a step of 16 bit, as 32 bit."""


def samples_of(pcm: bytes) -> memoryview:
    return memoryview(pcm).cast("h")


def scale(pcm: bytes, gain: float) -> bytes:
    """``pcm`` times ``gain``, to the nearest step (halves upwards), limited to full scale.

    audioop.mul alone rounds downwards: half a step of direct current in all that is turned down.
    """
    if gain == 1.0 or not any(pcm):
        return pcm
    fine = audioop.mul(audioop.lin2lin(pcm, 2, 4), 4, gain)
    return audioop.lin2lin(audioop.add(fine, _HALF * (len(pcm) // 2), 4), 4, 2)


def mix(one: bytes, two: bytes, gain: float = 1.0) -> bytes:
    """``one`` plus ``gain`` times ``two``, of equal length, limited to full scale."""
    return audioop.add(one, scale(two, gain), 2)
