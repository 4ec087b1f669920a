"""What a moderator does to others in the call. Each raises Refused (403) where that is not ours to do, and BadRequest
(404/notFound) for somebody who is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.calls.active import ActiveCall
from appliance.calls.attendance import Attendance
from appliance.calls.machine import Signal

if TYPE_CHECKING:
    from appliance.calls.controller import CallController

__all__ = ["end_for_all", "mute_others", "remove"]


async def end_for_all(controller: CallController, active: ActiveCall) -> None:
    """Send everybody else away, then leave."""
    controller.require(active, "hangUpForEveryOne")
    if active.leg is not None:
        await active.leg.end_for_all()
    if active.call.live:
        controller.happen(active, Signal.HANG_UP)


async def remove(controller: CallController, active: ActiveCall, participant: str) -> None:
    """Send one of the room away."""
    controller.require(active, "removeParticipant")
    Attendance.find(active, participant)
    if active.leg is not None:
        await active.leg.remove(participant)


async def mute_others(controller: CallController, active: ActiveCall, participant: str | None) -> None:
    """The microphones of the room, or of one there."""
    controller.require(active, "muteOthers")
    if participant is not None:
        Attendance.find(active, participant)
    if active.leg is not None:
        await active.leg.mute_others(participant)
