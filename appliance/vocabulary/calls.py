"""States of calls and participants, roles, capabilities, and why a call ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appliance.vocabulary.commands import Category, Json

__all__ = [
    "END_REASONS", "CallKind", "CallState", "CapabilityReason", "Direction", "MutedBy", "ParticipantState",
    "Reason", "Role", "calling",
]


class CallState(StrEnum):
    """States of a call: the ten of ACS, and three of ours."""

    NONE = "None"  # no call
    CONNECTING = "Connecting"  # signalling sent, nothing heard yet
    RINGING = "Ringing"  # the other side rings
    EARLY_MEDIA = "EarlyMedia"  # the other side plays before it answers
    INCOMING = "Incoming"  # somebody calls us
    IN_LOBBY = "InLobby"  # waiting to be let in
    CONNECTED = "Connected"  # answered, media flows in each negotiated direction
    LOCAL_HOLD = "LocalHold"  # we hold
    REMOTE_HOLD = "RemoteHold"  # they hold
    RECONNECTING = "Reconnecting"  # media lost, being re-established under the same call
    TRANSFERRING = "Transferring"  # handed to a third party
    DISCONNECTING = "Disconnecting"  # leaving, waiting for the other side's word or 2 s
    DISCONNECTED = "Disconnected"  # over; carries the reason


def calling(call: Json) -> bool:
    """Whether a document ``call`` is of a call that is not over."""
    return CallState(call.get("state", CallState.NONE)) not in (CallState.NONE, CallState.DISCONNECTED)


class Direction(StrEnum):
    INCOMING = "Incoming"
    OUTGOING = "Outgoing"


class CallKind(StrEnum):
    P2P = "P2P"
    GROUP = "Group"
    ROOM = "Room"
    PSTN = "PSTN"
    LAN = "LAN"


class ParticipantState(StrEnum):
    IDLE = "Idle"
    CONNECTING = "Connecting"
    RINGING = "Ringing"
    CONNECTED = "Connected"
    HOLD = "Hold"
    IN_LOBBY = "InLobby"
    EARLY_MEDIA = "EarlyMedia"
    RECONNECTING = "Reconnecting"
    DISCONNECTED = "Disconnected"


class MutedBy(StrEnum):
    """Why nothing of us is heard; the strongest reason wins."""

    NOBODY = ""
    LOCAL = "local"
    REMOTE = "remote"
    HARDWARE = "hardware"
    POLICY = "policy"


class Role(StrEnum):
    """In a room, as in ACS Rooms."""

    PRESENTER = "Presenter"  # may do all
    ATTENDEE = "Attendee"  # sends and receives
    CONSUMER = "Consumer"  # only hears and sees


class CapabilityReason(StrEnum):
    """Why a capability is there or not; the words of ACS."""

    CAPABLE = "Capable"
    NOT_CAPABLE = "NotCapable"  # not here and now
    CLIENT_RESTRICTED = "ClientRestricted"  # by a switch of the device
    ROLE_RESTRICTED = "RoleRestricted"  # by the role in the room
    MEETING_RESTRICTED = "MeetingRestricted"  # by a moderator of the room
    FEATURE_NOT_SUPPORTED = "FeatureNotSupported"  # by this device


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a call ended or a command failed: ACS-like code and sub-code, with words for people. ``sip_reason``: what the
    telephone network told of it (RFC 3326), ``q850``: the cause of Q.850 in that."""

    code: int
    sub_code: str
    category: Category
    message: str
    advice: str = ""
    sip_reason: str = ""
    q850: int | None = None

    @property
    def key(self) -> str:
        return f"{self.code}/{self.sub_code}"

    def payload(self) -> Json:
        told: Json = {"sipReason": self.sip_reason} if self.sip_reason else {}
        if self.q850 is not None:
            told["q850"] = self.q850
        return {"code": self.code, "subCode": self.sub_code, "category": self.category.value,
                "message": self.message, "advice": self.advice, **told}


def _reasons(*rows: tuple[int, str, Category, str, str]) -> Mapping[str, Reason]:
    return {f"{code}/{sub}": Reason(code, sub, category, message, advice)
            for code, sub, category, message, advice in rows}


_OK, _EXP, _CLI, _SRV = Category.SUCCESS, Category.EXPECTED, Category.CLIENT, Category.SERVER

END_REASONS: Final[Mapping[str, Reason]] = _reasons(
    (0, "local", _OK, "The call was ended here.", ""),
    (0, "remote", _OK, "The other side ended the call.", ""),
    (0, "emergency", _OK, "The call was ended here for an emergency call.", ""),
    (0, "transferred", _OK, "The call was handed on to somebody else.", ""),
    (0, "removed", _OK, "Another participant removed this device.", ""),
    (0, "endedForAll", _OK, "The call was ended for everyone.", ""),
    (487, "cancelled", _OK, "The caller gave up before the call was answered.", ""),
    (487, "answeredElsewhere", _OK, "Somebody else answered the call.", ""),
    (487, "noAnswer", _EXP, "Nobody answered in time.", "Call again later, or add a fallback to the address book."),
    (603, "declined", _OK, "The other side declined the call.", ""),
    (486, "busy", _OK, "The other side is in a call.", "Call again later."),
    (480, "unreachable", _EXP, "The other side is not online.",
     "See that somebody is on duty on the operator page, or that the other device is switched on."),
    (480, "doNotDisturb", _EXP, "The other side does not want to be disturbed.", "Call again later."),
    (404, "notFound", _EXP, "Nobody has this name or address.", "Check the address book."),
    (403, "notAllowed", _EXP, "The caller is not on the allow-list.", "Add the caller to the address book."),
    (403, "lockedDown", _EXP, "The device is locked down: nobody but the emergency target may be called, or rings.",
     "Lift it with lockdown.set off."),
    (403, "forbidden", _EXP, "The other side, or the provider, does not permit the call.",
     "Check what the account may call."),
    (403, "numberBarred", _EXP, "This device may not call this number.",
     "Add its prefix to sip.allowed_prefixes, if it is to be called."),
    (429, "callLimit", _EXP, "This device has made as many telephone calls within the hour as it may.",
     "Wait, and see who or what calls so often; sip.calls_per_hour and sip.calls_per_target set the limits."),
    (401, "credentials", _CLI, "The provider does not take name or password of the account.",
     "Check username and password_file in [[sip.accounts]]."),
    (403, "wrongMeetingId", _EXP, "The service of the meeting did not take its number, or the passcode.",
     "Check id and passcode_file in [[sip.meetings]], and that the meeting has begun."),
    (404, "noSuchRoom", _EXP, "The server has no such room.", "Check the room's id, and that the room still exists."),
    (403, "roomFull", _EXP, "The room is full.", "Try again later, or raise the number of publishers of the room."),
    (403, "wrongPin", _EXP, "The PIN of the room is missing or wrong.", "Check the PIN."),
    (403, "notInvited", _EXP, "The room does not let this device in.",
     "See that the room's list of tokens has that of this device."),
    (403, "outsideSchedule", _EXP, "The room is not open now.",
     "Join within the times of the room, and see that the clock of this device is right."),
    (403, "roleChanged", _EXP, "The role of this device no longer permits the call.", ""),
    (400, "badOffer", _CLI, "The media server finds our offer malformed.",
     "See that publish and play of [[whip]] are not mixed up; else this is a defect."),
    (403, "notPermitted", _EXP, "The media server does not let this device publish or play there.",
     "Check the token, and what it permits."),
    (404, "noSuchEndpoint", _EXP, "There is nothing to publish to or to play at this address of the media server.",
     "Check publish and play of [[whip]]."),
    (406, "offerRefused", _EXP, "The media server does not accept what we offer.",
     "See that it takes Opus, and H.264 of the constrained baseline profile."),
    (409, "endpointTaken", _EXP, "Somebody else publishes at this address of the media server.",
     "End that, or publish to another address."),
    (409, "nothingPublished", _EXP, "Nobody publishes there at the moment.", "Call again when somebody does."),
    (415, "noSdp", _EXP, "What answers at this address takes no offers: it is no endpoint of WHIP or WHEP.",
     "Check publish and play of [[whip]]."),
    (422, "offerNotProcessed", _EXP, "The media server cannot process our offer.",
     "See in its log what it lacks; it must take Opus and H.264 over one transport (BUNDLE)."),
    (429, "tooManyRequests", _EXP, "The media server gets more requests than it takes.", "Call again later."),
    (495, "certificate", _EXP, "The certificate of the media server is not trusted.",
     "Name its authority in ca_file of [[whip]], and check the clock."),
    (503, "serverBusy", _SRV, "The media server is overloaded, or in maintenance.", "Call again later."),
    (408, "setupTimeout", _CLI, "The call could not be set up in time.", "Check the network between both sides."),
    (410, "mediaLost", _CLI, "Sound and picture were lost and did not come back.",
     "Check the network of the other side."),
    (410, "oneWayMedia", _CLI, "Nothing was received from the other side.",
     "Check firewalls, and that the other side's microphone works."),
    (410, "iceFailed", _EXP, "No network path for sound and picture was found.",
     "Open UDP between both sides, or configure a TURN server."),
    (410, "deviceFault.restart", _CLI, "The appliance restarted during the call.", ""),
    (410, "deviceFault.media", _CLI, "Sound or camera of this device failed.", "See the diagnostics."),
    (401, "token", _CLI, "The token is wrong or has expired.", "Issue a new token."),
    (496, "networkLost", _EXP, "This device lost its network.", "Check cable, switch and Wi-Fi."),
    (500, "internal", _CLI, "The appliance failed; this is a defect.", "Send the log to the maintainers."),
    (503, "provider", _SRV, "The service reported an error.", "Try again later."),
    (503, "shutdown", _EXP, "The appliance is shutting down.", ""),
    (488, "noCodec", _EXP, "Both sides have no codec, or no encryption, in common.",
     "Use a peer with Opus, and with H.264 for video; telephones need Opus, G.722 or G.711, and SRTP unless "
     "sip.require_encryption is off."),
    (488, "dtls", _CLI, "The encrypted connection could not be established.", "Check the clocks of both sides."),
)
