"""A voice on its way, on virtual time: a microphone's packets, a path that delays and loses, a card that pulls."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

from appliance.media.opus import DTX_BYTES, OpusEncoder
from appliance.media.playout import Playout
from appliance.media.sound import BLOCK_BYTES, RATE

FRAME = RATE // 50


@cache
def _voiced() -> tuple[bytes, ...]:
    """3.6 s of a gliding voiced sound with syllables, frame by frame."""
    noise, phase, frames = random.Random(1), 0.0, []
    for frame in range(180):
        samples = array("h")
        for n in range(FRAME):
            t = frame * 0.02 + n / RATE
            phase += 2 * math.pi * (140 + 25 * math.sin(2 * math.pi * 0.7 * t)) / RATE
            syllable = 0.6 + 0.4 * math.sin(2 * math.pi * 4 * t)
            voiced = math.sin(phase) + 0.6 * math.sin(2 * phase) + 0.4 * math.sin(3 * phase) + 0.3 * math.sin(5 * phase)
            samples.append(int(5000 * syllable * voiced + noise.gauss(0, 60)))
        frames.append(samples.tobytes())
    return tuple(frames)


def speech_like(pauses: bool = False) -> Iterator[bytes]:
    """Endless 20 ms frames; ``pauses``: 0.6 s of silence after each 1.2 s."""
    for frame in itertools.count():
        yield bytes(FRAME * 2) if pauses and frame % 90 >= 60 else _voiced()[frame % 180]


@dataclass
class Path:
    """``delay`` gives the transit of the packet sent at a time, in seconds; None loses it."""

    delay: Callable[[float], float | None] = lambda at: 0.03
    pull_late: Callable[[float], float] = lambda at: 0.0
    """How much after its time the card's thread pulls the block that is due at a time; never before the one before."""
    drift: float = 0.0
    """How much faster the sender's clock runs, as a share."""
    playout: Playout = field(default_factory=Playout)
    encoder: OpusEncoder = field(default_factory=lambda: OpusEncoder(32_000, loss=10))
    source: Iterator[bytes] = field(default_factory=speech_like)
    first_timestamp: int = 1_000_000
    now: float = 100.0
    played: list[bytes | None] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    sent: int = 0
    _coming: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    _frames: int = 0
    _silent: int = 0
    _due: float = 100.0
    _pulled: float = 0.0

    def run(self, seconds: float) -> None:
        """The card pulls a block every 10 ms, until ``seconds`` have passed."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            pulled = self._pulled = max(self._pulled, self.now + self.pull_late(self.now))
            while self._due <= pulled:
                self._send(self._due)
                self._due += 0.02 / (1 + self.drift)
            while self._coming and self._coming[0][0] <= pulled:
                arrival, _, timestamp, data = heapq.heappop(self._coming)
                self.playout.put(timestamp, data, arrival)
            block = self.playout.take(pulled)
            assert block is None or len(block) == BLOCK_BYTES
            self.played.append(block)
            self.delays.append(self.playout.delay_s)
            self.now += 0.01

    def _send(self, at: float) -> None:
        data = self.encoder.encode(next(self.source))
        timestamp = (self.first_timestamp + self._frames * FRAME) & 0xFFFFFFFF
        self._frames += 1
        self._silent = self._silent + 1 if len(data) <= DTX_BYTES else 0
        if self._silent > 1 and self._silent % 20:
            return
        self.sent += 1
        transit = self.delay(at)
        if transit is not None:
            heapq.heappush(self._coming, (at + transit, self.sent, timestamp, data))

    def delay_now(self, blocks: int = 50) -> float:
        """Mean of the last half second."""
        return sum(self.delays[-blocks:]) / blocks

    def concealed_share(self, begin: int = 0) -> float:
        counters = self.playout.counters
        return (counters.concealed - begin) / max(1, counters.received)
