"""What ends a call by the clock: the deadline of its step, and the hours of its room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall
from appliance.calls.machine import Signal
from appliance.vocabulary import END_REASONS, CallState, Reason

__all__ = ["Deadlines"]

HOURS_S: Final = 30.0  # between two looks whether the room is open still: the wall clock may be set meanwhile


class Deadlines:
    """Everything on the loop. ``happen`` steps the machine; ``wall``: seconds since the epoch."""

    def __init__(
        self, bulletin: Bulletin, happen: Callable[[ActiveCall, Signal, Reason], None], wall: Callable[[], float],
    ) -> None:
        self._bulletin = bulletin
        self._happen = happen
        self._wall = wall
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, active: ActiveCall, seconds: float, reason_key: str) -> None:
        """In place of the one before."""
        self.disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expired, active, END_REASONS[reason_key])

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def keep_hours(self, active: ActiveCall) -> None:
        """The room closes while we are in it. Until the call is over."""
        while active.call.live:
            reason = active.terms.closed(self._wall())
            if reason is not None:
                self._happen(active, Signal.HANG_UP, reason)
                return
            left = (active.terms.closes or 0.0) - self._wall()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, HOURS_S)):
                    await active.closed.wait()

    def _expired(self, active: ActiveCall, reason: Reason) -> None:
        self._timer = None
        if active.call.state is CallState.RECONNECTING and self._bulletin.document("net").get("online") is False:
            reason = END_REASONS["496/networkLost"]
        self._happen(active, Signal.TIMEOUT, reason)
