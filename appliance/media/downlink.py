"""Peer to board: sounds of all sessions and tones to the loudspeaker."""

from __future__ import annotations

import time
from typing import Protocol

from appliance.media.api import SoundBlock
from appliance.media.sound import SILENCE, Limiter
from appliance.media.taps import TapPoint
from appliance.media.tones import TonePlayer

__all__ = ["Loudspeaker", "Voice"]


class Voice(Protocol):
    def take(self) -> bytes | None:
        """The next 10 ms, None where there is nothing to play. On the audio thread; never waits."""


class Loudspeaker:
    """Mixes play-outs and tones into the block the board plays next."""

    def __init__(self) -> None:
        self.tones = TonePlayer()
        self.muted = False
        self.received: TapPoint[SoundBlock] = TapPoint(lambda block: len(block.pcm))
        self._limiter = Limiter()
        self._tapped = Limiter()  # of what is tapped: without tones, and also while muted
        self._playouts: tuple[Voice, ...] = ()  # replaced as a whole: the audio thread reads it without a lock

    def add(self, playout: Voice) -> None:
        self._playouts = (*self._playouts, playout)

    def remove(self, playout: Voice) -> None:
        self._playouts = tuple(other for other in self._playouts if other is not playout)

    def block(self) -> bytes:
        """On the audio thread: the next 10 ms. Received sound is consumed even while it is muted."""
        received = [block for playout in self._playouts if (block := playout.take()) is not None]
        if self.received.active:
            mixed = self._tapped.mix(received) if received else SILENCE
            self.received.put(SoundBlock(mixed, time.monotonic()))
        sounds = [] if self.muted else received
        tone = self.tones.block()
        if tone is not None:
            sounds.append(tone)
        return self._limiter.mix(sounds) if sounds else SILENCE
