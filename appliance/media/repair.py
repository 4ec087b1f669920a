"""The video of one source: its packets to access units, with what must be asked of the peer to keep them coming.

On the loop. What is decided stands in ``assembly``; here are the timer and the back-off of key-frame requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from appliance.media.api import AccessUnit
from appliance.media.assembly import VideoAssembler

__all__ = ["VideoRepair", "VideoSink"]

PLI_FIRST_S: Final = 0.2  # back-off of key-frame requests: asking faster made a thin link worse
PLI_LAST_S: Final = 2.4
PLI_ROUND_TRIPS: Final = 1.5  # a request is not repeated before its answer can be here
EARLY_S: Final = 0.005  # a timer so much too early is left: it looks again, and most packets come in such groups
TIMER_GRAIN_S: Final = 0.002  # due so soon is due now: one wake-up for all packets of a burst


class VideoSink(Protocol):
    """Where access units of one peer go."""

    @property
    def wants_video(self) -> bool:
        """False: nobody looks or records, so nothing is put together or asked for."""

    def on_access_unit(self, unit: AccessUnit) -> None: ...

    def on_new_source(self) -> None:
        """What follows has nothing to do with what came before: another encoder, another size."""


class VideoRepair:
    """Feeds a VideoSink.

    send_nack: gets 16-bit sequence numbers, ascending. round_trip: what RTCP measured, in seconds. resends: whether
    asking for packets is of any use.
    """

    def __init__(
        self, sink: VideoSink, *, send_nack: Callable[[list[int]], None], send_pli: Callable[[], None],
        round_trip: Callable[[], float | None], resends: bool = True,
    ) -> None:
        self.frames = 0
        self.key_frames = 0
        self._sink = sink
        self._send_nack = send_nack
        self._send_pli = send_pli
        self._round_trip = round_trip
        self._loop = asyncio.get_running_loop()
        self._assembler = VideoAssembler()
        self._assembler.losses.resent = resends
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = True
        self._pli_at = float("-inf")
        self._pli_tries = 0  # since the last key frame

    @property
    def given_up(self) -> int:
        return self._assembler.given_up

    @property
    def discarded(self) -> int:
        return self._assembler.discarded

    @property
    def buffered_bytes(self) -> int:
        return self._assembler.buffered_bytes

    def asked_for(self, sequence: int) -> bool:
        """Whether the packet with this 16-bit number was asked for and has not come."""
        return any(hole & 0xFFFF == sequence for hole in self._assembler.losses.asked())

    def take(self, sequence: int, timestamp: int, marker: bool, data: bytes, *, resent: bool) -> None:
        """One packet, by its extended sequence number."""
        if not self._sink.wants_video:
            self._rest()
            return
        self._wanted = True
        now = self._loop.time()
        for unit in self._assembler.add(sequence, timestamp, marker, data, now, resent=resent):
            self.frames += 1
            if unit.key:
                self.key_frames += 1
                self._pli_tries = 0
            self._sink.on_access_unit(unit)
        if self._assembler.losses or self._assembler.asks_key:
            self._repair(now)
        else:
            self._schedule()

    def need_key(self) -> None:
        """The decoder lost its place: nothing is handed on before the next key frame."""
        self._assembler.need_key()
        self.ask_key()

    def ask_key(self) -> None:
        """Ask for a key frame (RFC 4585 6.3.1), no faster than the back-off allows."""
        now = self._loop.time()
        pause = min(PLI_LAST_S, PLI_FIRST_S * 2 ** max(0, self._pli_tries - 1))
        if now - self._pli_at < max(pause, PLI_ROUND_TRIPS * self._assembler.losses.retry_s):
            return
        self._pli_at = now
        self._pli_tries += 1
        self._send_pli()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- private

    def _rest(self) -> None:
        """Nobody wants the picture: keep nothing of it."""
        if self._wanted:
            self._wanted = False
            self.stop()
            self._assembler.forget()

    def _on_timer(self) -> None:
        self._timer = None
        self._repair(self._loop.time())

    def _repair(self, now: float) -> None:
        assembler = self._assembler
        assembler.losses.round_trip_hint = self._round_trip()
        lost = assembler.tick(now + TIMER_GRAIN_S)
        if lost:
            self._send_nack(sorted(sequence & 0xFFFF for sequence in lost))
        if assembler.asks_key:
            self.ask_key()
        self._schedule()

    def _schedule(self) -> None:
        at = self._assembler.next_at()
        if self._timer is not None and (at is None or not 0 <= at - self._timer.when() < EARLY_S):
            self.stop()
        if at is not None and self._timer is None:
            self._timer = self._loop.call_at(at, self._on_timer)
