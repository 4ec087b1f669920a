"""Two studios in one process, connected by real ICE, DTLS and SRTP, and ears for what comes out."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from appliance.media.api import Directions, IceServers, SessionEvent
from appliance.media.studio import Studio
from appliance.media.webrtc import WebRtcSession
from appliance.settings import VideoSettings
from hw.sim import pattern
from tests.support.impair import Relay
from tests.support.media_board import RATE, HandBoard

T = TypeVar("T", bound=SessionEvent)


@dataclass
class End:
    """One side: its board, studio and session, and every event the session told."""

    board: HandBoard
    studio: Studio
    session: WebRtcSession
    told: list[SessionEvent] = field(default_factory=list)

    async def listen(self) -> None:
        async for event in self.session.events():
            self.told.append(event)

    async def event(self, kind: type[T], within_s: float = 5.0) -> T:
        await until(lambda: any(isinstance(event, kind) for event in self.told), within_s, kind.__name__)
        return next(event for event in self.told if isinstance(event, kind))

    def strength(self, hertz: float, blocks: int = 20) -> float:
        """Amplitude (0..1) of ``hertz`` in the last blocks of the loudspeaker."""
        audio = self.board.audio
        assert audio is not None
        return goertzel(b"".join(audio.played[-blocks:]), hertz)


async def until(condition: Callable[[], bool], within_s: float = 5.0, what: str = "") -> float:
    """Wait for a condition of another thread or peer; returns the seconds it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > within_s:
            raise AssertionError(f"not within {within_s} s: {what or condition}")
        await asyncio.sleep(0.005)
    return time.monotonic() - begun


def goertzel(pcm: bytes, hertz: float) -> float:
    """Amplitude of one frequency, 0..1 of full scale."""
    samples = array("h", pcm)
    turn = 2 * math.pi * hertz / RATE
    real = sum(sample * math.cos(turn * n) for n, sample in enumerate(samples))
    imaginary = sum(sample * math.sin(turn * n) for n, sample in enumerate(samples))
    return 2 * math.hypot(real, imaginary) / len(samples) / 32768 if samples else 0.0


async def connect(caller: WebRtcSession, callee: WebRtcSession, between: Relay | None = None) -> None:
    """Offer and answer; ``between`` carries the media, the caller being its left peer."""
    offer = await caller.offer()
    if between is None:
        await caller.accept_answer(await callee.answer(offer))
    else:
        answer = await callee.answer(between.from_left(offer))
        await caller.accept_answer(between.from_right(answer))


def marks(end: End) -> list[int]:
    """The counters of the test pictures among the last 30 that an end has shown."""
    read = [pattern.read(picture.i420, picture.width, picture.height) for picture in end.board.display.pictures[-30:]]
    return [mark.counter for mark in read if mark is not None]


@asynccontextmanager
async def one_end(hertz: float) -> AsyncIterator[End]:
    """An end that hears ``hertz``, for a call with a peer of another make: no path over loopback."""
    board = HandBoard(hertz)
    studio = Studio(board, VideoSettings())
    await studio.open()
    end = End(board, studio, studio.session(Directions(), ice=IceServers(), loopback=False))
    listening = asyncio.create_task(end.listen())
    try:
        yield end
    finally:
        await studio.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


@asynccontextmanager
async def pair(
    *, first: HandBoard | None = None, second: HandBoard | None = None,
    wanted: Directions | None = None, connected: bool = True, between: Relay | None = None,
) -> AsyncIterator[tuple[End, End]]:
    """Two ends; the first hears 440 Hz and offers, the second hears 1000 Hz. ``between``: a network to go through."""
    ends, listening = [], []
    for board in (first or HandBoard(440), second or HandBoard(1000)):
        studio = Studio(board, VideoSettings())
        await studio.open()
        end = End(board, studio, studio.session(wanted or Directions(), ice=IceServers(), loopback=True))
        ends.append(end)
        listening.append(asyncio.create_task(end.listen()))
    try:
        if connected:
            await connect(ends[0].session, ends[1].session, between)
        yield ends[0], ends[1]
    finally:
        for end in ends:
            await end.studio.close()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
