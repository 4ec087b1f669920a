"""The MQTT face as AsyncAPI 3.0: channels, messages, who sends and who receives, the answer to each command."""

from __future__ import annotations

from typing import Final

from appliance.faces import statistics
from appliance.faces.jsonschema import definitions, pascal, state
from appliance.vocabulary import EVENTS, ID_PATTERN, MAX_PAYLOAD, ROOT, STATES, VERBS, VOLATILE, Json, Verb

__all__ = ["document", "event_topics"]

_DEVICE: Final[Json] = {"description": "Id of the device.", "examples": ["front-door"]}


def event_topics() -> tuple[str, ...]:
    """The first words of the event types, in order: what stands after ``event/``."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name in EVENTS))


def document(version: str = "1") -> Json:
    """The whole document; the appliance is the application: it receives commands, sends the rest."""
    channels, operations, messages = _commands()
    for part in (_states(), _events(), _signal(), _quality(), _summary()):
        for target, found in zip((channels, operations, messages), part, strict=True):
            target.update(found)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Edgecall",
            "version": version,
            "description": (
                "One appliance on an MQTT 5 broker. Commands are never retained; those that act on the world carry "
                f"ttl_s and MessageExpiryInterval. A payload has at most {MAX_PAYLOAD} bytes. Every accepted command "
                "has exactly one final answer; it may arrive more than once, always with the same bytes."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": {
            "host": "broker.example.org:8883", "protocol": "secure-mqtt", "protocolVersion": "5.0",
            "description": "Any MQTT 5 broker; the embedded one listens on this machine alone.",
            "security": [{"$ref": "#/components/securitySchemes/certificate"},
                         {"$ref": "#/components/securitySchemes/login"}],
            "bindings": {"mqtt": {"cleanSession": False, "keepAlive": 15, "sessionExpiryInterval": 86_400,
                                  "lastWill": {"topic": f"{ROOT}/DEVICE/state/availability", "qos": 1,
                                               "message": "offline", "retain": True}}},
        }},
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": definitions(),
            "securitySchemes": {
                "certificate": {"type": "X509", "description": "Client certificate; its common name is the user."},
                "login": {"type": "userPassword"},
            },
        },
    }


def _channel(address: str, words: str, message: str, **parameters: Json) -> Json:
    return {
        "address": f"{ROOT}/{{device}}/{address}",
        "description": words,
        "parameters": {"device": _DEVICE, **parameters},
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }


def _message(name: str, words: str, payload: Json, **bindings: Json) -> Json:
    message: Json = {"name": name, "summary": words, "contentType": "application/json", "payload": payload}
    if bindings:
        message["bindings"] = bindings
    return message


def _operation(action: str, channel: str, words: str, message: str, qos: int, *, retain: bool = False,
               expiry_s: float | None = None) -> Json:
    binding: Json = {"qos": qos, "retain": retain, "bindingVersion": "0.2.0"}
    if expiry_s is not None:
        binding["messageExpiryInterval"] = int(expiry_s)
    return {
        "action": action, "summary": words, "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}], "bindings": {"mqtt": binding},
    }


def _schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


Part = tuple[Json, Json, Json]
"""Channels, operations and messages."""


def _commands() -> Part:
    channels: Json = {}
    operations: Json = {}
    messages: Json = {"Answer": {
        **_message("Answer", "The answer to one command.", _schema("Answer")),
        "correlationId": {"location": "$message.payload#/id"},
    }}
    for verb in VERBS:
        key = pascal(verb.name)
        channels[f"cmd{key}"] = _channel(f"cmd/{verb.name}", verb.summary, f"{key}Command")
        channels[f"ack{key}"] = _channel(f"ack/{verb.name}", f"Answers to {verb.name}.", "Answer")
        operations[f"do{key}"] = {
            **_operation("receive", f"cmd{key}", verb.summary, f"{key}Command", 1,
                         expiry_s=verb.max_ttl_s if verb.acts else None),
            "description": _rules(verb),
            "reply": {"channel": {"$ref": f"#/channels/ack{key}"},
                      "messages": [{"$ref": f"#/channels/ack{key}/messages/Answer"}]},
        }
        messages[f"{key}Command"] = {
            **_message(f"{key}Command", verb.summary, _schema(f"{key}Command"),
                       mqtt={"correlationData": {"type": "string", "description": "when present, equal to id"},
                             "bindingVersion": "0.2.0"}),
            "correlationId": {"location": "$message.payload#/id"},
        }
    return channels, operations, messages


def _rules(verb: Verb) -> str:
    words = [f"Scope {verb.scope.value}. Never retained."]
    if verb.acts:
        words.append(f"Acts: ttl_s, ts and MessageExpiryInterval are needed, at most {verb.max_ttl_s:g} s.")
    if verb.two_step:
        words.append("Answers 401/challenge while the clock is not synchronised.")
    if verb.long:
        words.append("Answers accepted first, and one final answer later.")
    return " ".join(words)


def _states() -> Part:
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    for name in STATES:
        if name == VOLATILE:
            continue
        key = f"{pascal(name)}State"
        channels[f"state{pascal(name)}"] = _channel(f"state/{name}", STATES[name], key)
        operations[f"tell{key}"] = _operation("send", f"state{pascal(name)}", f"On change, retained: {STATES[name]}",
                                              key, 1, retain=True)
        payload = _schema(key) if name == "availability" else {"allOf": [_schema(key), _STAMP]}
        messages[key] = _message(key, STATES[name], payload)
        if "enum" in state(name):
            messages[key]["contentType"] = "text/plain"
    return channels, operations, messages


_STAMP: Final[Json] = {"type": "object", "properties": {
    "v": {"const": 1}, "ts": {"type": "number"}, "boot": {"type": "string"}, "seq": {"type": "integer", "minimum": 0},
    "clock": {"type": "string"},
}}


def _events() -> Part:
    channels: Json = {}
    operations: Json = {}
    messages: Json = {
        f"{pascal(name)}Event": _message(f"{pascal(name)}Event", words, _schema(f"{pascal(name)}Event"))
        for name, words in EVENTS.items()
    }
    for word in event_topics():
        names = [f"{pascal(name)}Event" for name in EVENTS if name.partition(".")[0] == word]
        channel = f"event{pascal(word)}"
        channels[channel] = {
            "address": f"{ROOT}/{{device}}/event/{word}", "parameters": {"device": _DEVICE},
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        }
        operations[f"tell{pascal(word)}Events"] = {
            **_operation("send", channel, f"Events edgecall.{word}.*, kept until the broker has them.", names[0], 1),
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
        }
    return channels, operations, messages


def _quality() -> Part:
    key = f"{pascal(VOLATILE)}State"
    channel = f"state{pascal(VOLATILE)}"
    words = "Statistics, for a minute after stats.subscribe."
    return (
        {channel: _channel(f"state/{VOLATILE}", words, key)},
        {f"tell{key}": _operation("send", channel, words, key, 0)},
        {key: _message(key, words, {"allOf": [statistics.sample(key), _STAMP]})},
    )


def _summary() -> Part:
    words = "What a call was like, after its end: its record as in state/calls, and its media. Kept for the broker."
    payload: Json = {"type": "object", "required": ["callId", "media"],
                     "properties": {"callId": {"type": "string"}, "media": statistics.summary()}}
    return (
        {"logCallSummary": _channel("log/callSummary", words, "CallSummary")},
        {"tellCallSummary": _operation("send", "logCallSummary", words, "CallSummary", 1)},
        {"CallSummary": _message("CallSummary", words, payload)},
    )


def _signal() -> Part:
    words = "Signalling of direct calls. The caller is the last segment, which the broker proves; never the payload."
    sender: Json = {"description": f"Id of the device that publishes, {ID_PATTERN}.", "examples": ["lobby-2"]}
    payload: Json = {
        "type": "object", "required": ["v", "type", "callId", "nonce"],
        "properties": {"v": {"const": 1}, "type": {"type": "string"}, "callId": {"type": "string"},
                       "nonce": {"type": "string"}},
    }
    hear = _operation("receive", "signal", "What another device signals to us.", "Signal", 1)
    tell = _operation("send", "signal", "What we signal to another device.", "Signal", 1)
    return (
        {"signal": _channel("signal/{sender}", words, "Signal", sender=sender)},
        {"hearSignal": hear, "tellSignal": tell},
        {"Signal": _message("Signal", words, payload)},
    )
