"""Half-duplex guard: until echo cancellation is there, a loudspeaker in the same case must not be heard by the far end.

While the loudspeaker is loud, the microphone is made quieter by 24 dB, except when somebody at the microphone is
clearly louder than what the loudspeaker plays. The price is that both cannot talk at once; it is used where the board
has an acoustic path from speaker to microphone (``--board auto``), and off where it has none.
"""

from __future__ import annotations

from typing import Final

from appliance.media.sound import BLOCK_MS, attenuate, dbfs, mean_square

__all__ = ["HalfDuplexGuard"]

LOUD_DBFS: Final = -42.0  # a loudspeaker above this may be heard by its own microphone
NEAR_LOUDER_DB: Final = 9.0  # a near talker this much above the loudspeaker's signal is let through
HOLD_BLOCKS: Final = 200 // BLOCK_MS  # the room rings on for about 200 ms after the loudspeaker fell silent
SHIFT: Final = 4  # 24 dB


class HalfDuplexGuard:
    """Plain function of (heard, played) with a little memory; runs on the audio thread (at most 60 us per block)."""

    def __init__(self) -> None:
        self._hold = 0
        self.ducked = 0  # blocks made quieter so far

    def __call__(self, heard: bytes, played: bytes) -> bytes:
        """The microphone block to send, given what the loudspeaker was playing at that moment."""
        loud = dbfs(mean_square(played))
        if loud > LOUD_DBFS:
            self._hold = HOLD_BLOCKS
        elif self._hold:
            self._hold -= 1
        if not self._hold or dbfs(mean_square(heard)) > loud + NEAR_LOUDER_DB > LOUD_DBFS + NEAR_LOUDER_DB:
            return heard
        self.ducked += 1
        return attenuate(heard, SHIFT)
