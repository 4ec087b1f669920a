"""The HTTP face as OpenAPI 3.1: one path per verb, the routes around them, how a caller proves who it is."""

from __future__ import annotations

from typing import Any, Final

from appliance.faces import statistics
from appliance.faces.jsonschema import DIALECT, answer, definitions, pascal
from appliance.vocabulary import DIALECTS, DOCUMENTS, ID_PATTERN, SAMPLE_S, VERBS, VOLATILE, Json, Scope, Verb

__all__ = ["document"]

WAIT_MAXIMUM_S: Final = 180
_PROOFS: Final[list[Json]] = [{"bearer": []}, {"session": []}]


def document(version: str = "1") -> Json:
    """The whole document. It describes the contract ``v1``, not a release; ``version`` is that of the contract."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "Edgecall",
            "version": version,
            "description": (
                "Calls, devices and state of one appliance. Listens on this machine alone unless http.listen says "
                "otherwise, and then with TLS only. The Unix socket edgecall.sock serves the same routes with the "
                "scope admin and no token. A token of the scope device is another appliance's: /v1/peer takes it, all "
                "other routes refuse it with 403."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8080", "description": "the appliance itself"}],
        "security": _PROOFS,
        "tags": [
            {"name": "commands", "description": "What the appliance can be told to do."},
            {"name": "state", "description": "What is known, and what happens."},
            {"name": "streams", "description": "WebSockets of the pages and of other appliances."},
            {"name": "page", "description": "How a browser gets in."},
        ],
        "paths": {**{f"/v1/cmd/{verb.name}": _command(verb) for verb in VERBS}, **_state(), **_page(), **_streams()},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token of [[http.tokens]]."},
                "session": {
                    "type": "apiKey", "in": "cookie", "name": "edgecall-DEVICE",
                    "description": "Set by /enter; what changes state needs an exact Origin as well.",
                },
            },
            "schemas": definitions(),
            "responses": {"Refused": {
                "description": "Refused; the answer says why and what to do.",
                "content": _json({"$ref": "#/components/schemas/Answer"}),
            }},
        },
    }


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _reply(words: str, schema: Json) -> Json:
    return {"description": words, "content": _json(schema)}


def _command(verb: Verb) -> Json:
    notes = [verb.summary]
    if verb.acts:
        notes.append(f"Acts on the world: ttl_s is needed, at most {verb.max_ttl_s:g} s.")
    if verb.two_step:
        notes.append("While the clock is not synchronised it answers 401/challenge: send it again with the nonce.")
    replies = {"200": _reply("Done.", answer(verb))}
    if verb.long:
        replies["202"] = _reply("Accepted; the final answer comes later, or with wait.", answer(verb))
    return {"post": {
        "operationId": verb.name.replace(".", "_"),
        "summary": verb.summary,
        "description": " ".join(notes),
        "tags": ["commands"],
        "x-scope": verb.scope.value,
        "parameters": [{
            "name": "wait", "in": "query", "description": "Seconds to wait for the final answer.",
            "schema": {"type": "number", "minimum": 0, "maximum": WAIT_MAXIMUM_S, "default": 0},
        }],
        "requestBody": {
            "required": True, "content": _json({"$ref": f"#/components/schemas/{pascal(verb.name)}Command"}),
        },
        "responses": {**replies, "default": {"$ref": "#/components/responses/Refused"}},
    }}


def _read(
    operation: str, summary: str, replies: Json, *, tag: str = "state", scope: Scope | None = Scope.OPERATOR,
    parameters: list[Json] | None = None,
) -> Json:
    found: Json = {"operationId": operation, "summary": summary, "tags": [tag]}
    if scope is None:
        found["security"] = [{}]
    else:
        found["x-scope"] = scope.value
    if parameters:
        found["parameters"] = parameters
    found["responses"] = {**replies, "default": {"$ref": "#/components/responses/Refused"}}
    return found


_SNAPSHOT: Final[Json] = {
    "type": "object", "required": ["rev", "boot", "documents"],
    "properties": {
        "rev": {"type": "integer", "minimum": 0}, "boot": {"type": "string"},
        "documents": {"type": "object", "properties": {
            name: {"$ref": f"#/components/schemas/{pascal(name)}State"} for name in DOCUMENTS
            if name != VOLATILE}},
    },
}
_HEALTH: Final[Json] = {
    "type": "object", "required": ["status"], "properties": {"status": {"enum": ["ok", "degraded", "failed"]}},
}
_SUMMARY: Final[Json] = {
    "type": "object", "description": "the record of the call as in state/calls, and what its media were like",
    "properties": {"media": statistics.summary(), "mediaStatsTimeSeries": {
        "type": "array", "items": {"type": "object"},
        "description": "with dialect=acs, in place of media: rows of CallClientMediaStatsTimeSeries"}},
}


def _state() -> Json:
    name = {"name": "name", "in": "path", "required": True, "schema": {"enum": list(DOCUMENTS)}}
    sample = _reply("The sample.", statistics.sample(f"{pascal(VOLATILE)}State"))
    every = {"name": VOLATILE, "in": "query", "description": "samples of statistics as state documents named "
             f"{VOLATILE}, for as long as the stream lasts: seconds between two",
             "schema": {"type": "integer", "minimum": SAMPLE_S[0], "maximum": SAMPLE_S[1]}}
    call = {"name": "call", "in": "path", "required": True, "schema": {"type": "string"},
            "description": "id of the call; last: the running one, else the last"}
    dialect = {"name": "dialect", "in": "query", "schema": {"enum": list(DIALECTS), "default": DIALECTS[0]}}
    stream = ("Server-sent events: hello {boot, rev}, one state {name, rev, document} per document, then state and "
              "event (CloudEvents) as they come; cut {reason} before the appliance ends the stream.")
    text = {"schema": {"type": "string"}}
    return {
        "/v1/state": {"get": _read("state", "Every state document.", {"200": _reply("The snapshot.", _SNAPSHOT)})},
        "/v1/state/{name}": {"get": _read(
            "state_document", "One state document.", {"200": _reply("The document.", {"type": "object"})},
            parameters=[name])},
        f"/v1/state/{VOLATILE}": {"get": _read(
            "state_quality", "Statistics of the device and of the call, with the verdict on them, now.",
            {"200": sample}, parameters=[dialect])},
        "/v1/events": {"get": _read("events", "State and events as they come.", {
            "200": {"description": stream, "content": {"text/event-stream": text}}}, parameters=[every, dialect])},
        "/v1/health": {"get": _read(
            "health", "Whether the appliance works; causes only for those who may know.",
            {"200": _reply("ok or degraded.", _HEALTH), "503": _reply("failed.", _HEALTH)}, scope=None)},
        "/v1/stats": {"get": _read("stats", f"The same as /v1/state/{VOLATILE}.", {"200": sample},
                                   parameters=[dialect])},
        "/v1/calls/{call}/summary": {"get": _read(
            "summary_of_call", "What a call was like, or is so far (its state says so); 404 when it is not kept.",
            {"200": _reply("Its summary.", _SUMMARY)}, parameters=[call, dialect])},
        "/v1/camera/snapshot": {"get": _read("snapshot", "A picture of the camera, now.", {
            "200": {"description": "The picture.", "content": {"image/jpeg": {}}}})},
        "/v1/camera/preview": {"get": _read(
            "preview", "What the camera sees, five pictures a second, for two minutes or until a call.",
            {"200": {"description": "A part for each picture.", "content": {"multipart/x-mixed-replace": {}}}})},
        "/v1/openapi.json": {"get": _read("openapi", "This document.", {
            "200": _reply("OpenAPI 3.1.", {"type": "object"})})},
        "/metrics": {"get": _read("metrics", "Figures for Prometheus.", {
            "200": {"description": "Prometheus text.", "content": {"text/plain": text}}})},
    }


def _page() -> Json:
    address: Json = {"type": "object", "additionalProperties": False, "properties": {
        "name": {"type": "string", "pattern": ID_PATTERN, "default": "operator"},
        "displayName": {"type": "string", "maxLength": 64},
        "scope": {"enum": [Scope.OPERATOR.value, Scope.ADMIN.value], "default": "admin"},
        "page": {"enum": ["/", "/operator"], "default": "/"},
    }}
    printed: Json = {"type": "object", "required": ["address"],
                     "properties": {"address": {"type": "string", "format": "uri"}}}
    who = {"type": "object", "required": ["name", "scope", "device"], "properties": {
        "name": {"type": "string"}, "displayName": {"type": "string"},
        "scope": {"enum": [Scope.OPERATOR.value, Scope.ADMIN.value]}, "device": {"type": "object"},
        "simulation": {"type": "boolean"}, "calls": {"type": "boolean"},
        "words": {"type": "object", "description": "the words of the vocabulary, for the page"}}}
    html: Json = {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}
    query: list[Json] = [
        {"name": "token", "in": "query", "required": True, "schema": {"type": "string"}},
        {"name": "next", "in": "query", "schema": {"enum": ["/", "/operator"], "default": "/"}},
    ]
    asked = _read("address", "Print a fresh one-time address of a page.", {"200": _reply("Its address.", printed)},
                  tag="page", scope=Scope.ADMIN)
    asked["requestBody"] = {"required": False, "content": _json(address)}
    return {
        "/v1/address": {"post": asked},
        "/v1/session": {
            "get": _read("session", "Who the caller is.", {"200": _reply("The caller.", who)}, tag="page"),
            "delete": _read("sign_out", "End the session of this page.", {"200": _reply("Ended.", {"type": "object"})},
                            tag="page"),
        },
        "/enter": {"get": _read("enter", "Exchange a one-time token for a session cookie.", {
            "303": {"description": "To the page, with the cookie."}}, tag="page", scope=None, parameters=query)},
        "/": {"get": _read("page_device", "The device with its front panel.", {"200": html}, tag="page")},
        "/operator": {"get": _read("page_operator", "The operator's page.", {"200": html}, tag="page")},
    }


def _streams() -> Json:
    upgraded: Any = {"101": {"description": "A WebSocket."}}
    return {
        "/v1/peer": {"get": _read("peer", "Signalling of direct calls: JSON texts {v, type, callId, nonce, …}, at most "
                                  "64 KiB each. The one route that takes another appliance (scope device).", upgraded,
                                  tag="streams")},
        "/v1/sim": {"get": _read(
            "sim", "Front panel of the simulated board. Binary, first byte the type: to the page 0x01 JPEG of the "
            "screen, 0x02 loudspeaker; from the page 0x11 microphone, 0x12 JPEG of its camera; sound is PCM s16le, "
            "48 kHz, mono. Text: JSON {listen, watch}.", upgraded, tag="streams")},
    }
