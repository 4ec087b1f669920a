"""What each in the call says of itself to the others, by data messages on the channel ``state``: a raised hand, and in
rooms that it is muted, and has the room recorded, of which their servers know or tell nothing.

    {"handRaised": true, "muted": false, "recording": true}

Said at each change, and every five seconds as long as there is something to say: so who comes later, or was away, knows
it too. In a call of two the mute goes by signalling.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from appliance.calls.active import ActiveCall
from appliance.calls.attendance import Attendance
from appliance.errors import EdgecallError
from appliance.providers.api import DataReceived
from appliance.vocabulary import CallKind, Json

__all__ = ["CHANNEL", "Presence"]

CHANNEL: Final = "state"
AGAIN_S: Final = 5.0
RETRY_S: Final = 0.25  # while the data channel is not open; ever slower


@dataclass(frozen=True, slots=True)
class _Said:
    hand_raised: bool = False
    muted: bool = False
    recording: bool = False

    def payload(self) -> Json:
        return {"handRaised": self.hand_raised, "muted": self.muted, **({"recording": True} if self.recording else {})}


_NOTHING: Final = _Said()


class Presence:
    """Lives on the loop. ``muted``: whether nothing of us is heard in a call."""

    def __init__(self, attendance: Attendance, muted: Callable[[ActiveCall], bool]) -> None:
        self._attendance = attendance
        self._muted = muted

    async def keep_saying(self, active: ActiveCall) -> None:
        """Until the call is over."""
        said, retry_s = _NOTHING, RETRY_S
        while active.call.live:
            active.to_say.clear()
            now = _Said(active.hand_raised, active.call.kind is CallKind.ROOM and self._muted(active), active.recording)
            pause: float | None
            if now == said == _NOTHING:
                pause = None
            elif await self._say(active, now):
                said, pause, retry_s = now, AGAIN_S, RETRY_S
            else:  # there may never be a channel
                pause, retry_s = retry_s, min(2 * retry_s, AGAIN_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await active.to_say.wait()

    @staticmethod
    async def _say(active: ActiveCall, said: _Said) -> bool:
        if active.leg is None:
            return False
        try:
            await active.leg.send(CHANNEL, json.dumps(said.payload()), urgent=True)
        except EdgecallError:  # no channel, or none yet
            return False
        return True

    def take(self, active: ActiveCall, message: DataReceived) -> bool:
        """Whether the message was one of these; anything else in its place says nothing."""
        if message.channel != CHANNEL:
            return False
        member = active.roster.members.get(message.sender)
        said = _parsed(message.payload)
        if member is not None and said is not None and active.data_limits.take(message.sender):
            raised = member.hand_raised or time.time() if said.hand_raised else None
            self._attendance.change(active, member.id, hand_raised=raised, says_muted=said.muted,
                                    recording=said.recording)
        return True


def _parsed(payload: str) -> _Said | None:
    try:
        found: Any = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return _Said(*(found.get(word) is True for word in ("handRaised", "muted", "recording")))
