"""The signalling messages: what is written is read back, and nothing else is read."""

from __future__ import annotations

import json
import string
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import SignalingError
from appliance.providers.direct import protocol as wire

CALL = "call-0001"
ME = wire.Party("door-1", "Front door ☎")
JPEG = b"\xff\xd8\xff\xe0" + bytes(64)

EXAMPLES: list[wire.Signal] = [
    wire.Hello("page", "tok", "", "Olga"),
    wire.Welcome("door-1", "Front door", "olga", "tok", True, (wire.LiveCall(CALL, 3),)),
    wire.Duty(True, "Olga"),
    wire.OnDuty(("Olga", "Otto")),
    wire.Leaving(),
    wire.ErrorSignal(400, "signaling", "no", CALL),
    wire.Invite(CALL, ME, wire.Sends(True, False), "operator:*"),
    wire.RingingSignal(CALL),
    wire.PictureSignal.of(CALL, JPEG),
    wire.Accept(CALL, "v=0\r\no=- 1", ME, wire.Sends(True, True)),
    wire.Answer(CALL, "v=0\r\no=- 1"),
    wire.Candidate(CALL, 2, "candidate:1 1 udp 1 10.0.0.1 9 typ host", "0", 0),
    wire.Candidate(CALL, 0, "", None, None),
    wire.Cancel(CALL, wire.Cause(487, "cancelled")),
    wire.AnsweredElsewhere(CALL),
    wire.Reject(CALL, wire.Cause(603, "declined")),
    wire.Bye(CALL, wire.Cause(410, "deviceFault.restart")),
    wire.Update(CALL, 7, True, False, True),
    wire.MediaLost(CALL, 1),
    wire.Move(CALL, 1),
    wire.Resume(CALL),
    wire.Reoffer(CALL, 1, "v=0\r\no=- 1"),
    wire.Reanswer(CALL, 1, "v=0\r\no=- 1"),
    wire.Settle(CALL, 1),
]


def body(signal: wire.Signal, **changes: Any) -> str:
    return json.dumps(json.loads(wire.pack(signal, ts=1_700_000_000.0)) | {"nonce": "0123456789abcdef"} | changes)


@pytest.mark.parametrize("signal", EXAMPLES, ids=lambda s: s.TYPE)
def test_every_message_is_read_back_as_it_was_written(signal: wire.Signal) -> None:
    envelope = wire.parse(wire.pack(signal, ts=1_700_000_000.5))
    assert envelope.signal == signal
    assert envelope.ts == 1_700_000_000.5
    assert len(envelope.nonce) >= 16


def test_the_examples_are_all_the_types() -> None:
    assert {type(signal) for signal in EXAMPLES} == set(wire._BY_TYPE.values())


@pytest.mark.parametrize("signal", EXAMPLES, ids=lambda s: s.TYPE)
def test_an_unknown_field_and_each_missing_one_are_refused(signal: wire.Signal) -> None:
    with pytest.raises(SignalingError, match="unknown field"):
        wire.parse(body(signal, extra=1))
    whole = json.loads(wire.pack(signal, ts=0))
    optional = {spec.metadata["wire"] or spec.name for spec in fields(signal)
                if spec.default in ("", None, True)}
    for name in whole.keys() - optional - {"ts"}:
        with pytest.raises(SignalingError):
            wire.parse(json.dumps({k: v for k, v in whole.items() if k != name}))


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "1", '"x"', "{}", "{", "[" * 60_000, "NaN", b"\xff\xfe\x00",
        body(wire.Leaving(), v=2), body(wire.Leaving(), v=True), body(wire.Leaving(), v=1.0),
        body(wire.Leaving(), type="lea"), body(wire.Leaving(), type=["leaving"]),
        body(wire.Leaving(), nonce="short"), body(wire.Leaving(), nonce="ä" * 20),
        body(wire.Leaving(), ts="now"), body(wire.Leaving(), ts=-1), body(wire.Leaving(), ts=True),
        body(wire.RingingSignal(CALL), callId="x"), body(wire.RingingSignal(CALL), callId="a/b" * 4),
        body(wire.Update(CALL, 1, True, True, True), muted=1), body(wire.Update(CALL, 1, True, True, True), seq=-1),
        body(wire.Update(CALL, 1, True, True, True), seq=2**60),
        body(wire.PictureSignal.of(CALL, JPEG), jpeg="!!!!!!!!!!!!"),
        body(wire.PictureSignal.of(CALL, JPEG), jpeg="aGVsbG8gd29ybGQ="),
        body(wire.Bye(CALL, wire.Cause(0, "local")), reason={"code": 0}),
        body(wire.Bye(CALL, wire.Cause(0, "local")), reason={"code": 0, "subCode": "a b"}),
        body(wire.Duty(True, "Olga"), displayName="a\u202eb"), body(wire.Duty(True, "Olga"), displayName="a\nb"),
        body(wire.Duty(True, "Olga"), displayName="\ud800"),
        '{"v":1,"type":"leaving","type":"duty","nonce":"0123456789abcdef"}',
        body(wire.Answer(CALL, "v=0\r\no=- 1"), sdp="x" * 60_000),
        body(wire.Leaving(), pad="x" * wire.MAX_SIGNAL),
    ],
)  # fmt: skip
def test_what_is_not_exactly_a_message_is_refused(text: str | bytes) -> None:
    with pytest.raises(SignalingError):
        wire.parse(text)


def test_the_largest_picture_fits_a_message() -> None:
    signal = wire.PictureSignal.of(CALL, JPEG + bytes(wire.PICTURE_BYTES - len(JPEG)))
    assert wire.parse(wire.pack(signal, ts=0)).signal == signal
    with pytest.raises(SignalingError, match="larger"):
        wire.pack(wire.PictureSignal.of(CALL, JPEG + bytes(50 * 1024)), ts=0)


def test_a_message_is_late_by_its_own_time_only_while_our_clock_is_right() -> None:
    envelope = wire.parse(wire.pack(wire.Invite(CALL, ME, wire.Sends(True, True)), ts=1000.0))
    assert not wire.expired(envelope, now=1006.9, synchronised=True)
    assert wire.expired(envelope, now=1007.1, synchronised=True)
    assert not wire.expired(envelope, now=1014.0, synchronised=False)


def test_a_nonce_is_fresh_once_until_it_is_forgotten() -> None:
    window = wire.ReplayWindow(keep_s=60, limit=100)
    assert window.fresh("a" * 16, 0.0)
    assert not window.fresh("a" * 16, 59.0)
    assert window.fresh("a" * 16, 61.0)
    for number in range(1000):
        window.fresh(f"{number:016}", 62.0)
    assert len(window) <= 101


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=300) | st.text(max_size=300) | st.builds(json.dumps, anything))
def test_garbage_is_refused_and_nothing_else_happens(text: str | bytes) -> None:
    with pytest.raises(SignalingError):
        wire.parse(text)


@given(st.sampled_from(EXAMPLES), st.data())
def test_a_changed_field_is_read_as_a_message_or_refused(signal: wire.Signal, data: st.DataObject) -> None:
    whole = json.loads(wire.pack(signal, ts=0))
    name = data.draw(st.sampled_from(sorted(whole)))
    whole[name] = data.draw(anything)
    try:
        envelope = wire.parse(json.dumps(whole))
    except SignalingError:
        return
    again = wire.parse(wire.pack(envelope.signal, ts=0, nonce=envelope.nonce))
    assert again.signal == envelope.signal


@given(st.text(string.printable + "äß☎𝄞", max_size=128))
def test_a_name_for_people_keeps_its_signs(name: str) -> None:
    signal = wire.Duty(True, name)
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in name):
        with pytest.raises(SignalingError):
            wire.parse(wire.pack(signal, ts=0))
    else:
        assert wire.parse(wire.pack(signal, ts=0)).signal == signal
