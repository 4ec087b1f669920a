"""Who is in the call. Pure: each change returns a new roster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from appliance.clock import rfc3339
from appliance.vocabulary import Json, ParticipantState, Reason, Role

__all__ = ["Participant", "Roster"]


@dataclass(frozen=True, slots=True)
class Participant:
    """One participant. ``id`` is ours and unique in the roster, ``raw_id`` is the identity; times are wall clock."""

    id: str
    raw_id: str
    display_name: str
    kind: str = "unknown"  # voip, pstn, device, bot, unknown
    state: ParticipantState = ParticipantState.CONNECTING
    role: Role = Role.ATTENDEE
    muted: bool = False
    says_muted: bool = False  # by its own word, in a room
    hand_raised: float | None = None  # since when
    recording: bool = False  # by its own word: it has the call recorded
    speaking: bool = False
    video: bool = False
    receiving: bool = False
    content: bool = False
    content_receiving: bool = False
    quality: int | None = None
    joined: float | None = None  # wall clock
    reason: Reason | None = None

    @property
    def silent(self) -> bool:
        """Muted, whoever did it."""
        return self.muted or self.says_muted

    def payload(self) -> Json:
        body: Json = {
            "participantId": self.id, "rawId": self.raw_id, "kind": self.kind, "displayName": self.display_name,
            "role": self.role.value, "state": self.state.value, "isMuted": self.silent, "isSpeaking": self.speaking,
            "isHandRaised": self.hand_raised is not None, "isRecording": self.recording,
            "videoStreams": [{"id": f"{self.id}-video", "type": "Video", "isAvailable": self.video,
                              "isReceiving": self.receiving}],
        }
        if self.content:
            body["videoStreams"].append({"id": f"{self.id}-content", "type": "ScreenSharing", "isAvailable": True,
                                         "isReceiving": self.content_receiving})
        if self.quality is not None:
            body["networkQualityLevel"] = self.quality
        if self.joined is not None:
            body["joinedAt"] = rfc3339(self.joined)
        if self.reason is not None:
            body["endReason"] = self.reason.payload()
        return body


@dataclass(frozen=True, slots=True)
class Roster:
    """The participants by id, in the order in which they came."""

    members: Mapping[str, Participant] = field(default_factory=lambda: MappingProxyType({}))

    def __iter__(self) -> Iterator[Participant]:
        return iter(self.members.values())

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, participant_id: str) -> bool:
        return participant_id in self.members

    def with_member(self, participant: Participant) -> Roster:
        """Add or replace."""
        return Roster(MappingProxyType({**self.members, participant.id: participant}))

    def with_members(self, participants: Iterable[Participant]) -> Roster:
        """Add or replace them all in one pass: rooms have hundreds."""
        return Roster(MappingProxyType(dict(self.members) | {one.id: one for one in participants}))

    def changed(self, participant_id: str, **changes: object) -> Roster:
        """Change fields of one participant; an unknown id changes nothing (it may have left a moment ago)."""
        old = self.members.get(participant_id)
        if old is None:
            return self
        new = replace(old, **changes)  # type: ignore[arg-type]
        return self if new == old else self.with_member(new)

    def without(self, participant_id: str) -> Roster:
        return Roster(MappingProxyType({k: v for k, v in self.members.items() if k != participant_id}))

    def payload(self) -> Json:
        raised = sorted((member for member in self if member.hand_raised is not None),
                        key=lambda member: member.hand_raised or 0.0)
        return {"participants": [member.payload() for member in self], "raisedHands": [one.id for one in raised]}
