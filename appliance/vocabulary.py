"""The one schema: verbs, answers, events, state documents, call and participant states, reasons.

No behaviour. The MQTT payload checks, HTTP routes, OpenAPI, CLI, AsyncAPI, the broker's ACL file and the reference
in ``docs/`` are generated from what is declared here (``appliance/faces``). A verb stands here when it is built.

Names follow Azure Communication Services for states and diagnostics, SIP (RFC 3261) for codes, CloudEvents 1.0
for events, W3C webrtc-stats for statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final

ROOT: Final = "edgecall/v1"
"""Topic root; a breaking change of the contract is a new root."""

ID_PATTERN: Final = r"^[a-z0-9-]{3,40}$"
"""Device ids and user names."""

MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of one command, answer or event on any door."""

Json = dict[str, Any]


# --- commands -------------------------------------------------------------------------------------------------------


class Scope(StrEnum):
    """Who may give a verb. A higher scope includes the lower ones: admin > device > operator."""

    OPERATOR = "operator"
    DEVICE = "device"
    ADMIN = "admin"

    def permits(self, needed: Scope) -> bool:
        return _RANK[self] >= _RANK[needed]


_RANK: Final = {Scope.OPERATOR: 0, Scope.DEVICE: 1, Scope.ADMIN: 2}


class ArgType(StrEnum):
    """JSON types an argument may have."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRINGS = "strings"  # array of strings
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument of a verb. ``minimum``/``maximum`` bound a number, or the length of a string or array; ``fields``
    are the members of an object, which then has no others."""

    name: str
    type: ArgType
    help: str
    required: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    pattern: str | None = None
    positional: bool = False  # the CLI takes it without its name
    secret: bool = False  # never logged
    fields: tuple[Arg, ...] = ()


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing the appliance can be told to do.

    ``acts``: it does something in the world that must not happen late; it needs ``ttl_s`` up to ``max_ttl_s``.
    ``idempotent``: after a crash an unfinished one is run again; the others answer ``failed/interrupted``.
    ``long``: answers ``accepted`` first and one final answer later.
    ``two_step``: while the clock is not synchronised it needs a challenge.
    """

    name: str
    summary: str
    args: tuple[Arg, ...] = ()
    acts: bool = False
    max_ttl_s: float = 30.0
    scope: Scope = Scope.OPERATOR
    idempotent: bool = True
    long: bool = False
    two_step: bool = False
    returns: str = ""  # what stands in the answer's ``data``

    def arg(self, name: str) -> Arg | None:
        return next((a for a in self.args if a.name == name), None)


class Origin(StrEnum):
    """The door a command came through."""

    MQTT = "mqtt"
    HTTP = "http"
    CLI = "cli"
    PANEL = "panel"
    DATA = "data"  # a call's data channel
    DIGITS = "digits"  # keys of a telephone, pressed in a call
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Command:
    """One command, checked against its verb.

    ``ts``: the sender's wall clock, seconds since the epoch, None when it gave none. ``deadline``: monotonic
    seconds on our clock, None for verbs that only stop or mute. ``sender``: who, for the audit.
    """

    id: str
    verb: Verb
    args: Mapping[str, Any]
    origin: Origin
    sender: str = ""
    scope: Scope = Scope.ADMIN
    ts: float | None = None
    ttl_s: float | None = None
    deadline: float | None = None
    nonce: str | None = None


class Result(StrEnum):
    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self is not Result.ACCEPTED


class Category(StrEnum):
    """ACS result categories."""

    SUCCESS = "Success"
    EXPECTED = "ExpectedError"
    CLIENT = "UnexpectedClientError"
    SERVER = "UnexpectedServerError"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one command, the same on every door."""

    id: str
    result: Result
    code: int = 0  # SIP-like; 0 is success
    sub_code: str = ""
    category: Category = Category.SUCCESS
    message: str = ""
    state_rev: int = 0
    data: Json | None = None

    def payload(self) -> Json:
        """The wire form (``data`` only where the verb returns something)."""
        body: Json = {
            "id": self.id,
            "result": self.result.value,
            "code": self.code,
            "subCode": self.sub_code,
            "category": self.category.value,
            "message": self.message,
            "state_rev": self.state_rev,
        }
        if self.data is not None:
            body["data"] = self.data
        return body


DEVICE_KINDS: Final = ("microphone", "speaker", "camera", "capture", "display", "panel")
"""Kinds of device, as ``hw.api.Kind`` has them."""

DIALECTS: Final = ("w3c", "acs")
"""Names and units of statistics: W3C webrtc-stats, or Azure Communication Services."""

# --- the verbs ------------------------------------------------------------------------------------------------------

_TO = Arg("to", ArgType.STRING,
          "name in the address book, or URI (device:, operator:, lan:, tel:, sip:, room:, audio:, meeting:, "
          "whip:)",
          positional=True, minimum=1, maximum=256)
_DIALECT = Arg("dialect", ArgType.STRING, "names and units: of W3C (default), or of Azure Communication Services",
               choices=DIALECTS)
_CALL = Arg("callId", ArgType.STRING, "refuse unless this is the current call", maximum=64)
LAYOUTS: Final = ("speaker", "grid", "pip", "single", "content", "none")
"""Where on the screen whose picture stands."""
FITS: Final = ("fit", "crop", "stretch")
KEY_METHODS: Final = ("rfc4733", "info", "inband")
"""How keys of a telephone get to the other side (``KeyMethod``)."""
QUALITIES: Final = ("auto", "low", "mid", "high", "off")
_LAYOUT = Arg("layout", ArgType.STRING, "where on the screen whose picture stands, for this call", choices=LAYOUTS)

VERBS: Final[tuple[Verb, ...]] = (
    Verb("call.dial", "Call a target or a ring group.", (
        _TO,
        Arg("targets", ArgType.STRINGS, "several targets, in place of 'to'", minimum=1, maximum=16),
        Arg("strategy", ArgType.STRING, "order in which targets ring", choices=("sequence", "parallel")),
        Arg("ringSeconds", ArgType.INTEGER, "seconds each target rings", minimum=5, maximum=120),
        Arg("digits", ArgType.STRING, "keys that a telephone is told once it has answered: digits, ',' waits 2 s, 'w' "
            "until it has said what it says", minimum=1, maximum=64, pattern="^[0-9*#A-Da-dw,]+$", secret=True),
        Arg("audio", ArgType.BOOLEAN, "send audio (default true)"),
        Arg("video", ArgType.BOOLEAN, "send video (default true)"),
        _LAYOUT,
    ), acts=True, idempotent=False, long=True, returns="callId"),
    Verb("call.answer", "Answer the incoming call.", (
        _CALL, Arg("audio", ArgType.BOOLEAN, "send audio (default true)"),
        Arg("video", ArgType.BOOLEAN, "send video (default true)"),
        _LAYOUT,
    ), acts=True, idempotent=False, long=True, returns="callId"),
    Verb("call.reject", "Reject the incoming call.", (
        _CALL, Arg("reason", ArgType.STRING, "what the caller is told", choices=("declined", "busy")),
    )),
    Verb("call.hangup", "End the call.", (
        _CALL, Arg("forEveryone", ArgType.BOOLEAN, "send everybody else out of the room too; needs the capability "
                   "hangUpForEveryOne"),
    )),
    Verb("room.join", "Join a room.", (
        Arg("target", ArgType.STRING, "name in the address book or the settings, the room's id, or room: "
            "(of AudioBridge audio:) and either",
            required=True, positional=True, minimum=1, maximum=256),
        Arg("pin", ArgType.STRING, "PIN of the room, where the settings have none", maximum=128, secret=True),
        Arg("displayName", ArgType.STRING, "the name to stand there by (default: that of the device)", maximum=64),
        Arg("audio", ArgType.BOOLEAN, "send audio (default true)"),
        Arg("video", ArgType.BOOLEAN, "send video (default true)"),
        _LAYOUT,
    ), acts=True, idempotent=False, long=True, returns="callId"),
    Verb("room.leave", "Leave the room.", (_CALL,)),
    Verb("token.set", "Give the token for the rooms, in place of the one before; it is kept until the settings name "
         "another one.", (
        Arg("token", ArgType.STRING, "the token", required=True, minimum=1, maximum=4096, secret=True),
        Arg("expiresIn", ArgType.INTEGER, "seconds for which it is good, where it does not say so itself", minimum=1,
            maximum=31_536_000),
    ), scope=Scope.ADMIN),
    Verb("call.raiseHand", "Ask the others in the call for attention.", (_CALL,), acts=True),
    Verb("call.lowerHand", "Ask for attention no longer.", (_CALL,)),
    Verb("call.transfer", "Hand the other side of a telephone call on to another telephone; then it is over here.", (
        Arg("to", ArgType.STRING, "name in the address book, or URI (tel:, sip:)", required=True, positional=True,
            minimum=1, maximum=256),
        Arg("attended", ArgType.BOOLEAN, "only when that one has answered; it is called from here first"),
        _CALL,
    ), acts=True, idempotent=False, long=True, returns="callId"),
    Verb("call.hold", "Hold the call: nothing of us is sent, nothing is played.", (_CALL,), acts=True),
    Verb("call.resume", "Resume the held call.", (_CALL,), acts=True),
    Verb("call.mute", "Mute the microphone."),
    Verb("call.unmute", "Unmute the microphone.", acts=True, max_ttl_s=5),
    Verb("call.muteOthers", "Mute the microphones of everybody else in the room; each opens its own again. Needs the "
         "capability muteOthers.", (
        Arg("participantId", ArgType.STRING, "this one alone, as in state/roster", maximum=128),
        _CALL,
    )),
    Verb("call.remove", "Send somebody out of the room. Needs the capability removeParticipant.", (
        Arg("participantId", ArgType.STRING, "as in state/roster", required=True, positional=True, maximum=128),
        _CALL,
    ), acts=True),
    Verb("call.muteIncoming", "Do not play what the other side says."),
    Verb("call.unmuteIncoming", "Play what the other side says again.", acts=True),
    Verb("video.start", "Send the camera's picture.", acts=True, max_ttl_s=5),
    Verb("video.stop", "Stop sending the camera's picture; the sensor closes."),
    Verb("video.constraints", "Limit the picture, live; 0 lifts a limit, what is left out stays. inForce in the answer "
         "tells what that comes to.", (
        Arg("send", ArgType.OBJECT, "limits on what is sent", fields=(
            Arg("frameHeight", ArgType.INTEGER, "lines; the next lower step is taken, 180 at the least",
                minimum=0, maximum=2160),
            Arg("frameRate", ArgType.INTEGER, "pictures per second", minimum=0, maximum=60),
            Arg("bitrate", ArgType.INTEGER, "bits per second; 55000 at the least, and then 180 lines", minimum=0,
                maximum=50_000_000),
        )),
        Arg("recv", ArgType.OBJECT, "limits on what each peer is asked to send", fields=(
            Arg("frameHeight", ArgType.INTEGER, "lines; told as the bit rate that they take", minimum=0, maximum=2160),
            Arg("maxBitrate", ArgType.INTEGER, "bits per second", minimum=0, maximum=50_000_000),
        )),
        Arg("degradationPreference", ArgType.STRING, "what is kept when the network carries less",
            choices=("balanced", "maintain-framerate", "maintain-resolution")),
    ), returns="constraints"),
    Verb("devices.select", "Use this microphone, speaker or camera, in a call too, over restarts and whenever it is "
         "plugged in; auto: the best of the board's own order.", (
        Arg("kind", ArgType.STRING, "which kind of device", required=True, positional=True,
            choices=DEVICE_KINDS),
        Arg("id", ArgType.STRING, "its id as state/devices tells it; auto or empty: by the board's own order",
            required=True, positional=True, maximum=128),
    ), returns="choice: what is selected, what is used, and why"),
    Verb("video.layout", "Where on the screen whose picture stands: in a call until its end, without one until the "
         "next start. What is not shown is not received.", (
        Arg("layout", ArgType.STRING, "speaker: who speaks large, the others small beside; grid: all of one size; pip: "
            "who speaks, and an inset of oneself; single: who speaks, alone; content: what is shared, people beside; "
            "none: no picture", choices=LAYOUTS, positional=True),
        Arg("fit", ArgType.STRING, "pictures of another shape than their place: fit has bars beside, crop cuts off, "
            "stretch distorts", choices=FITS),
    ), returns="layout"),
    Verb("video.subscribe", "How the picture of one participant is received, until that one leaves.", (
        Arg("participantId", ArgType.STRING, "as in state/roster", required=True, positional=True, maximum=128),
        Arg("quality", ArgType.STRING, "of senders of several: low, mid or high; auto: by the size of its place on the "
            "screen; off: not at all", required=True, positional=True, choices=QUALITIES),
    )),
    Verb("content.start", "Show a picture, a video or what an HDMI capture receives to the others in the room, beside "
         "the camera; the next one takes its place.", (
        Arg("source", ArgType.STRING, "name of a file in the folder of video.content_dir; device:ID: a capture device, "
            "or a camera that is not in use, by its id in state/devices", required=True, positional=True, minimum=1,
            maximum=255),
        _CALL,
    ), acts=True),
    Verb("content.stop", "Show it no longer.", (_CALL,)),
    Verb("record.start", "Have the server of the room record everybody in it, until record.stop or the end of the call "
         "here; the others are told.", (_CALL,), acts=True, returns="isRecordingActive"),
    Verb("record.stop", "Have it record no longer.", (_CALL,), returns="isRecordingActive: by others, who alone can "
         "stop what they began"),
    Verb("devices.volume", "Loudspeaker volume, until the next start.", (
        Arg("percent", ArgType.INTEGER, "0 to 100", required=True, positional=True, minimum=0, maximum=100),
    )),
    Verb("audio.filters", "Change what is done to the microphone's sound, also in a call, until the next start.", (
        Arg("aec", ArgType.BOOLEAN, "cancel the loudspeaker's echo"),
        Arg("ns", ArgType.STRING, "take steady noise away", choices=("off", "low", "high")),
        Arg("agc", ArgType.BOOLEAN, "raise quiet voices"),
        Arg("highpass", ArgType.BOOLEAN, "take rumble away"),
        Arg("halfDuplex", ArgType.STRING, "one side at a time; auto: when the room defeats the canceller",
            choices=("off", "auto", "on", "pushToTalk")),
    ), returns="processing"),
    Verb("audio.calibrate", "Measure the way from loudspeaker to microphone with a chirp, played twice; not in a call.",
         acts=True, max_ttl_s=5, idempotent=False, long=True,
         returns="echoPath; null: the microphone did not hear the loudspeaker"),
    Verb("precall.run", "Try a server out: send it microphone and camera and have them sent back, unheard and unseen "
         "here; not in a call, and given up for one.", (
        Arg("provider", ArgType.STRING, "which one, as in state/provider; the first that can be tried out",
            positional=True, minimum=1, maximum=40),
        Arg("seconds", ArgType.INTEGER, "of sound and picture (default 5)", minimum=2, maximum=30),
    ), acts=True, max_ttl_s=5, idempotent=False, long=True,
        returns="report: what came of it, item by item, graded Good, Average or Bad, or Failed with the reason"),
    Verb("audio.talk", "Push to talk: hold the talk key, for 30 s unless it is given again. Refused while push to talk "
         "is not in force (audio.filters).", acts=True, max_ttl_s=5),
    Verb("audio.listen", "Push to talk: let the talk key go."),
    Verb("dnd.set", "Do not disturb: incoming calls are refused with 480/doNotDisturb.", (
        Arg("on", ArgType.BOOLEAN, "on or off", required=True, positional=True),
    )),
    Verb("lockdown.set", "Lock-down: nobody but the emergency target (call.emergency_target) may be called, or rings. "
         "A call in progress goes on.", (
        Arg("on", ArgType.BOOLEAN, "on or off", required=True, positional=True),
    )),
    Verb("book.list", "List the address book.", returns="entries"),
    Verb("book.put", "Add or replace an address book entry.", (
        Arg("name", ArgType.STRING, "name for people", required=True, positional=True, minimum=1, maximum=64),
        Arg("uris", ArgType.STRINGS, "where it is reached, best first (or members)", minimum=1, maximum=8),
        Arg("ringSeconds", ArgType.INTEGER, "seconds it rings", minimum=5, maximum=120),
        Arg("autoAnswer", ArgType.BOOLEAN, "calls from here are answered by themselves, with a tone"),
        Arg("allowed", ArgType.BOOLEAN, "may call us (default true)"),
        Arg("members", ArgType.STRINGS, "makes it a ring group of these names", minimum=1, maximum=16),
        Arg("strategy", ArgType.STRING, "how a ring group rings", choices=("sequence", "parallel")),
        Arg("fallback", ArgType.STRING, "name dialled when nobody answers", maximum=64),
    ), scope=Scope.ADMIN),
    Verb("book.remove", "Remove an address book entry.", (
        Arg("name", ArgType.STRING, "its name", required=True, positional=True, minimum=1, maximum=64),
    ), scope=Scope.ADMIN),
    Verb("io.set", "Close a relay for a time, or open it (seconds 0).", (
        Arg("relay", ArgType.STRING, "name of the relay", required=True, positional=True, maximum=32),
        Arg("seconds", ArgType.NUMBER, "how long it stays closed", required=True, positional=True,
            minimum=0, maximum=30),
    ), acts=True, max_ttl_s=5, idempotent=False, two_step=True),
    Verb("call.dtmf", "Press keys of a telephone in the call.", (
        Arg("digits", ArgType.STRING, "0 to 9, *, #, A to D", required=True, positional=True, minimum=1, maximum=32,
            pattern="^[0-9*#A-Da-d]+$", secret=True),
        Arg("ms", ArgType.INTEGER, "milliseconds each is held (default 100)", minimum=70, maximum=1000),
        Arg("method", ArgType.STRING, "rfc4733: beside the sound (default where it is taken); info: by SIP; inband: as "
            "tones, with G.711", choices=KEY_METHODS),
        _CALL,
    ), acts=True, idempotent=False, long=True),
    Verb("data.send", "Send a message over the call's data channel.", (
        Arg("channel", ArgType.STRING, "label of the channel (default edgecall)", minimum=1, maximum=64),
        Arg("payload", ArgType.STRING, "text, at most 60 KB", required=True, positional=True, maximum=60_000),
        Arg("to", ArgType.STRINGS, "participantId or rawId of those in the roster who are meant (default all)",
            minimum=1, maximum=64),
        Arg("reliability", ArgType.STRING, "reliable: all of it, in order (default); lossy: at once or never",
            choices=("reliable", "lossy")),
        Arg("priority", ArgType.STRING, "high: also while so much waits that a normal one is refused",
            choices=("normal", "high")),
    ), acts=True, idempotent=False),
    Verb("stats.subscribe", "Publish statistics as state/quality for a minute, over MQTT and on every event stream; "
         "renew to go on.", (
        Arg("interval", ArgType.INTEGER, "seconds between samples (default 1)", minimum=1, maximum=60,
            positional=True),
        _DIALECT,
    )),
    Verb("call.summary", "What a call was like, or is so far: its record, and count, sum, average, least and most of "
         "each measure of its media.", (
        Arg("callId", ArgType.STRING, "which call (default the running one, else the last)", positional=True,
            maximum=64),
        _DIALECT,
    ), returns="the record of the call, with media"),
    Verb("state.rebirth", "Publish every state document again."),
    Verb("config.reload", "Read the settings file again.", scope=Scope.ADMIN),
    Verb("config.get", "The settings in force, without secrets.", scope=Scope.ADMIN, returns="settings"),
    Verb("sim.press", "Simulated board: press a button.", (
        Arg("button", ArgType.STRING, "name of the button", required=True, positional=True, maximum=32),
        Arg("seconds", ArgType.NUMBER, "how long it is held", minimum=0.05, maximum=60),
    ), acts=True, max_ttl_s=5, idempotent=False),
    Verb("sim.input", "Simulated board: close or open an input contact.", (
        Arg("input", ArgType.STRING, "name of the input", required=True, positional=True, maximum=32),
        Arg("closed", ArgType.BOOLEAN, "closed or open", required=True, positional=True),
    )),
    Verb("sim.fault", "Simulated board: begin or end a fault.", (
        Arg("fault", ArgType.STRING, "which, e.g. camera.freeze", required=True, positional=True, maximum=64),
        Arg("active", ArgType.BOOLEAN, "begin (default) or end", positional=True),
        Arg("value", ArgType.NUMBER, "degrees, milliseconds or decibels where the fault has one"),
    ), scope=Scope.ADMIN),
    Verb("sim.plug", "Simulated board: plug in a second microphone, loudspeaker or camera, or pull it.", (
        Arg("device", ArgType.STRING, "which kind", required=True, positional=True,
            choices=("microphone", "speaker", "camera")),
        Arg("plugged", ArgType.BOOLEAN, "plug in (default) or pull", positional=True),
        Arg("source", ArgType.STRING, "what it delivers, as sim.source has it; silence and pattern at first",
            maximum=512),
    ), scope=Scope.ADMIN),
    Verb("sim.source", "Simulated board: choose what microphone, camera or HDMI input deliver.", (
        Arg("device", ArgType.STRING, "which device", required=True, positional=True,
            choices=("microphone", "camera", "capture")),
        Arg("source", ArgType.STRING, "tone:440, speech, silence, wav:PATH; pattern, file:PATH, clip:PATH",
            required=True, positional=True, maximum=512),
    ), scope=Scope.ADMIN),
)

VERB: Final[Mapping[str, Verb]] = {verb.name: verb for verb in VERBS}


# --- calls ----------------------------------------------------------------------------------------------------------


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
    (403, "wrongMeetingId", _EXP, "The service of the meeting hung up on its number, or on the passcode.",
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


# --- events and state -----------------------------------------------------------------------------------------------

EVENTS: Final[Mapping[str, str]] = {
    "call.incoming": "Somebody calls; data: callId, callerInfo.",
    "call.started": "A call is connected; data: callId, direction, peer.",
    "call.emergency": "The emergency target is called; data: callId, target.",
    "call.stateChanged": "data: callId, from, to.",
    "call.ended": "data: callId, reason, durationMs.",
    "call.missed": "An incoming call ended unanswered; data: callId, callerInfo, reason.",
    "call.transferred": "The other side has handed the call on, or somebody has taken its place; data: callId, peer "
                        "(with whom it goes on).",
    "call.dtmf.received": "The other side pressed a key of its telephone; data: callId, digit (null where it may "
                          "belong to a PIN of door.codes), method (rfc4733, info, inband).",
    "call.participant.added": "data: participant.",
    "call.participant.removed": "data: participantId, reason.",
    "call.participant.updated": "data: participant.",
    "call.mutedByOthers": "A moderator of the room keeps what we send from being handed on; data: callId, kind (audio, "
                          "video).",
    "call.dominantSpeakersChanged": "In a room somebody else has the floor, twice a second at most; data: callId, "
                                    "dominantSpeakers (participantIds, whoever has the floor first).",
    "media.contentEnded": "What is shown to the others by content.start is gone, and nobody stopped it; data: callId, "
                          "reason.",
    "media.reconnecting": "data: callId, cause.",
    "media.reconnected": "data: callId, seconds.",
    "net.networkQualityLevelChanged": "data: callId, level (5 excellent to 1 bad, 0 broken), stats (by verbosity).",
    "diag.changed": "data: diagnostic, value, valueType, callId.",
    "devices.updated": "data: added, removed, devices.",
    "devices.selected": "Another device is selected, or used; data: kind, selected, used, why.",
    "recording.stateChanged": "Somebody has the room recorded, or no longer; data: callId, state (Started, Ended), "
                              "participantId (null: this device), reason (why it ended where nobody stopped it).",
    "precall.completed": "A server was tried out; data: provider, server, result, items, mos.",
    "io.pressed": "data: name.",
    "io.released": "data: name, heldSeconds.",
    "io.held": "data: name, heldSeconds.",
    "io.input": "data: name, closed.",
    "io.relay": "A relay was closed or has opened; data: relay, closed, seconds (it stays closed), origin, sender; "
                "origin is internal when its time was over.",
    "data.received": "data: callId, channel, payload, participantId and rawId (of the sender, as it says; null: not in "
                     "the roster), lost (messages of the sender before this one that have not come).",
    "door.code": "The keys of a rule of door.codes were pressed in a call, or wrong ones for it; data: callId, rule, "
                 "relay, rawId, result, code, subCode, message. Never the keys themselves.",
    "security.refused": "A command or peer was refused for a security reason; data: why, origin, sender, and "
                        "target where a call is refused that was to be made.",
    "security.flood": "Others cause so many events that further ones of their kind are dropped on the way to the "
                      "broker until it is quieter; data: kind (refusals, calls, messages), perSecond, burst.",
    "config.changed": "data: applied or errors.",
    "device.booted": "data: version, boot.",
    "device.stopping": "data: reason (asked, failed).",
}
"""Event types, without the prefix ``edgecall.``; published on ``event/<first word>`` as CloudEvents 1.0 JSON."""

EVENT_PREFIX: Final = "edgecall."

STATES: Final[Mapping[str, str]] = {
    "availability": "online or offline (will); plain text.",
    "device": "Identity, version, board, uptime, do-not-disturb, lock-down, who is on duty.",
    "call": "The call, or the last one.",
    "roster": "Participants of the call.",
    "media": "What is sent and received, wanted beside actual.",
    "devices": "Microphone, speaker, camera, screen, panel; where there is a choice what is selected, used, and why.",
    "diag": "User-facing diagnostics.",
    "net": "Addresses, broker, network quality level.",
    "provider": "Ways into the world by name: connections, who is on duty, peers, calls, what can be called.",
    "io": "Buttons, lamps, relays, inputs.",
    "calls": "The last 20 calls.",
    "health": "ok, degraded or failed, with causes; clock, memory, load.",
    "config": "Version applied, errors of a refused one.",
    "quality": "Statistics of the call and of the device, with the verdict on them; told only while somebody asks.",
}

DOCUMENTS: Final = tuple(name for name in STATES if name != "availability")
"""The state documents that a door answers with. Whether the appliance can be reached, its broker knows and tells."""

VOLATILE: Final = "quality"
"""The state document that is neither kept nor retained: a sample, made when it is asked for."""

SAMPLE_S: Final = (1, 60)
"""Seconds between two samples of ``quality``, least and most."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``type`` is a key of EVENTS; ``time`` seconds since the epoch; ``seq`` rises within one
    boot, so that a gap is seen."""

    type: str
    data: Json
    time: float
    id: str
    seq: int = 0


class KeyMethod(StrEnum):
    """How keys of a telephone get to the other side."""

    EVENTS = "rfc4733"  # packets of their own beside the sound
    INFO = "info"  # SIP (RFC 6086)
    TONES = "inband"  # two tones in the sound, which anybody can make


@dataclass(frozen=True, slots=True)
class KeyPress:
    """Somebody in the call pressed a key of a telephone: ``0`` to ``9``, ``*``, ``#``, ``A`` to ``D``.

    ``name``: what the address book calls the other side, empty where it does not know it. ``verified``: it is who it
    says; whom we called is always. ``encrypted``: neither signalling nor sound could be tampered with on their way.
    ``method``: tones are heard, and nobody's word.
    """

    call_id: str
    digit: str
    direction: Direction
    raw_id: str
    uri: str
    name: str = ""
    verified: bool = False
    encrypted: bool = False
    method: KeyMethod = KeyMethod.EVENTS


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything known at one revision: state documents by name."""

    rev: int
    documents: Mapping[str, Json] = field(default_factory=dict)


class DiagnosticType(Enum):
    FLAG = "DiagnosticFlag"
    QUALITY = "DiagnosticQuality"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A user-facing diagnostic: ACS web name where ACS has one, with words for people."""

    name: str
    type: DiagnosticType
    message: str
    advice: str


def _diagnostics(*rows: tuple[str, DiagnosticType, str, str]) -> Mapping[str, Diagnostic]:
    return {row[0]: Diagnostic(*row) for row in rows}


_F, _Q = DiagnosticType.FLAG, DiagnosticType.QUALITY

DIAGNOSTICS: Final[Mapping[str, Diagnostic]] = _diagnostics(
    ("noNetwork", _F, "There is no network.", "Check cable, switch or Wi-Fi."),
    ("networkRelaysNotReachable", _F, "A STUN or TURN server of the settings cannot be used.",
     "Check the server that the detail names, its login in [direct], and the firewall between. "
     "Calls in the same network need none."),
    ("networkReconnect", _Q, "Media of the call is lost and being re-established.", "Check the network."),
    ("networkReceiveQuality", _Q, "What is received suffers from the network.", "Check the network."),
    ("networkSendQuality", _Q, "What is sent suffers from the network.", "Check the network."),
    ("noSpeakerDevicesEnumerated", _F, "There is no loudspeaker.", "Plug one in."),
    ("noMicrophoneDevicesEnumerated", _F, "There is no microphone.", "Plug one in."),
    ("speakingWhileMicrophoneIsMuted", _F, "At the device somebody speaks while its microphone is muted.",
     "Unmute the device to be heard."),
    ("microphoneNotFunctioning", _F, "The microphone stopped delivering.", "Check its plug."),
    ("microphoneMuteUnexpectedly", _F, "The microphone is muted outside the appliance.", "Unmute it in the mixer."),
    ("microphoneNotMuteButSilent", _F, "The microphone is not muted but delivers silence.",
     "Check that it is not covered or broken."),
    ("microphonePermissionDenied", _F, "The microphone may not be opened.", "Add the user to the group audio."),
    ("microphoneBusy", _F, "Another program holds the microphone.", "End the program named in the detail."),
    ("microphoneUnplugged", _F, "The microphone in use, or selected, was unplugged; the next one takes over, if any.",
     "Plug it in again."),
    ("microphoneFormatUnsupported", _F, "The microphone offers no format that the appliance can use.",
     "Use one with 16, 24 or 32 bits and 8 to 48 kHz; the detail says what it offers."),
    ("microphoneClipping", _F, "The microphone is overdriven.", "Lower its gain."),
    ("microphoneNoiseHigh", _F, "The microphone hears much noise.", "Move it away from the source of the noise."),
    ("echoHigh", _F, "The far end hears itself: the room defeats the echo canceller.",
     "Turn the loudspeaker down, or move it and the microphone apart; meanwhile one side is heard at a time."),
    ("echoDelayChanged", _F, "The way from loudspeaker to microphone is not what it was.",
     "Check that nobody moved or covered them."),
    ("speakerPathBroken", _F, "The microphone does not hear the loudspeaker.",
     "Check volume, plugs and membranes of both."),
    ("noCameraDevicesEnumerated", _F, "There is no camera.", "Check its plug; the detail says what there is."),
    ("cameraFreeze", _F, "The camera stopped delivering pictures.", "Check its cable."),
    ("cameraStartFailed", _F, "The camera could not be started: another program holds it.",
     "End the program named in the detail."),
    ("cameraStartTimedOut", _F, "The camera did not deliver a picture in time.", "Check its cable."),
    ("cameraStoppedUnexpectedly", _F, "The camera failed, or stopped by itself.",
     "It is tried again by itself; check its cable, and what the detail says."),
    ("cameraUnplugged", _F, "The camera in use, or selected, was unplugged; the next one takes over, if any.",
     "Plug it in again."),
    ("cameraFormatUnsupported", _F, "The camera offers no format that the appliance can use.",
     "Take another; the detail says what this one offers."),
    ("cameraPermissionDenied", _F, "The camera may not be opened.", "Add the user to the group video."),
    ("cameraCovered", _F, "The camera sees only black.", "Uncover the lens."),
    ("cameraLowFrameRate", _F, "The camera is slower than configured.", "More light, or a smaller picture."),
    ("incomingVideoStalled", _F, "The picture of the other side stands still.",
     "Ask the other side to look after its camera; check the network."),
    ("contentNoSignal", _F, "What is shown to the others is black: the HDMI input receives nothing.",
     "Check the cable, and that the other end sends a picture."),
    ("encoderFallback", _F, "The hardware encoder failed or is missing; software encodes.",
     "Calls go on, with a smaller picture where need be, and it is tried again by itself. The detail tells whether it "
     "is missing, busy (end its holder), denied (group video), of no usable format, pulled, stalled or failed (look "
     "into dmesg, restart the board)."),
    ("speakerNotFunctioning", _F, "The loudspeaker stopped playing.", "Check its plug."),
    ("speakerMuted", _F, "The loudspeaker is muted outside the appliance.", "Unmute it in the mixer."),
    ("speakerVolumeIsZero", _F, "The volume is zero.", "Raise the volume."),
    ("speakerUnplugged", _F, "The loudspeaker in use, or selected, was unplugged; the next one takes over, if any.",
     "Plug it in again."),
    ("speakerPermissionDenied", _F, "The loudspeaker may not be opened.", "Add the user to the group audio."),
    ("speakerFormatUnsupported", _F, "The loudspeaker takes no format that the appliance can make.",
     "Use one with 16, 24 or 32 bits and 8 to 48 kHz; the detail says what it takes."),
    ("speakerBusy", _F, "Another program holds the loudspeaker.", "End the program named in the detail."),
    ("soundDropouts", _F, "Sound breaks up: a sound card ran over or empty more than ten times within a minute.",
     "Check what else keeps the processor busy, and whether the service may have real-time priority; a higher "
     "latency_ms in the board file helps, and so may another USB port."),
    ("noDisplayDevicesEnumerated", _F, "There is no screen.",
     "Plug one in and switch it on; the detail says where it is looked for."),
    ("displayDisconnected", _F, "The screen in use was unplugged.", "Plug it in again; check its cable."),
    ("displayBusy", _F, "Another program holds the screen.", "End the program named in the detail."),
    ("displayPermissionDenied", _F, "The screen may not be opened.",
     "Add the user to the groups video, render and input."),
    ("displayFormatUnsupported", _F, "The screen offers no size that the appliance can use.",
     "Try another cable or screen, or name a size with video= on the kernel's command line."),
    ("displayNotFunctioning", _F, "The screen cannot be drawn on.",
     "It is tried again by itself; check the graphics driver, and what the detail says."),
    ("noPanelDevicesEnumerated", _F, "Buttons, lamps or relays are not there.",
     "Check the add-on board, the keypad's plug, or the board file; the detail names the device."),
    ("panelDisconnected", _F, "Buttons, lamps or relays in use were unplugged.",
     "Plug the device in again that the detail names."),
    ("panelBusy", _F, "A line of the panel is held by somebody else.",
     "End the program or remove the overlay named in the detail, or wire another line."),
    ("panelPermissionDenied", _F, "The panel may not be opened.", "Add the user to the groups gpio and input."),
    ("panelNotFunctioning", _F, "Buttons, lamps or relays do not answer.", "See the detail."),
    ("buttonStuck", _F, "A button is held for over 30 s.", "Free the button."),
    ("tamper", _F, "The tamper contact reports that the case may be open, or somebody guesses PINs at the door.",
     "Look after the device; the detail says what it is."),
    ("doorOpenTooLong", _F, "The door stands open.", "Shut it, or look at its contact."),
    ("handsetOffHook", _F, "The handset lies beside its hook.", "Put it back."),
    ("powerUndervoltage", _F, "The supply voltage is too low.", "Use a stronger supply."),
    ("thermalThrottled", _F, "The board is too hot and slows down.", "Improve the cooling."),
    ("storageLow", _F, "Little storage is left.", "Free storage; see the detail."),
    ("storageWear", _F, "The built-in storage is almost worn out.", "Back up its data and replace it."),
    ("storageReadOnly", _F, "The data folder cannot be written.", "Check the card or disk."),
    ("clockNotSynchronised", _F, "The clock is not synchronised.", "Check the time server."),
    ("watchdogRestarted", _F, "The appliance was restarted after a crash or hang.", "Send the log."),
    ("mqttDisconnected", _F, "The broker is not reached.", "Check network, address and certificate of the broker."),
    ("eventQueueBacklog", _F, "Many messages wait for the broker.", "Check the connection to the broker."),
    ("sipRegistrationLost", _F, "The telephone network is not reached.",
     "Check network, name and password of the account that the detail names."),
    ("nobodyOnDuty", _F, "Nobody is on duty to answer.", "Open the operator page and go on duty."),
    ("tokenExpiring", _F, "The token for the rooms expires soon.",
     "Give a new one with token.set, or write it to janus.token_file and reload the settings."),
    ("tokenInvalid", _F, "The server of the rooms does not take the token, or it has expired.",
     "Give a new one with token.set, or write it to janus.token_file and reload the settings."),
    ("configRejected", _F, "The settings file has errors; the last good settings are in force.",
     "Correct the lines named in the detail."),
)


def verbs_for(scope: Scope) -> Sequence[Verb]:
    """The verbs a scope permits, in the order of the schema."""
    return [verb for verb in VERBS if scope.permits(verb.scope)]
