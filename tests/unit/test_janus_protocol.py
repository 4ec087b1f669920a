"""The words of Janus: errors to reasons, lists to people, and nothing raised by what no Janus sends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.providers.janus import protocol as wire
from appliance.providers.janus.protocol import Fault, Person, Stream

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["id", "display", "streams", "mid", "type", "feed_id", "joining", "publishers", "attendees",
                         "metadata", "identity", "codec", "code", "error_code", "error", "reason"]), inner, max_size=6),
    max_leaves=20)


@pytest.mark.parametrize(("error", "fault", "key"), [
    ({"error_code": 426, "error": "No such room (99)"}, Fault.REFUSED, "404/noSuchRoom"),
    ({"error_code": 430, "error": "Invalid element type (room should be a positive integer)"}, Fault.REFUSED,
     "404/noSuchRoom"),
    ({"error_code": 430, "error": "Invalid element type (pin should be a string)"}, Fault.PASSING, "503/provider"),
    ({"error_code": 432, "error": "Maximum number of publishers (1) already reached"}, Fault.FULL, "403/roomFull"),
    ({"error_code": 433, "error": "Unauthorized (wrong pin)"}, Fault.REFUSED, "403/wrongPin"),
    ({"error_code": 429, "error": "Missing element (pin)"}, Fault.REFUSED, "403/wrongPin"),
    ({"error_code": 433, "error": "Unauthorized (not in the allowed list)"}, Fault.REFUSED, "403/notInvited"),
    ({"code": 403, "reason": "Unauthorized request (wrong or missing secret/token)"}, Fault.REFUSED, "401/token"),
    ({"code": 405, "reason": "Unauthorized access to plugin"}, Fault.REFUSED, "401/token"),
    ({"code": 458, "reason": "No such session 1"}, Fault.STALE, "503/provider"),
    ({"code": 460, "reason": "No such plugin"}, Fault.REFUSED, "501/noPlugin"),
    ({"code": 490, "reason": "oh"}, Fault.PASSING, "503/provider"),
    ({"code": "x"}, Fault.PASSING, "503/provider"),
])
def test_what_an_error_means(error: dict[str, Any], fault: Fault, key: str) -> None:
    meant, reason = wire.fault_of(error)
    assert (meant, reason.key) == (fault, key)
    assert reason.message


@pytest.mark.parametrize(("error", "fault", "key"), [
    ({"error_code": 485, "error": "No such room (99)"}, Fault.REFUSED, "404/noSuchRoom"),
    ({"error_code": 484, "error": "Invalid element type (room should be a positive integer)"}, Fault.REFUSED,
     "404/noSuchRoom"),
    ({"error_code": 489, "error": "Unauthorized (wrong pin)"}, Fault.REFUSED, "403/wrongPin"),
    ({"error_code": 483, "error": "Missing mandatory element (pin)"}, Fault.REFUSED, "403/wrongPin"),
    ({"error_code": 483, "error": "Missing mandatory element (room)"}, Fault.PASSING, "503/provider"),
    ({"error_code": 489, "error": "Unauthorized (not in the allowed list)"}, Fault.REFUSED, "403/notInvited"),
    ({"error_code": 490, "error": "User ID 1 already exists"}, Fault.STALE, "503/provider"),
    ({"error_code": 433, "error": "of another plug-in"}, Fault.PASSING, "503/provider"),
    ({"code": 403, "reason": "Unauthorized request"}, Fault.REFUSED, "401/token"),
    ({"code": 460, "reason": "No such plugin"}, Fault.REFUSED, "501/noPlugin"),
])
def test_what_an_error_means_in_a_room_of_sound_alone(error: dict[str, Any], fault: Fault, key: str) -> None:
    meant, reason = wire.fault_of(error, wire.AUDIO_BRIDGE)
    assert (meant, reason.key) == (fault, key)
    assert key != "501/noPlugin" or "AudioBridge" in reason.message


def test_an_unknown_error_is_told_in_the_servers_words() -> None:
    assert "no memory left" in wire.fault_of({"code": 490, "reason": "no memory left"})[1].message


def test_a_room_is_named_by_number_where_it_is_one() -> None:
    assert (wire.room_id("1234"), wire.room_id("lobby"), wire.room_id("\u0661")) == (1234, "lobby", "\u0661")
    assert wire.room_id(str(2**63 - 1)) == 2**63 - 1
    assert wire.room_id("0") == 0
    for name in ("007", "00", "-5", str(2**63), "9" * 200, "9" * 5000):  # a server with ids of text may have even these
        assert wire.room_id(name) == name


def test_people_who_publish() -> None:
    data = {"publishers": [
        {"id": 7, "display": "Olga\n", "talking": True, "metadata": {"identity": "olga"}, "streams": [
            {"type": "audio", "mid": "0", "codec": "opus", "moderated": True},
            {"type": "video", "mid": "1", "codec": "H264"},
            {"type": "data", "mid": "2"}, {"type": "video", "mid": "3", "disabled": True}, "?"]},
        {"id": "guest-2"}, {"display": "nobody"}, {"id": 9, "dummy": True}]}
    assert list(wire.persons(data)) == [
        Person(7, "Olga", "olga", (Stream("0", "audio", "opus", True), Stream("1", "video", "h264"),
                                   Stream("2", "data", "")), talking=True),
        Person("guest-2")]


def test_people_who_only_watch() -> None:
    assert list(wire.attendees({"attendees": [{"id": 1, "display": "Ada"}], "joining": {"id": 2}})) == [
        Person(1, "Ada"), Person(2)]


def test_lines_that_carry_somebody() -> None:
    data = {"streams": [
        {"type": "audio", "active": True, "mid": "0", "feed_id": 7, "feed_mid": "0"},
        {"type": "video", "active": False, "mid": "1", "feed_id": 7, "feed_mid": "1"},
        {"type": "video", "active": True, "mid": "2"},
        {"type": "data", "active": True, "mid": "3", "feed_id": 7, "feed_mid": "2"}]}
    assert wire.lines_of(data) == [wire.Line("0", "audio", "7", "0")]


@given(JSON)
def test_anything_at_all_is_taken_apart_without_an_exception(value: Any) -> None:
    data = value if isinstance(value, dict) else {"publishers": value, "attendees": value, "streams": value}
    list(wire.persons(data))
    list(wire.attendees(data))
    wire.lines_of(data)
    wire.fault_of(data)
