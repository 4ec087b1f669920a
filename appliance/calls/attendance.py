"""Who is in the call, as it is told: the roster's document and the events of who comes, changes and goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall
from appliance.calls.roster import Participant, Roster
from appliance.errors import BadRequest
from appliance.providers.api import Leg, Member
from appliance.vocabulary import END_REASONS, CallKind, Json, ParticipantState, Reason

__all__ = ["Attendance"]


class Attendance:
    """Changes the roster of a call and tells it. ``current``: the call whose roster the document is; ``changed``: told
    of each change of it."""

    def __init__(
        self, bulletin: Bulletin, current: Callable[[], ActiveCall | None], changed: Callable[[ActiveCall], None],
    ) -> None:
        self._bulletin = bulletin
        self._current = current
        self._changed = changed

    @staticmethod
    def find(active: ActiveCall, participant: str) -> Participant:
        """Raises BadRequest (404/notFound) where nobody there has that id."""
        found = active.roster.members.get(participant)
        if found is None:
            raise BadRequest(f"nobody in the call has the id {participant!r}; state/roster has those there are",
                             code=404, sub_code="notFound")
        return found

    def seat(self, active: ActiveCall, leg: Leg) -> None:
        """A leg is one of the call's: its peer takes a seat; a room does not, who is there does."""
        if active.call.kind is CallKind.ROOM:
            return
        member = active.seat(leg, ParticipantState.CONNECTING)
        active.roster = active.roster.with_member(member)
        self._bulletin.post("call.participant.added", participant=member.payload())
        self.publish(active)

    def leave(self, active: ActiveCall, leg: Leg, reason: Reason) -> None:
        """A leg has ended: so has the seat of its peer, or all of them in a room."""
        for one in [leg.id] if active.call.kind is not CallKind.ROOM else [one.id for one in active.roster]:
            self._remove(active, one, reason)
        self.publish(active)

    def change(self, active: ActiveCall, participant_id: str, *, told: bool = True, **changes: Any) -> None:
        """``told``: by an event, beside the document."""
        roster = active.roster.changed(participant_id, **changes)
        if roster is active.roster:
            return
        active.roster = roster
        if told:
            self._bulletin.post("call.participant.updated", participant=roster.members[participant_id].payload())
        self.publish(active)

    def take(self, active: ActiveCall, members: Sequence[Member]) -> None:
        """The room's list is the truth: who is new, who changed, who is gone."""
        there, heard = {member.id: member for member in members}, active.speakers
        for gone in [one.id for one in active.roster if one.id not in there]:
            self._remove(active, gone, END_REASONS["0/remote"])
        known, changed = active.roster.members, list[Participant]()
        for member in members:
            changes: Json = {
                "display_name": member.display_name, "muted": member.muted,
                "speaking": member.id in heard.speaking if heard.measured else member.speaking,
                "video": member.video, "receiving": member.receiving, "content": member.content,
                "content_receiving": member.content_receiving, "quality": member.quality,
                "state": _state(member)}
            before = known.get(member.id)
            if before is None:
                seat = Participant(member.id, member.identity, kind="voip", joined=time.time(), **changes)
                self._bulletin.post("call.participant.added", participant=seat.payload())
            else:
                seat = replace(before, **changes)
                if seat != replace(before, speaking=seat.speaking):
                    self._bulletin.post("call.participant.updated", participant=seat.payload())
            changed.append(seat)
        active.roster = active.roster.with_members(changed)
        self.publish(active)

    def hear(self, active: ActiveCall, levels: Mapping[str, float], now: float) -> None:
        """How loud each has been in the last moment, in dBFS: who speaks, and who has the floor."""
        speakers, before = active.speakers, active.speakers.ranking
        if not speakers.update({one: level for one, level in levels.items() if one in active.roster}, now):
            return
        active.roster = active.roster.with_members(
            replace(one, speaking=one.id in speakers.speaking) for one in active.roster)
        self.publish(active)
        if speakers.ranking != before:
            self._bulletin.post("call.dominantSpeakersChanged", callId=active.id,
                                dominantSpeakers=list(speakers.ranking))

    def clear(self, active: ActiveCall) -> None:
        active.roster = Roster()
        self.publish(active)

    def publish(self, active: ActiveCall) -> None:
        if active is self._current():  # a leg of the call before may still be saying goodbye
            ranking = [one for one in active.speakers.ranking if one in active.roster]
            self._bulletin.set("roster", {"callId": active.id, **active.roster.payload(), "dominantSpeakers": ranking})
            self._changed(active)

    def _remove(self, active: ActiveCall, participant_id: str, reason: Reason) -> None:
        active.roster = active.roster.without(participant_id)
        self._bulletin.post("call.participant.removed", participantId=participant_id, reason=reason.payload())


def _state(member: Member) -> ParticipantState:
    if member.away:
        return ParticipantState.RECONNECTING
    return ParticipantState.CONNECTING if member.connecting else ParticipantState.CONNECTED
