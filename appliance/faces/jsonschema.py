"""JSON Schema (draft 2020-12) of what crosses the doors: commands, answers, events, state documents.

Definitions do not refer to each other: OpenAPI, AsyncAPI and the plain schema hold the same ones at their own places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.faces import statistics
from appliance.faces.envelope import MAX_ID, MAX_NONCE, MAX_QUIET_TTL_S
from appliance.vocabulary import (
    DEVICE_KINDS,
    DIAGNOSTICS,
    END_REASONS,
    EVENT_PREFIX,
    EVENTS,
    SAMPLE_S,
    STATES,
    VERBS,
    Arg,
    ArgType,
    CallKind,
    CallState,
    Category,
    Diagnostic,
    DiagnosticType,
    Direction,
    Json,
    MutedBy,
    ParticipantState,
    Result,
    Role,
    Verb,
)

__all__ = ["DIALECT", "answer", "args", "command", "definitions", "document", "event", "pascal", "state"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_TYPES: Final[dict[ArgType, Json]] = {
    ArgType.STRING: {"type": "string"},
    ArgType.INTEGER: {"type": "integer"},
    ArgType.NUMBER: {"type": "number"},
    ArgType.BOOLEAN: {"type": "boolean"},
    ArgType.STRINGS: {"type": "array", "items": {"type": "string"}},
    ArgType.OBJECT: {"type": "object"},
}
_BOUNDS: Final[dict[ArgType, tuple[str, str]]] = {
    ArgType.STRING: ("minLength", "maxLength"),
    ArgType.INTEGER: ("minimum", "maximum"),
    ArgType.NUMBER: ("minimum", "maximum"),
    ArgType.STRINGS: ("minItems", "maxItems"),
}


_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_TIME_OR_NONE: Final[Json] = {"type": ["string", "null"], "format": "date-time"}
_KIND: Final[Json] = {"enum": ["install", "back"]}


def pascal(name: str) -> str:
    """``call.muteIncoming`` as the name of a definition: ``CallMuteIncoming``."""
    return "".join(word[:1].upper() + word[1:] for word in name.replace("-", ".").split("."))


def _object(properties: Json, required: tuple[str, ...] = (), *, closed: bool = False) -> Json:
    schema: Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = False
    return schema


# --- commands and answers -------------------------------------------------------------------------------------------


def _argument(arg: Arg) -> Json:
    schema: Json = {**_TYPES[arg.type], "description": arg.help}
    if arg.fields:
        schema |= _object({field.name: _argument(field) for field in arg.fields},
                          tuple(field.name for field in arg.fields if field.required), closed=True)
    if arg.choices:
        schema["enum"] = list(arg.choices)
    if arg.pattern is not None:
        schema["pattern"] = arg.pattern
    for keyword, bound in zip(_BOUNDS.get(arg.type, ()), (arg.minimum, arg.maximum), strict=False):
        if bound is not None:
            schema[keyword] = int(bound) if bound == int(bound) else bound
    if arg.secret:
        schema["writeOnly"] = True
    return schema


def args(verb: Verb) -> Json:
    """The ``args`` of a verb: nothing beside what it declares."""
    required = tuple(arg.name for arg in verb.args if arg.required)
    return _object({arg.name: _argument(arg) for arg in verb.args}, required, closed=True)


def command(verb: Verb) -> Json:
    """The envelope of a command, with the arguments of its verb."""
    limit = verb.max_ttl_s if verb.acts else MAX_QUIET_TTL_S
    properties: Json = {
        "id": {"type": "string", "minLength": 1, "maxLength": MAX_ID,
               "description": "chosen by the sender; the same id again gets the stored answer, and no second action"},
        "ts": {"type": "number", "minimum": 0, "description": "the sender's time, seconds since 1970"},
        "ttl_s": {"type": "number", "exclusiveMinimum": 0, "maximum": limit,
                  "description": "seconds after which it must not be carried out any more"},
        "args": args(verb),
        "nonce": {"type": "string", "minLength": 1, "maxLength": MAX_NONCE,
                  "description": "from the data of a 401/challenge answer"},
    }
    required = ["id"]
    if verb.acts:
        required.append("ttl_s")
    if any(arg.required for arg in verb.args):
        required.append("args")
    return {"title": verb.name, "description": verb.summary, **_object(properties, tuple(required), closed=True)}


def answer(verb: Verb | None = None) -> Json:
    """The answer to one command, the same on every door."""
    properties: Json = {
        "id": {"type": "string", "maxLength": MAX_ID},
        "result": {"type": "string", "enum": [result.value for result in Result]},
        "code": {"type": "integer", "minimum": 0, "maximum": 699, "description": "as in SIP; 0 is success"},
        "subCode": {"type": "string"},
        "category": {"type": "string", "enum": [category.value for category in Category]},
        "message": {"type": "string"},
        "state_rev": {"type": "integer", "minimum": 0},
        "data": {"type": "object", "description": "what the verb returns"},
    }
    if verb is not None and verb.returns:
        properties["data"]["description"] = f"holds {verb.returns}"
    return _object(properties, ("id", "result", "code", "subCode", "category", "message", "state_rev"), closed=True)


# --- events ---------------------------------------------------------------------------------------------------------


def event(name: str | None = None) -> Json:
    """An event as CloudEvents 1.0 JSON; ``name`` without the prefix, None for any."""
    types = [EVENT_PREFIX + known for known in EVENTS]
    described = {"title": name, "description": EVENTS[name]} if name is not None else {}
    return {**described, **_object({
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "description": "unique together with source"},
        "source": {"type": "string", "format": "uri-reference", "minLength": 1},
        "type": {"const": EVENT_PREFIX + name} if name is not None else {"enum": types},
        "time": _TIME,
        "datacontenttype": {"const": "application/json"},
        "boot": {"type": "string", "description": "differs after every start of the appliance"},
        "seq": {"type": "integer", "minimum": 0, "description": "rises within one boot; a gap is a loss"},
        "data": {"type": "object"},
    }, ("specversion", "id", "source", "type", "data"))}


# --- state ----------------------------------------------------------------------------------------------------------


def _reason() -> Json:
    return _object({
        "code": {"type": "integer", "enum": sorted({reason.code for reason in END_REASONS.values()})},
        "subCode": {"type": "string"},
        "category": {"enum": [category.value for category in Category]},
        "message": {"type": "string"},
        "advice": {"type": "string"},
        "sipReason": {"type": "string", "description": "what the telephone network told (RFC 3326)"},
        "q850": {"type": "integer", "description": "cause of Q.850 in that"},
    }, ("code", "subCode", "category", "message"))


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


_CAPABILITIES: Final = {"type": "object", "additionalProperties": _object(
    {"isPresent": {"type": "boolean"}, "reason": {"type": "string"}}, ("isPresent", "reason"))}
_ROLE: Final = {"enum": [role.value for role in Role]}


def _call() -> Json:
    states = [state.value for state in CallState]
    flags = ("isMuted", "isIncomingAudioMuted", "isLocalVideoStarted", "isContentSharingOn", "isRecordingActive",
             "isHandRaised", "isAutoAnswered", "localHold", "remoteHold")
    return _object({
        "callId": {"type": ["string", "null"]},
        "correlationId": {"type": "string"},
        "direction": {"enum": [direction.value for direction in Direction]},
        "kind": {"enum": [kind.value for kind in CallKind]},
        "state": {"enum": states},
        "previousState": {"enum": states},
        "since": _TIME,
        "began": _TIME,
        "connectedAt": _or_null(_TIME),
        "durationMs": {"type": "integer", "minimum": 0},
        "callerInfo": _or_null(_object({
            "rawId": {"type": "string"}, "uri": {"type": "string"}, "displayName": {"type": "string"},
            "verified": {"type": "boolean"},
        }, ("rawId", "displayName"))),
        **{flag: {"type": "boolean"} for flag in flags},
        "mutedBy": {"enum": [who.value for who in MutedBy]},
        "role": _ROLE,
        "capabilities": _CAPABILITIES,
        "security": {"type": "object"},
        "endReason": _or_null(_reason()),
    }, ("callId", "state"))


def _roster() -> Json:
    stream = _object({
        "id": {"type": "string"}, "type": {"enum": ["Video", "ScreenSharing"]},
        "isAvailable": {"type": "boolean"}, "isReceiving": {"type": "boolean"},
    }, ("id", "type"))
    one = _object({
        "participantId": {"type": "string"},
        "rawId": {"type": "string"},
        "kind": {"enum": ["voip", "pstn", "device", "bot", "unknown"]},
        "displayName": {"type": "string"},
        "role": _ROLE,
        "state": {"enum": [state.value for state in ParticipantState]},
        "isMuted": {"type": "boolean"},
        "isSpeaking": {"type": "boolean"},
        "isHandRaised": {"type": "boolean"},
        "isRecording": {"type": "boolean"},
        "videoStreams": {"type": "array", "items": stream},
        "networkQualityLevel": {"type": ["integer", "null"], "minimum": 0, "maximum": 5},
        "endReason": _reason(),
    }, ("participantId", "rawId", "kind", "displayName", "state"))
    return _object({
        "callId": {"type": ["string", "null"]}, "participants": {"type": "array", "items": one},
        "raisedHands": {"type": "array", "items": {"type": "string"},
                        "description": "participantId of those who ask for attention, whoever does longest first"},
        "dominantSpeakers": {"type": "array", "items": {"type": "string"},
                             "description": "participantId of those in a room who have spoken, whoever has the floor "
                                            "first; another one at most twice a second"},
    }, ("participants",))


def _diag() -> Json:
    """By the name of the diagnostic; what was never raised is not there."""
    def one(diagnostic: Diagnostic) -> Json:
        flag = diagnostic.type is DiagnosticType.FLAG
        return _object({
            "value": {"type": "boolean"} if flag else {"enum": [1, 2, 3], "description": "good, poor, bad"},
            "valueType": {"const": diagnostic.type.value},
            "since": _TIME | {"description": "when the value became what it is"},
            "lastCleared": _or_null(_TIME | {"description": "when the trouble ended last"}),
            "count": {"type": "integer", "minimum": 0, "description": "how often it was raised"},
            "detail": {"type": "object", "description": "what is wrong, while it is: what in words, of a device its id "
                       "and the kind of fault, figures by name"},
            "message": {"const": diagnostic.message},
            "advice": {"const": diagnostic.advice},
        }, ("value", "valueType", "message", "advice"))

    return _object({name: one(found) for name, found in DIAGNOSTICS.items()})


def _config() -> Json:
    words: Json = {"type": "array", "items": {"type": "string"}}
    return _object({
        "path": {"type": ["string", "null"]}, "version": {"type": "integer", "minimum": 1},
        "errors": words, "needRestart": words,
    }, ("version", "errors"))


def _health() -> Json:
    return _object({
        "status": {"enum": ["ok", "degraded", "failed"], "description": "failed: nobody can talk through the device"},
        "causes": {"type": "array", "items": {"type": "string"}, "description": "raised diagnostics, and safeMode"},
        "clock": {"enum": ["synchronised", "unsynchronised"]},
        "pssBytes": {"type": ["integer", "null"], "minimum": 0},
        "load": {"type": "number", "minimum": 0},
        "uptimeSeconds": {"type": "integer", "minimum": 0},
        "board": _object({
            "celsius": {"type": ["integer", "null"]},
            "throttled": {"type": ["boolean", "null"], "description": "slowed down because it is too hot"},
            "undervoltage": {"type": ["boolean", "null"]},
            "storageWear": {"type": ["number", "null"], "minimum": 0, "maximum": 1,
                            "description": "used life of built-in flash"},
            "supply": {"type": "string", "description": "PoE and its class, or what USB-C agreed on"},
        }) | {"description": "null: this board cannot tell"},
    }, ("status",))


def _net() -> Json:
    return _object({
        "online": {"type": "boolean"},
        "addresses": {"type": "array", "items": {"type": "string"}},
        "links": {"type": "array", "items": _object({
            "name": {"type": "string"}, "up": {"type": "boolean"}, "mbps": {"type": ["integer", "null"]},
            "dbm": {"type": ["integer", "null"], "description": "signal of Wi-Fi, told anew when it moved by 6 dB"},
        }, ("name", "up"))},
        "brokerConnected": {"type": ["boolean", "null"], "description": "null: none is configured"},
        "networkQualityLevel": {"type": ["integer", "null"], "minimum": 0, "maximum": 5,
                                "description": "5 excellent to 1 bad, 0 while reconnecting, null without a call"},
    })


def _update() -> Json:
    text: Json = {"type": ["string", "null"]}
    return _object({
        "supported": {"type": ["boolean", "null"],
                      "description": "whether this system was flashed from an image; null: not known yet"},
        "phase": {"enum": ["unknown", "idle", "waiting", "installing", "pending", "rebooting", "trial"],
                  "description": "pending: installed; trial: the new system runs, and whether it is well is found out"},
        "waitsFor": {"type": "array", "items": {
            "enum": ["date", "clock", "call", "idle", "window", "commit", "service"]}},
        "version": {**text, "description": "of the system that runs"}, "slot": {"enum": ["A", "B", None]},
        "trial": {"type": "boolean"}, "progress": {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
        "step": {"type": "string"},
        "other": {"type": ["object", "null"], "description": "the other system", "properties": {
            "version": text, "state": {"enum": ["good", "bad", "unknown"]}}},
        "job": {"type": ["object", "null"], "properties": {
            "id": {"type": "string"}, "kind": _KIND, "url": text, "version": text,
            "restart": {"enum": ["window", "now", "held"]}, "attempt": {"type": "integer", "minimum": 0},
            "notBefore": _TIME_OR_NONE, "force": _TIME_OR_NONE}},
        "last": {"type": ["object", "null"], "description": "what became of the last one", "properties": {
            "job": {"type": "string"}, "kind": _KIND,
            "result": {"enum": ["succeeded", "failed", "rolledBack", "cancelled"]}, "version": text, "running": text,
            "code": {"type": "string"}, "message": {"type": "string"}, "at": _TIME}},
    }, ("supported", "phase", "waitsFor", "job", "last"))


def _provider() -> Json:
    """By the name of the provider. ``capabilities``: by target scheme, whether it can be called now, or why not."""
    peer = _object({"connected": {"type": "boolean"}}, ("connected",))
    one = _object({
        "connection": _object({"broker": {"enum": ["none", "connected", "lost"]}}),
        "onDuty": {"type": "array", "items": {"type": "string"}},
        "peers": {"type": "object", "additionalProperties": peer},
        "calls": {"type": "integer", "minimum": 0},
        "capabilities": _CAPABILITIES,
    }, ("calls", "capabilities"))
    return _object({"providers": {"type": "object", "additionalProperties": one}}, ("providers",))


def _media() -> Json:
    """``wanted`` beside ``actual``: a hold, a mute or a missing device takes away what was wanted."""
    flag: Json = {"type": "boolean"}

    def told(**members: str) -> Json:
        return _object({name: flag | {"description": words} for name, words in members.items()})

    return _object({
        "capturing": flag | {"description": "the microphone is sent, or the camera is open"},
        "sessions": {"type": "integer", "minimum": 0},
        "without": {"type": "object", "description": "by kind, why the peer gets none"},
        "audio": _object({
            "wanted": told(muted="the microphone", speakerMuted="what the other side says"),
            "actual": told(running="the sound device", sending="the microphone is sent",
                           playing="the other side is played; not on hold"),
            "processing": {"type": "object", "description": "echo canceller and filters in force"},
            "reason": {"type": "string", "description": "why something wanted is not so"},
        }),
        "video": _object({
            "wanted": {"type": "object", "description": "open, width, height, fps: of the camera"},
            "actual": told(open="the camera", sending="its picture is sent",
                           showing="the other side's picture is shown; not on hold"),
            "limits": {"type": "object", "description": "of video.constraints, in force"},
            "paused": {"type": "integer", "minimum": 0, "description": "peers whose network carries no picture"},
            "qualityLimitationReasons": {"type": "array", "items": {"type": "string"}},
            "reason": {"type": "string", "description": "why something wanted is not so"},
        }),
    })


def _devices() -> Json:
    flag: Json = {"type": "boolean"}
    row = _object({
        "kind": {"enum": list(DEVICE_KINDS)},
        "id": {"type": "string", "description": "the same after every start and replug"},
        "name": {"type": "string"},
        "present": flag | {"description": "plugged in"},
        "selected": flag | {"description": "by devices.select"},
        "used": flag | {"description": "the one of its kind that runs, or would if it were started"},
        "simulated": flag,
        "note": {"type": "string", "description": "why it is not used, as far as known"},
    }, ("kind", "id", "name", "present", "selected", "used"))
    choice = _object({
        "selected": {"type": "string", "description": "an id, or auto: by the board's own order"},
        "used": {"type": ["string", "null"], "description": "the id of the one that is"},
        "why": {"type": "string"},
    }, ("selected", "used", "why"))
    return _object({
        "devices": {"type": "array", "items": row},
        "choice": {"type": "object", "additionalProperties": choice,
                   "description": "by kind, of those that devices.select takes on this board"},
        "volume": {"type": ["integer", "null"], "minimum": 0, "maximum": 100,
                   "description": "of the loudspeaker; null: the board has none"},
    }, ("devices", "choice"))


def _quality() -> Json:
    return _object({
        "callId": {"type": ["string", "null"], "description": "the call, or the last one"},
        "interval": {"type": "integer", "minimum": SAMPLE_S[0], "maximum": SAMPLE_S[1],
                     "description": "seconds to the next sample, while somebody asks for them"},
        "quality": {"type": "object", "description": "networkQualityLevel, mos, rtt, jitter, fractionLost, stats; "
                                                     "empty before the first look, and without a call"},
        "stats": {"type": "array", "items": {"type": "object"},
                  "description": "each is one of the definitions that end in Stats"},
        "acs": {"type": "object", "description": "MediaStatsReportSample, where the dialect acs is asked for"},
    }, ("callId", "quality"))


def state(name: str) -> Json:
    """A state document. Fields beyond those named here may come with any version; readers ignore them."""
    if name == "availability":
        return {"type": "string", "enum": ["online", "offline"], "description": STATES[name]}
    known: dict[str, Callable[[], Json]] = {
        "call": _call, "roster": _roster, "diag": _diag, "config": _config, "health": _health,
        "provider": _provider, "net": _net, "update": _update,
        "media": _media, "devices": _devices, "quality": _quality,
    }
    return {"description": STATES[name], **(known[name]() if name in known else {"type": "object"})}


# --- all of it ------------------------------------------------------------------------------------------------------


def definitions() -> Json:
    """Every definition by name: ``CallDialCommand``, ``Answer``, ``Event``, ``CallStartedEvent``, ``CallState`` …"""
    found: Json = {f"{pascal(verb.name)}Command": command(verb) for verb in VERBS}
    found["Answer"] = answer()
    found["Event"] = event()
    found.update((f"{pascal(name)}Event", event(name)) for name in EVENTS)
    found.update((f"{pascal(name)}State", state(name)) for name in STATES)
    found["Reason"] = _reason()
    found.update(statistics.definitions())
    return found


def document() -> Json:
    """One schema with all definitions, for ``docs/schema.json``."""
    return {
        "$schema": DIALECT,
        "title": "Edgecall",
        "description": "Commands, answers, events and state of the Edgecall appliance, version 1.",
        "$defs": definitions(),
    }
