"""Peer to board: sounds of all sessions and tones to the loudspeaker, latest pictures to the screen."""

from __future__ import annotations

import time
from typing import Protocol

from appliance.media.api import SoundBlock
from appliance.media.sound import SILENCE, Limiter
from appliance.media.taps import TapPoint
from appliance.media.tones import TonePlayer
from hw.api import Display, Picture, Tile

__all__ = ["Loudspeaker", "Screen", "Voice"]


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


class Screen:
    """Composes what the board shows: the latest picture of every session, a banner and a hint."""

    def __init__(self, display: Display | None) -> None:
        self._display = display
        self._pictures: dict[object, tuple[Picture, str]] = {}
        self._banner = ""
        self._hint = ""
        self._dark = False

    @property
    def present(self) -> bool:
        """Whether there is anything to show pictures on."""
        return self._display is not None

    @property
    def pictures(self) -> int:
        return len(self._pictures)

    def text(self, banner: str, hint: str = "") -> None:
        if self._dark or (banner, hint) != (self._banner, self._hint):
            self._banner, self._hint = banner, hint
            self._show()

    def blank(self) -> None:
        """Dark until the next text or picture."""
        self._dark = True
        if self._display is not None:
            self._display.blank()

    def picture(self, owner: object, picture: Picture | None, label: str = "") -> None:
        """Show the picture of ``owner`` with its name, None removes it."""
        if picture is not None:
            self._pictures[owner] = picture, label
        elif self._pictures.pop(owner, None) is None:
            return
        self._show()

    def _show(self) -> None:
        self._dark = False
        if self._display is None:
            return
        count = max(1, len(self._pictures))
        columns = 1 if count == 1 else 2 if count <= 4 else 3
        rows = -(-count // columns)
        tiles = [
            Tile(picture, x=index % columns / columns, y=index // columns / rows, w=1 / columns, h=1 / rows,
                 label=label)
            for index, (picture, label) in enumerate(self._pictures.values())
        ]
        self._display.show(tiles, self._banner, self._hint)
