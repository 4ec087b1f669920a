"""Recording of a room by its server: the verbs, and that it is told to everybody here and there.

Who has it recorded says so to the others (``presence``), for the server does not; so each appliance in the room tells
of every recording that is known, its own and those of others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Final

from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall
from appliance.errors import Refused
from appliance.intake import Handler
from appliance.providers.api import Recording
from appliance.vocabulary import Command, Json, Reason

if TYPE_CHECKING:
    from appliance.calls.controller import CallController

__all__ = ["CallRecording", "RecordCommands"]

ARRIVAL_S: Final = 2.0  # from coming into the room to hearing us: it is subscribed, and ICE and DTLS are through


class CallRecording:
    """Tells each change of who records the call; ``publish`` tells the call itself, ``announce`` is heard by all."""

    def __init__(
        self, bulletin: Bulletin, publish: Callable[[ActiveCall], None], announce: Callable[[], None],
    ) -> None:
        self._bulletin = bulletin
        self._publish = publish
        self._announce = announce

    def take(self, active: ActiveCall, event: Recording) -> None:
        """What the other side records by our word."""
        active.recording, active.recording_heard = event.on, frozenset()
        if event.on:
            self._announce()
            active.recording_heard = frozenset(active.roster.members)
        self.look(active, event.reason)
        active.to_say.set()

    def look(self, active: ActiveCall, reason: Reason | None = None) -> None:
        """The roster may be another one: somebody records, or no longer, or has come and is to hear that we do.
        ``reason``: why our own recording has ended, where nobody stopped it."""
        self._await_arrival(active)
        before, now = active.recorders_told, active.recorders
        if before == now:
            return
        active.recorders_told = now
        for state, who in (("Ended", before - now), ("Started", now - before)):
            self._tell(active, state, who, reason)
        self._publish(active)

    def _await_arrival(self, active: ActiveCall) -> None:
        """Announce it to who has come when they can hear it."""
        there = frozenset(active.roster.members)
        active.recording_heard &= there
        if active.recording and not there <= active.recording_heard and not active.arrival_awaited:
            active.arrival_awaited = True
            asyncio.get_running_loop().call_later(ARRIVAL_S, self._arrived, active, there)

    def _arrived(self, active: ActiveCall, there: Set[str]) -> None:
        active.arrival_awaited = False
        if active.recording and active.roster.members.keys() & there - active.recording_heard:
            self._announce()
            active.recording_heard |= there
        self._await_arrival(active)

    def _tell(self, active: ActiveCall, state: str, who: Set[str], reason: Reason | None) -> None:
        for one in sorted(who):
            own = one == ""
            self._bulletin.post(
                "recording.stateChanged", callId=active.id, state=state, participantId=None if own else one,
                reason=reason.payload() if own and reason is not None else None)


class RecordCommands:
    """Handlers by verb."""

    def __init__(self, controller: CallController) -> None:
        self._controller = controller

    def handlers(self) -> Mapping[str, Handler]:
        return {"record.start": self._start, "record.stop": self._stop}

    async def _start(self, command: Command) -> Json:
        active = self._controller.current(command.args.get("callId"))
        self._controller.require(active, "startRecording")
        if active.leg is not None and not active.recording:
            await active.leg.record(on=True)
        return {"isRecordingActive": True}

    async def _stop(self, command: Command) -> Json:
        active = self._controller.current(command.args.get("callId"))
        ours = active.recording
        if active.leg is not None and ours:
            await active.leg.record(on=False)
        others = active.recorders - {""}
        if others and not ours:
            names = ", ".join(active.roster.members[one].display_name for one in sorted(others))
            raise Refused(f"the call is recorded by {names}, and only they can stop it", code=403,
                          sub_code="MeetingRestricted", retryable=False)
        return {"isRecordingActive": bool(others)}
