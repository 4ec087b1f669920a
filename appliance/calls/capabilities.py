"""What may be done in the call, by the capability names of ACS, and why not. Pure.

A verb that needs what is not there is refused with the reason, before the provider is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from appliance.errors import Refused
from appliance.vocabulary import CallKind, CapabilityReason, Json, Role

__all__ = ["Standing"]

_MODERATING: Final = frozenset({"hangUpForEveryOne", "removeParticipant", "muteOthers"})
_BUILT: Final = ("turnVideoOn", "unmuteMic", "hangUpForEveryOne", "removeParticipant", "muteOthers", "shareScreen",
                 "raiseHand", "startRecording")
_OF_ROOMS: Final = ("shareScreen", "startRecording", "removeParticipant", "muteOthers")
_NOT_BUILT: Final = ("blurBackground", "spotlightParticipant", "startLiveCallingCaptions", "realTimeText",
                     "addPhoneNumber", "pstnDialOut", "manageLobby", "useReactions", "startTogetherMode",
                     "joinBreakoutRooms")

_FORBIDDEN: Final[Mapping[Role, frozenset[str]]] = {
    Role.PRESENTER: frozenset(),
    Role.ATTENDEE: _MODERATING | {"shareScreen", "startRecording"},
    Role.CONSUMER: _MODERATING | {"raiseHand", "turnVideoOn", "unmuteMic", "shareScreen",
                                  "startRecording"},
}
"""In a room, by role; as in ACS Rooms."""

_WORDS: Final[Mapping[CapabilityReason, str]] = {
    CapabilityReason.ROLE_RESTRICTED: "the role of this device in the room ({role}) does not allow it; see the role "
                                      "of the room in the settings",
    CapabilityReason.MEETING_RESTRICTED: "a moderator of the room does not allow it; ask the moderator",
}
_SECRET: Final[Mapping[str, str]] = {
    "hangUpForEveryOne": "this room cannot be ended for everyone from here; give its secret in the settings",
    "removeParticipant": "this device sends nobody out of this room; give its secret in the settings",
    "muteOthers": "this device mutes nobody in this room; give its secret in the settings",
    "startRecording": "this room cannot be recorded from here; give its secret in the settings",
}
"""What takes the secret of the room."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the device stands. ``kind``: of the call, None without one. ``missing``: capabilities that the device
    lacks, and why. ``barred``: those that a moderator has taken away. ``moderates``: of a room, whether the device
    has what its server asks of moderators."""

    kind: CallKind | None = None
    role: Role = Role.ATTENDEE
    hardware_muted: bool = False
    moderates: bool = False
    records: bool = False
    barred: Set[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict)

    def reason(self, capability: str) -> CapabilityReason:
        if capability in self.missing or capability not in _BUILT:
            return CapabilityReason.FEATURE_NOT_SUPPORTED
        if self.kind is CallKind.ROOM and capability in _FORBIDDEN[self.role]:
            return CapabilityReason.ROLE_RESTRICTED
        if capability == "unmuteMic" and self.hardware_muted:
            return CapabilityReason.CLIENT_RESTRICTED
        if capability in self.barred:
            return CapabilityReason.MEETING_RESTRICTED
        if capability in _OF_ROOMS and self.kind not in (None, CallKind.ROOM):
            return CapabilityReason.FEATURE_NOT_SUPPORTED
        able = self.records if capability == "startRecording" else self.moderates or capability not in _MODERATING
        if self.kind is CallKind.ROOM and not able:
            return CapabilityReason.NOT_CAPABLE
        return CapabilityReason.CAPABLE

    def document(self) -> Mapping[str, Json]:
        """What is lacking says so instead of silently succeeding."""
        reasons = {name: self.reason(name) for name in (*_BUILT, *_NOT_BUILT, *self.missing)}
        return {name: {"isPresent": reason is CapabilityReason.CAPABLE, "reason": reason.value}
                for name, reason in reasons.items()}

    def require(self, capability: str) -> None:
        """Raises Refused (403, or 501/FeatureNotSupported) with the reason where the capability is not there."""
        reason = self.reason(capability)
        if reason is CapabilityReason.CAPABLE:
            return
        if reason is CapabilityReason.FEATURE_NOT_SUPPORTED:
            raise Refused(self.missing.get(capability, f"this device does not offer {capability}"), code=501,
                          sub_code=reason.value, retryable=False)
        if reason is CapabilityReason.CLIENT_RESTRICTED:
            raise Refused("the microphone is muted by the switch on the device; use that switch", code=403,
                          sub_code="hardwareMuted", retryable=False)
        words = _SECRET[capability] if reason is CapabilityReason.NOT_CAPABLE else _WORDS[reason]
        raise Refused(words.format(role=self.role.value), code=403, sub_code=reason.value, retryable=False)
