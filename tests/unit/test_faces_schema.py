"""The schema says what the appliance does: it agrees with the envelope's own checks, and with what is sent."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from appliance.bulletin import Bulletin
from appliance.calls.active import ActiveCall, no_call
from appliance.calls.machine import Call
from appliance.calls.roster import Participant, Roster
from appliance.care.configuration import Configuration
from appliance.care.diagnostics import Diagnostics
from appliance.doors.http.events import cloud_event
from appliance.errors import BadRequest, EdgecallError, Refused
from appliance.faces.envelope import parse, refusal
from appliance.faces.jsonschema import answer, command, event, state
from appliance.providers.api import MediaWanted, Peer
from appliance.settings import Loaded, Settings
from appliance.vocabulary import (
    END_REASONS,
    EVENTS,
    VERBS,
    Answer,
    Arg,
    ArgType,
    CallState,
    Event,
    Json,
    Origin,
    Result,
    Scope,
    Verb,
)
from hw.api import DeviceMissingError
from tests.support.http_door import OPERATOR, running_door

CHECKS = {verb.name: Draft202012Validator(command(verb)) for verb in VERBS}


def accepted(verb: Verb, body: dict[str, Any]) -> bool:
    try:
        parse(verb.name, body, origin=Origin.HTTP, sender="x", scope=Scope.ADMIN)
    except BadRequest:
        return False
    return True


def _value(arg: Arg) -> st.SearchStrategy[Any]:
    fitting: dict[ArgType, st.SearchStrategy[Any]] = {
        ArgType.STRING: st.sampled_from(arg.choices) if arg.choices else st.text("abc:*", max_size=70),
        ArgType.INTEGER: st.integers(-5, 200),
        ArgType.NUMBER: st.floats(-5, 100) | st.integers(-5, 100),
        ArgType.BOOLEAN: st.booleans(),
        ArgType.STRINGS: st.lists(st.text("abc", max_size=3), max_size=20),
        ArgType.OBJECT: st.dictionaries(st.text(max_size=3), st.integers(), max_size=2) | st.fixed_dictionaries(
            {}, optional={field.name: _value(field) for field in arg.fields}),
    }
    return fitting[arg.type] | st.sampled_from(["x", 7, 7.5, True, None, ["a"], [1], {}])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Verb, dict[str, Any]]:
    verb = draw(st.sampled_from(VERBS))
    args = {arg.name: draw(_value(arg)) for arg in verb.args if arg.required or draw(st.booleans())}
    if draw(st.integers(0, 9)) == 0:
        args["unknown"] = 1
    body: dict[str, Any] = {"id": draw(st.sampled_from(["a", "a-1", "x" * 64, "x" * 65, "", 7])), "args": args}
    if draw(st.integers(0, 3)):
        body["ttl_s"] = draw(st.sampled_from([1, 4.5, 5, 30, 31, 0, -1, "5"]))
    if draw(st.booleans()):
        body["ts"] = draw(st.sampled_from([0, 1767225600.5, -1, "now"]))
    return verb, body


def _flat(args: dict[str, Any]) -> list[Any]:
    """Every value, those of members of objects too."""
    return [inner for value in args.values() for inner in (value.values() if isinstance(value, dict) else [value])]


@given(bodies())
def test_schema_and_envelope_agree(found: tuple[Verb, dict[str, Any]]) -> None:
    """The schema is what integrators check against; what it lets through, the appliance takes, and the reverse.

    One known difference: in JSON Schema 7.0 is an integer, and the envelope does not coerce.
    """
    verb, body = found
    if any(isinstance(value, float) and value == math.floor(value) for value in _flat(body["args"])):
        return
    assert CHECKS[verb.name].is_valid(body) == accepted(verb, body), (verb.name, body)


@pytest.mark.parametrize("found", [
    Answer("a", Result.DONE),
    Answer("a", Result.ACCEPTED, state_rev=3, data={"callId": "x"}),
    refusal("a", BadRequest("no", sub_code="unknownVerb"), 1),
    refusal("a", Refused("busy", code=486, sub_code="busy"), 1),
    refusal("", EdgecallError("broken"), 1),
    refusal("a", DeviceMissingError("no camera"), 1),
    refusal("a", ZeroDivisionError("secret detail"), 1),
], ids=str)
def test_answers_fit_the_schema(found: Answer) -> None:
    Draft202012Validator(answer()).validate(found.payload())


@pytest.mark.parametrize("name", EVENTS)
def test_events_fit_the_schema(name: str) -> None:
    sent = cloud_event(Event(name, {"callId": "x"}, time.time(), "id-1"), "front-door", "boot-1")
    for schema in (event(), event(name)):
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(sent)
    other = next(one for one in EVENTS if one != name)
    assert not Draft202012Validator(event(other)).is_valid(sent)


async def test_state_documents_fit_the_schema() -> None:
    def check(name: str, document: Json) -> None:
        Draft202012Validator(state(name), format_checker=FormatChecker()).validate(document)

    bulletin = Bulletin("boot-1")
    diagnostics = Diagnostics(bulletin)
    loaded = Loaded(Settings(), ("call.ring_s = 1: must be 5 to 120 s",))
    Configuration(loaded, None, bulletin, diagnostics, lambda: loaded, lambda _: None)
    diagnostics.quality("networkReconnect", 3)
    assert set(bulletin.document("diag")) == {"configRejected", "networkReconnect"}
    check("diag", bulletin.document("diag"))
    check("config", bulletin.document("config"))
    able = {"unmuteMic": {"isPresent": True, "reason": "Capable"}}
    check("call", no_call(able))
    over = Call("c-1", CallState.DISCONNECTED, CallState.CONNECTED, began=1.0, since=9.0, connected=2.0,
                reason=END_REASONS["0/remote"])
    for call in (Call("c-1", CallState.INCOMING), over):
        active = ActiveCall(call, MediaWanted(), peer=Peer("desk", "operator:desk", "Desk"))
        check("call", active.document(9.0, hardware_muted=True, capabilities=able))
    seats = (Participant(f"p-{kind}", "desk", "Desk", kind, quality=3, reason=END_REASONS["603/declined"])
             for kind in ("voip", "device"))
    check("roster", {"callId": "c", **Roster({seat.id: seat for seat in seats}).payload()})


@pytest.mark.parametrize(("name", "document"), [
    ("call", {"state": "connected", "callId": "x"}), ("call", {"callId": "x"}), ("availability", {}),
    ("diag", {"tamper": {"value": 1, "valueType": "DiagnosticFlag", "message": "x", "advice": "y"}}),
    ("roster", {"participants": [{"state": "Connected"}]}), ("health", {"status": "fine"}),
])
def test_other_documents_do_not(name: str, document: Json) -> None:
    assert not Draft202012Validator(state(name)).is_valid(document)


async def test_what_the_door_answers_fits_the_schema(tmp_path: Path) -> None:
    check = Draft202012Validator(answer())
    async with running_door(tmp_path) as running:
        for verb, body in (("call.mute", {"id": "a"}), ("call.moot", {"id": "a"}), ("call.dial", {"id": "b"}),
                           ("book.remove", {"id": "c", "args": {"name": "x"}})):
            async with running.http.post(f"{running.base}/v1/cmd/{verb}", json=body,
                                         headers=running.bearer(OPERATOR)) as reply:
                check.validate(await reply.json())
