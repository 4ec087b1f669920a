"""The envelope of a command: what is taken, what is refused and with which words."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.errors import BadRequest, EdgecallError, NotPermitted, Refused, SignalingError, StoreError
from appliance.faces.envelope import decode, encode, parse, refusal, salvage_id
from appliance.vocabulary import MAX_PAYLOAD, VERB, VERBS, Answer, ArgType, Command, Origin, Result, Scope
from hw.api import HardwareError


def take(verb, body, *, scope=Scope.ADMIN, origin=Origin.HTTP, **more) -> Command:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(verb, raw, origin=origin, sender="lena", scope=scope, now=lambda: 100.0, **more)


def refused(verb, body, **more) -> EdgecallError:
    with pytest.raises((BadRequest, NotPermitted)) as caught:
        take(verb, body, **more)
    return caught.value


def test_a_right_command_becomes_a_command():
    command = take("io.set", {"id": "1", "ts": 5, "ttl_s": 4, "args": {"relay": "door", "seconds": 3}, "nonce": "n"})
    assert (command.id, command.verb, dict(command.args)) == ("1", VERB["io.set"], {"relay": "door", "seconds": 3})
    assert (command.ts, command.ttl_s, command.deadline, command.nonce) == (5.0, 4.0, 104.0, "n")
    assert (command.sender, command.scope, command.origin) == ("lena", Scope.ADMIN, Origin.HTTP)


def test_a_mapping_is_taken_like_bytes():
    command = parse("call.hangup", {"id": "1"}, origin=Origin.PANEL, sender="", scope=Scope.ADMIN)
    assert command.deadline is None and command.args == {}


def test_a_stopping_verb_needs_no_expiry_on_any_door():
    for verb in ("call.hangup", "call.reject", "call.mute", "video.stop"):
        assert take(verb, {"id": "1"}, require_mqtt_expiry=True).deadline is None


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS if verb.acts])
def test_an_acting_verb_without_or_beyond_its_ttl_is_refused(verb):
    assert refused(verb, {"id": "1"}).key == "400/noExpiry"
    assert refused(verb, {"id": "1", "ttl_s": VERB[verb].max_ttl_s + 0.001}).key == "400/ttlTooLong"


@pytest.mark.parametrize("expiry, deadline", [(2, 102.0), (5, 104.0)])
def test_the_deadline_is_the_smaller_of_ttl_and_remaining_expiry(expiry, deadline):
    body = {"id": "1", "ts": 1, "ttl_s": 4, "args": {"relay": "door", "seconds": 3}}
    assert take("io.set", body, mqtt_expiry_s=expiry, require_mqtt_expiry=True).deadline == deadline


def test_over_mqtt_an_acting_verb_needs_the_message_expiry_and_a_timestamp():
    body = {"id": "1", "ttl_s": 4, "args": {"relay": "door", "seconds": 3}}
    missing = refused("io.set", body, require_mqtt_expiry=True)
    assert missing.key == "400/noExpiry" and "missing or ran out on the way" in missing.message
    assert refused("io.set", body, require_mqtt_expiry=True, mqtt_expiry_s=60).key == "400/ttlTooLong"
    assert refused("io.set", body, require_mqtt_expiry=True, mqtt_expiry_s=3).key == "400/noTimestamp"


def test_correlation_data_must_equal_the_id():
    assert take("call.mute", {"id": "ä"}, correlation="ä".encode()).id == "ä"
    assert refused("call.mute", {"id": "1"}, correlation=b"2").key == "400/correlation"


def test_unknown_names_get_a_suggestion():
    verb = refused("call.hangap", {"id": "7"})
    assert verb.key == "400/unknownVerb" and "Did you mean 'call.hangup'?" in verb.message
    assert verb.fields["command_id"] == "7"
    arg = refused("dnd.set", {"id": "1", "args": {"onn": True}})
    assert arg.key == "400/unknownArg" and "Did you mean 'on'?" in arg.message
    field = refused("call.mute", {"id": "1", "ttl": 3})
    assert field.key == "400/unknownField" and "Did you mean 'ttl_s'?" in field.message


def test_a_member_of_an_object_is_named_with_its_object():
    def words(args):
        return refused("video.constraints", {"id": "1", "args": args}).message

    assert words({"recv": {"frameHeight": -1}}) == "'recv.frameHeight' must be at least 0."
    assert words({"send": {"bitrate": 60_000_000}}) == "'send.bitrate' must be at most 50000000."
    assert words({"send": {"frameRate": "30"}}) == "'send.frameRate' must be an integer: pictures per second."
    args = {"target": "lobby", "constraints": {"send": {"frameRate": 61}}}
    assert refused("room.join", {"id": "1", "ttl_s": 5, "args": args}).message == (
        "'constraints.send.frameRate' must be at most 60.")


def test_the_scope_is_checked_before_the_arguments():
    error = refused("book.put", {"id": "1"}, scope=Scope.OPERATOR)
    assert isinstance(error, NotPermitted) and error.key == "403/scope" and error.fields["command_id"] == "1"
    assert refused("book.put", {"id": "1"}, scope=Scope.ADMIN).key == "400/missingArg"


@pytest.mark.parametrize("verb, args, key", [
    ("devices.volume", {"percent": True}, "badArg"),
    ("devices.volume", {"percent": 5.0}, "badArg"),
    ("devices.volume", {"percent": "5"}, "badArg"),
    ("devices.volume", {"percent": 101}, "badArg"),
    ("devices.volume", {"percent": -1}, "badArg"),
    ("devices.volume", {"percent": None}, "badArg"),
    ("devices.volume", {}, "missingArg"),
    ("devices.volume", [], "badArg"),
    ("dnd.set", {"on": 1}, "badArg"),
    ("call.reject", {"reason": "busi"}, "badArg"),
    ("call.hangup", {"callId": "x" * 65}, "badArg"),
    ("book.put", {"name": "", "uris": ["device:a"]}, "badArg"),
    ("book.put", {"name": "a", "uris": []}, "badArg"),
    ("book.put", {"name": "a", "uris": ["device:a", 5]}, "badArg"),
    ("book.put", {"name": "a", "uris": "device:a"}, "badArg"),
    ("video.constraints", {"send": 360}, "badArg"),
    ("video.constraints", {"send": {"frameHeight": "360"}}, "badArg"),
    ("video.constraints", {"send": {"frameRate": 61}}, "badArg"),
    ("video.constraints", {"send": {"height": 360}}, "unknownArg"),
    ("video.constraints", {"degradationPreference": "best"}, "badArg"),
])
def test_arguments_are_checked_against_the_vocabulary(verb, args, key):
    assert refused(verb, {"id": "1", "args": args}).key == f"400/{key}"


@pytest.mark.parametrize("body, key", [
    (b"", "badJson"),
    (b"\xff", "badJson"),
    (b"[]", "badEnvelope"),
    (b"5", "badEnvelope"),
    (b'{"id":"1","ts":NaN}', "badJson"),
    (b'{"id":"1","ts":1e999}', "badJson"),
    (b'{"id":"1","ts":' + b"9" * 5000 + b"}", "badJson"),
    (b'{"id":"1","ts":9007199254740993}', "badJson"),
    (b'{"id":"1","ts":true}', "badTimestamp"),
    (b'{"id":"1","ts":-1}', "badTimestamp"),
    (b'{"id":"1","ttl_s":0}', "badTtl"),
    (b'{"id":"1","ttl_s":true}', "badTtl"),
    (b'{"id":"1","id":"2"}', "duplicateKey"),
    (b'{"id":"1","args":{"callId":"a","callId":"b"}}', "duplicateKey"),
    (b'{"id":"\\ud800"}', "badJson"),
    (b'{"id":""}', "badId"),
    (b'{"id":"a\\u0000"}', "badId"),
    (b'{"id":"' + b"a" * 65 + b'"}', "badId"),
    (b'{"id":5}', "badId"),
    (b"{}", "badId"),
    (b'{"id":"1","nonce":5}', "badNonce"),
    (b'{"id":"1","args":' + b"[" * 5000 + b"]" * 5000 + b"}", "badJson"),
    (b'{"id":"1","args":' + b"[" * 8 + b"]" * 8 + b"}", "badJson"),
    (b" " * (MAX_PAYLOAD + 1), "tooLarge"),
])
def test_a_wrong_body_is_refused_with_its_reason(body, key):
    assert refused("call.hangup", body).key == f"400/{key}"


def test_a_mapping_with_a_cycle_or_foreign_values_is_refused():
    cycle: dict = {"id": "1"}
    cycle["args"] = cycle
    for body in (cycle, {"id": "1", "args": {"x": object()}}, {"id": "1", 5: 5}, {"id": "1", "ts": float("nan")}):
        with pytest.raises(BadRequest):
            parse("call.hangup", body, origin=Origin.HTTP, sender="", scope=Scope.ADMIN)


@pytest.mark.parametrize("error, result, key", [
    (BadRequest("no"), Result.REJECTED, (400, "badRequest")),
    (NotPermitted("no"), Result.REJECTED, (403, "scope")),
    (Refused("no"), Result.REJECTED, (409, "state")),
    (Refused("late", code=408, sub_code="ttlExpired"), Result.EXPIRED, (408, "ttlExpired")),
    (SignalingError("no"), Result.FAILED, (400, "signaling")),
    (StoreError("no"), Result.FAILED, (500, "store")),
    (HardwareError("no"), Result.FAILED, (410, "deviceFault.media")),
])
def test_an_error_becomes_one_answer(error, result, key):
    answer = refusal("1", error, 7)
    assert (answer.result, (answer.code, answer.sub_code)) == (result, key)
    assert (answer.message, answer.state_rev) == (str(error), 7)


def test_a_defect_keeps_its_words_out_of_the_answer():
    answer = refusal("1", RuntimeError("secret path"), 7)
    assert (answer.result, answer.code, answer.sub_code) == (Result.FAILED, 500, "internal")
    assert "secret" not in answer.message


def test_an_answer_survives_its_bytes():
    answer = Answer("ä", Result.DONE, state_rev=3, data={"callId": "x"})
    assert decode(encode(answer)) == answer
    with pytest.raises(ValueError, match="answer to 1"):
        encode(Answer("1", Result.DONE, data={"x": object()}))


def test_the_id_of_a_useless_body_is_salvaged_where_readable():
    assert salvage_id(b'{"id":"9","wrong":1}') == "9"
    assert salvage_id(b'{"id":9}') == "" and salvage_id(b"\x00") == ""


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12,
)
_arg_names = sorted({arg.name for verb in VERBS for arg in verb.args})
_envelopes = st.fixed_dictionaries({}, optional={
    "id": st.text(max_size=70) | _values, "ts": _values, "ttl_s": st.floats(0, 6) | _values, "nonce": _values,
    "args": st.dictionaries(st.sampled_from(_arg_names), _values, max_size=4) | _values,
})
_verbs = st.sampled_from([*VERB, "call.hangap", ""]) | st.text(string.printable, max_size=80)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(verb=_verbs, body=st.binary(max_size=200) | _envelopes | _envelopes.map(lambda b: json.dumps(b).encode()),
       expiry=st.none() | st.floats(0, 100), scope=st.sampled_from(Scope), required=st.booleans(),
       correlation=st.none() | st.binary(max_size=4))
@example(verb="call.mute", body=b'{"id":"1"', expiry=None, scope=Scope.ADMIN, correlation=None, required=True)
def test_nothing_but_bad_request_or_not_permitted_ever_escapes(verb, body, expiry, scope, correlation, required):
    try:
        command = parse(verb, body, origin=Origin.MQTT, sender="x", scope=scope, mqtt_expiry_s=expiry,
                        require_mqtt_expiry=required, correlation=correlation, now=lambda: 0.0)
    except (BadRequest, NotPermitted) as error:
        encode(refusal(error.fields["command_id"], error, 0))
    else:
        assert command.verb.name == verb and scope.permits(command.verb.scope)
        assert not command.verb.acts or 0 <= command.deadline <= command.verb.max_ttl_s


def test_every_argument_type_of_the_vocabulary_is_checked():
    assert {arg.type for verb in VERBS for arg in verb.args} <= set(ArgType)
