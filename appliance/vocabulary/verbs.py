"""Every verb, with its arguments, scope, longest time and what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from appliance.vocabulary.commands import DEVICE_KINDS, DIALECTS, Arg, ArgType, Scope, Verb

__all__ = ["FITS", "KEY_METHODS", "LAYOUTS", "QUALITIES", "VERB", "VERBS", "verbs_for"]

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
_LIMITS: Final = (
    Arg("send", ArgType.OBJECT, "limits on what is sent", fields=(
        Arg("frameHeight", ArgType.INTEGER, "lines; the next lower step is taken, 180 at the least",
            minimum=0, maximum=2160),
        Arg("frameRate", ArgType.INTEGER, "pictures per second", minimum=0, maximum=60),
        Arg("bitrate", ArgType.INTEGER, "bits per second; 55000 at the least, and then 180 lines", minimum=0,
            maximum=50_000_000),
    )),
    Arg("recv", ArgType.OBJECT, "limits on what is received", fields=(
        Arg("frameHeight", ArgType.INTEGER, "lines of each picture; a peer is told the bit rate that they take, of a "
            "sender of several qualities in a room one of so many is taken", minimum=0, maximum=2160),
        Arg("maxBitrate", ArgType.INTEGER, "bits per second that each peer is asked to send; not for the people in a "
            "room, whose rates are the server's", minimum=0, maximum=50_000_000),
        Arg("maxVideos", ArgType.INTEGER, "pictures of others at the same time, what one shares among them", minimum=0,
            maximum=10),
    )),
    Arg("degradationPreference", ArgType.STRING, "what is kept when the network carries less",
        choices=("balanced", "maintain-framerate", "maintain-resolution")),
)
_CONSTRAINTS = Arg("constraints", ArgType.OBJECT, "limits of the picture as video.constraints takes them, until the "
                   "end of this call", fields=_LIMITS)

_FORCE = Arg("force", ArgType.STRING, "time of RFC 3339; from then on it is restarted whatever the window says, and in "
             "a call too, unless that is an emergency call", maximum=64)

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
        _LAYOUT, _CONSTRAINTS,
    ), acts=True, idempotent=False, long=True, returns="callId"),
    Verb("call.answer", "Answer the incoming call.", (
        _CALL, Arg("audio", ArgType.BOOLEAN, "send audio (default true)"),
        Arg("video", ArgType.BOOLEAN, "send video (default true)"),
        _LAYOUT, _CONSTRAINTS,
    ), acts=True, idempotent=False, long=True, returns="callId"),
    Verb("call.reject", "Reject the incoming call.", (
        _CALL, Arg("reason", ArgType.STRING, "what the caller is told", choices=("declined", "busy")),
    ), stops=True),
    Verb("call.hangup", "End the call.", (
        _CALL, Arg("forEveryone", ArgType.BOOLEAN, "send everybody else out of the room too; needs the capability "
                   "hangUpForEveryOne"),
    ), stops=True),
    Verb("room.join", "Join a room.", (
        Arg("target", ArgType.STRING, "name in the address book or the settings, the room's id, or room: "
            "(of AudioBridge audio:) and either",
            required=True, positional=True, minimum=1, maximum=256),
        Arg("pin", ArgType.STRING, "PIN of the room, where the settings have none", maximum=128, secret=True),
        Arg("displayName", ArgType.STRING, "the name to stand there by (default: that of the device)", maximum=64),
        Arg("audio", ArgType.BOOLEAN, "send audio (default true)"),
        Arg("video", ArgType.BOOLEAN, "send video (default true)"),
        _LAYOUT, _CONSTRAINTS,
    ), acts=True, idempotent=False, long=True, returns="callId"),
    Verb("room.leave", "Leave the room.", (_CALL,), stops=True),
    Verb("token.set", "Give the token for the rooms, in place of the one before; it is kept until the settings name "
         "another one.", (
        Arg("token", ArgType.STRING, "the token", required=True, minimum=1, maximum=4096, secret=True),
        Arg("expiresIn", ArgType.INTEGER, "seconds for which it is good, where it does not say so itself", minimum=1,
            maximum=31_536_000),
    ), scope=Scope.ADMIN),
    Verb("call.raiseHand", "Ask the others in the call for attention.", (_CALL,), acts=True),
    Verb("call.lowerHand", "Ask for attention no longer.", (_CALL,), stops=True),
    Verb("call.transfer", "Hand the other side of a telephone call on to another telephone; then it is over here.", (
        Arg("to", ArgType.STRING, "name in the address book, or URI (tel:, sip:)", required=True, positional=True,
            minimum=1, maximum=256),
        Arg("attended", ArgType.BOOLEAN, "only when that one has answered; it is called from here first"),
        _CALL,
    ), acts=True, idempotent=False, long=True, returns="callId"),
    Verb("call.hold", "Hold the call: nothing of us is sent, nothing is played.", (_CALL,), acts=True),
    Verb("call.resume", "Resume the held call.", (_CALL,), acts=True),
    Verb("call.mute", "Mute the microphone.", stops=True),
    Verb("call.unmute", "Unmute the microphone.", acts=True, max_ttl_s=5),
    Verb("call.muteOthers", "Mute the microphones of everybody else in the room; each opens its own again. Needs the "
         "capability muteOthers.", (
        Arg("participantId", ArgType.STRING, "this one alone, as in state/roster", maximum=128),
        _CALL,
    ), stops=True),
    Verb("call.remove", "Send somebody out of the room. Needs the capability removeParticipant.", (
        Arg("participantId", ArgType.STRING, "as in state/roster", required=True, positional=True, maximum=128),
        _CALL,
    ), acts=True),
    Verb("call.muteIncoming", "Do not play what the other side says.", stops=True),
    Verb("call.unmuteIncoming", "Play what the other side says again.", acts=True),
    Verb("video.start", "Send the camera's picture.", acts=True, max_ttl_s=5),
    Verb("video.stop", "Stop sending the camera's picture; the sensor closes.", stops=True),
    Verb("video.constraints", "Limit the picture, live; 0 lifts a limit, what is left out stays. inForce in the answer "
         "tells what that comes to.", _LIMITS, returns="constraints"),
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
    Verb("preview.start", "Show this device's own picture on its screen, for two minutes or until a call; nothing is "
         "sent.", acts=True, max_ttl_s=5),
    Verb("preview.stop", "Show it no longer.", stops=True),
    Verb("content.start", "Show a picture, a video or what an HDMI capture receives to the others in the room, beside "
         "the camera; the next one takes its place.", (
        Arg("source", ArgType.STRING, "name of a file in the folder of video.content_dir; device:ID: a capture device, "
            "or a camera that is not in use, by its id in state/devices", required=True, positional=True, minimum=1,
            maximum=255),
        _CALL,
    ), acts=True),
    Verb("content.stop", "Show it no longer.", (_CALL,), stops=True),
    Verb("record.start", "Have the server of the room record everybody in it, until record.stop or the end of the call "
         "here; the others are told.", (_CALL,), acts=True, returns="isRecordingActive"),
    Verb("record.stop", "Have it record no longer.", (_CALL,), returns="isRecordingActive: by others, who alone can "
         "stop what they began", stops=True),
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
    Verb("audio.listen", "Push to talk: let the talk key go.", stops=True),
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
        Arg("channel", ArgType.STRING, "label of the channel (default edgecall), not door or state", minimum=1,
            maximum=64),
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
    Verb("update.install", "Install a system beside the running one, and restart into it when nobody has called for a "
         "minute, within update.window; what becomes of it is told by update.completed, whichever system then runs.", (
        Arg("url", ArgType.STRING, "of the signed bundle, below one of update.origins", required=True, positional=True,
            minimum=1, maximum=2048),
        Arg("version", ArgType.STRING, "the version it is said to hold; where that runs already nothing is done, and "
            "another one is not started", minimum=1, maximum=64),
        Arg("notBefore", ArgType.STRING, "time of RFC 3339 before which nothing of it begins", maximum=64),
        _FORCE,
        Arg("hold", ArgType.BOOLEAN, "install only, and leave the restart to update.commit"),
    ), acts=True, max_ttl_s=3600, scope=Scope.ADMIN, returns="update"),
    Verb("update.status", "Ask how the update and both systems are.", scope=Scope.ADMIN, returns="update"),
    Verb("update.commit", "Restart into what is installed as soon as nobody has called for a minute, without waiting "
         "for update.window. That it is well, the new system finds out by itself.", (_FORCE,),
         acts=True, max_ttl_s=3600, scope=Scope.ADMIN, returns="update"),
    Verb("update.back", "Restart into the other system, which ran before, as soon as nobody has called for a minute; "
         "refused where it is older than what this one allows.", (_FORCE,),
         acts=True, max_ttl_s=3600, scope=Scope.ADMIN, returns="update"),
    Verb("update.cancel", "Give up the update that waits or is being installed.", scope=Scope.ADMIN, stops=True,
         returns="update"),
    Verb("device.factoryReset", "Restart, and erase all that is kept on the device: settings, keys, records, network; "
         "both systems stay. Not in a call.", (
        Arg("device", ArgType.STRING, "the id of this device, so that no other one is meant", required=True,
            positional=True, maximum=40),
    ), acts=True, max_ttl_s=30, scope=Scope.ADMIN, idempotent=False),
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


def verbs_for(scope: Scope) -> Sequence[Verb]:
    """The verbs a scope permits, in the order of the schema."""
    return [verb for verb in VERBS if scope.permits(verb.scope)]
