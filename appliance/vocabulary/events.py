"""Events (CloudEvents 1.0) and the retained state documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from appliance.vocabulary.calls import Direction
from appliance.vocabulary.commands import Json

__all__ = [
    "DOCUMENTS", "EVENTS", "EVENT_PREFIX", "SAMPLE_S", "STATES", "VOLATILE", "Event", "KeyMethod", "KeyPress",
    "Snapshot",
]

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
    "security.refused": "A command or peer was refused for a security reason; data: why, origin, sender, "
                        "target where a call is refused that was to be made, and sections of a first boot file that a "
                        "device refuses which is set up (origin card).",
    "security.flood": "Others cause so many events that further ones of their kind are dropped on the way to the "
                      "broker until it is quieter; data: kind (refusals, calls, messages), perSecond, burst.",
    "config.changed": "data: applied or errors.",
    "update.requested": "An update, or going back, is to be made; data: job, kind (install, back), version, notBefore, "
                        "force, origin, sender.",
    "update.started": "The update is being installed; data: job, version, attempt.",
    "update.installed": "It is installed and waits for the restart; data: job, version, waitsFor.",
    "update.restarting": "The device restarts into the other system; data: job, version, forced.",
    "update.completed": "What became of an update, told by the system that runs then; data: job, kind, result "
                        "(succeeded, failed, rolledBack, cancelled), version (of the update), running (the version "
                        "that runs), code, message. Should a power cut make it come twice, it has the same id.",
    "device.factoryReset": "All that is kept on the device is about to be erased; data: origin, sender.",
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
    "update": "Both systems of a flashed image, the update in progress, what it waits for, what became of the last.",
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
