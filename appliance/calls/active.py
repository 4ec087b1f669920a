"""The call in progress: the pure `Call`, its legs, its roster, what is wanted of its media, and its documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

from appliance.calls.book import Entry, Round
from appliance.calls.capabilities import Standing
from appliance.calls.machine import Call
from appliance.calls.roster import Participant, Roster
from appliance.calls.speakers import Speakers
from appliance.calls.terms import FREE, Terms
from appliance.clock import RateLimits, rfc3339
from appliance.errors import EdgecallError
from appliance.providers.api import Leg, MediaWanted, Moderated, Peer, Pictures, Pressed
from appliance.vocabulary import (
    END_REASONS,
    CallState,
    Direction,
    Json,
    KeyPress,
    MutedBy,
    ParticipantState,
    Reason,
    Role,
)

__all__ = ["TELEPHONES", "ActiveCall", "no_call"]


TELEPHONES: Final = ("tel", "sip", "sips", "meeting")
"""Schemes of targets that are not known to carry pictures."""

DATA_PER_S: Final = 20.0  # data messages of a peer that become events, each of them written to the outbox
DATA_BURST: Final = 100.0
SENDERS: Final = 64  # in a room, whose numbers are remembered; whoever sent longest ago is forgotten first


@dataclass(slots=True)
class ActiveCall:
    """Mutable, owned by the controller alone; lives on the loop."""

    call: Call
    media: MediaWanted
    plan: Sequence[Round] = ()  # whom to dial, outgoing only
    peer: Peer | None = None
    leg: Leg | None = None  # the one that counts: incoming, or accepted
    legs: dict[str, Leg] = field(default_factory=dict)  # every leg that has not ended
    roster: Roster = field(default_factory=Roster)
    speakers: Speakers = field(default_factory=Speakers)  # in a room
    terms: Terms = FREE  # of the room
    unattended: bool = False  # begun by the appliance itself
    emergency: bool = False  # no guard of ours stops it
    hand_raised: bool = False
    to_say: asyncio.Event = field(default_factory=asyncio.Event)  # what we say of ourselves has changed
    muted: bool = False
    muted_by_peer: bool = False  # by a moderator, until we unmute ourselves
    barred: Moderated = field(default_factory=Moderated)  # what the room does not hand on of ours, whatever we do
    incoming_muted: bool = False
    content: bool = False  # a file is shown to the others
    pictures: dict[str, Pictures] = field(default_factory=dict)  # by leg, as far as it has told
    video_asked: bool = False  # by command, in this call
    recording: bool = False  # the other side records it by our word
    recorders_told: Set[str] = frozenset()
    recording_heard: frozenset[str] = frozenset()  # who could hear that it was announced
    arrival_awaited: bool = False  # to announce it to somebody who has come
    auto_answer: bool = False
    security: Json = field(default_factory=dict)
    lost_at: float | None = None
    wall_began: float = field(default_factory=time.time)
    connected: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    leg_changed: asyncio.Event = field(default_factory=asyncio.Event)  # the dialler waits on it
    last_leg_reason: Reason | None = None
    data_limits: RateLimits = field(
        default_factory=lambda: RateLimits(DATA_PER_S, DATA_BURST, time.monotonic, most=SENDERS))
    handed_on: bool = False  # it goes on with somebody else than it began with
    former_id: str = ""  # before glare was settled; a command that names it means this call

    @property
    def id(self) -> str:
        return self.call.id

    def go_on_as(self, call_id: str | None) -> None:
        """Take the id of the peer's call, which lives in place of ours (glare); None changes nothing."""
        if call_id is not None and call_id != self.id:
            self.former_id, self.call = self.id, replace(self.call, id=call_id)

    @property
    def held(self) -> bool:
        """Nothing of us may be sent or played while either side holds."""
        return self.call.local_hold or self.call.remote_hold

    @property
    def recorders(self) -> Set[str]:
        """Who has the call recorded: ids of the roster, and ``""`` for this device."""
        return {one.id for one in self.roster if one.recording} | ({""} if self.recording else set())

    @property
    def carries(self) -> Pictures:
        """Whether pictures of ours can go in this call: while nobody has answered not to telephones alone, so that the
        camera stays closed, and to a telephone as its leg says."""
        if self.leg is not None:
            return self.pictures.get(self.leg.id, Pictures(self.leg.peer.kind != "pstn"))
        targets = [target for one in self.plan for target in one.targets]
        return Pictures(not targets or any(target.scheme not in TELEPHONES for target in targets))

    def begin_pictures(self) -> None:
        """The call is up: in one of sound alone only we ourselves begin to show something, whatever the other side
        begins."""
        if not self.carries.carried and not self.video_asked:
            self.media = replace(self.media, send_video=False)

    @property
    def permitted(self) -> MediaWanted:
        """What is wanted of the media, as far as the role in the room and the way to the peer go."""
        permitted = self.terms.permit(self.media)
        carries = self.carries
        asked = self.video_asked and not carries.refusal
        return permitted if carries.carried or asked else replace(permitted, send_video=False)

    @property
    def in_force(self) -> MediaWanted:
        """What is asked of the leg now."""
        if not self.held:
            return self.permitted
        return replace(self.permitted, send_audio=False, send_video=False, receive_audio=False, receive_video=False)

    @property
    def idle_try(self) -> bool:
        """Nobody waits for this call, and it has not come to anything (yet)."""
        return self.unattended and self.call.connected is None

    def muted_by(self, *, hardware: bool) -> MutedBy:
        """Why nothing of us is heard: the hardware line beats everything."""
        if hardware:
            return MutedBy.HARDWARE
        if self.terms.role is Role.CONSUMER:
            return MutedBy.POLICY
        if self.muted:
            return MutedBy.LOCAL
        return MutedBy.REMOTE if self.muted_by_peer else MutedBy.NOBODY

    async def outcome(self) -> Json:
        """Wait until the call is connected or over; over is a failure in the words of its reason."""
        over = asyncio.ensure_future(self.closed.wait())
        waiting: set[asyncio.Future[Any]] = {over, self.connected}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        if self.connected.done():
            return {"callId": self.id}
        reason = self.call.reason or END_REASONS["500/internal"]
        raise EdgecallError(reason.message, code=reason.code, sub_code=reason.sub_code, category=reason.category,
                            callId=self.id)

    def moderated(self, barred: Moderated) -> Sequence[str]:
        """Take what a moderator does; returns the kinds that are muted by it now. What the moderator lets go stays as
        it is: only we ourselves begin to send again."""
        before, self.barred = self.barred, barred
        both = (("audio", before.audio, barred.audio), ("video", before.video, barred.video))
        muted = [kind for kind, was, now in both if now and not was]
        if "audio" in muted:
            self.muted_by_peer = True
        if "video" in muted:
            self.media = replace(self.media, send_video=False)
        return muted

    def standing(self, *, hardware_muted: bool, missing: Mapping[str, str]) -> Standing:
        barred = {name for name, so in (("unmuteMic", self.barred.audio), ("turnVideoOn", self.barred.video)) if so}
        if refusal := self.carries.refusal:
            missing = {**missing, "turnVideoOn": refusal}
        missing = {**missing, **self.terms.lacks}
        return Standing(self.call.kind, self.terms.role, hardware_muted,
                        self.leg is not None and self.leg.moderates,
                        self.leg is not None and self.leg.records, barred, missing)

    def wall(self, moment: float) -> float:
        """Wall clock of a monotonic moment of this call; a clock that jumps does not bend durations."""
        return self.wall_began + (moment - self.call.began)

    def seat(self, leg: Leg, state: ParticipantState) -> Participant:
        """The participant behind a leg."""
        peer = leg.peer
        return Participant(leg.id, peer.identity, peer.display_name, peer.kind, state,
                           joined=time.time() if state is ParticipantState.CONNECTED else None)

    def key(self, pressed: Pressed, peer: Peer, entry: Entry | None) -> KeyPress:
        """A key of ``peer``, whom the address book knows as ``entry``; whom we called is who was meant."""
        return KeyPress(
            self.id, pressed.digit, self.call.direction, peer.identity, peer.uri, "" if entry is None else entry.name,
            peer.verified or (self.call.direction is Direction.OUTGOING and not self.handed_on), pressed.encrypted,
            pressed.method)

    def document(self, now: float, *, hardware_muted: bool, capabilities: Mapping[str, Json]) -> Json:
        """``state/call``, and what the record of the call is made of."""
        call, peer = self.call, self.peer
        muted_by = self.muted_by(hardware=hardware_muted)
        body: Json = {
            "callId": call.id, "correlationId": call.id, "direction": call.direction.value, "kind": call.kind.value,
            "state": call.state.value, "previousState": call.previous.value, "since": rfc3339(self.wall(call.since)),
            "began": rfc3339(self.wall_began),
            "callerInfo": None if peer is None else {
                "rawId": peer.identity, "uri": peer.uri, "displayName": peer.display_name, "verified": peer.verified},
            "isMuted": muted_by is not MutedBy.NOBODY, "mutedBy": muted_by.value,
            "isIncomingAudioMuted": self.incoming_muted,
            "isLocalVideoStarted": self.permitted.send_video and not self.held,
            "isHandRaised": self.hand_raised,
            "isContentSharingOn": self.content, "isRecordingActive": bool(self.recorders),
            "isAutoAnswered": self.auto_answer, "isEmergency": self.emergency,
            "localHold": call.local_hold, "remoteHold": call.remote_hold,
            "role": self.terms.role.value, "capabilities": dict(capabilities), "security": self.security,
            "connectedAt": None if call.connected is None else rfc3339(self.wall(call.connected)),
            "endReason": None if call.reason is None else call.reason.payload(),
        }
        if call.state is CallState.DISCONNECTED:
            body["durationMs"] = self.duration_ms(now)
        return body

    def duration_ms(self, now: float) -> int:
        """From the connection to the end, or to now."""
        end = self.call.since if self.call.state is CallState.DISCONNECTED else now
        return 0 if self.call.connected is None else round((end - self.call.connected) * 1000)


def no_call(capabilities: Mapping[str, Json]) -> Json:
    """``state/call`` before the first call."""
    return {"callId": None, "state": CallState.NONE.value, "capabilities": dict(capabilities)}
