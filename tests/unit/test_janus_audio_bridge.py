"""Being in a room that is mixed, against a server in the test's hand: what is asked, and what each turn ends in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media.api import SessionBlocked, SessionUp
from appliance.providers import api
from appliance.providers.janus.audio_bridge import QUIET
from appliance.providers.janus.effects import CancelTimer, Finish, Ordered, Publish, StartTimer, TakeAnswer, Timer
from appliance.vocabulary import Json
from tests.support.janus_desk import PUBLISHER
from tests.support.janus_hall import Hall, guest


def test_a_room_is_joined_with_what_opens_it_and_one_connection() -> None:
    hall = Hall()
    hall.run(hall.member.mute(True))
    hall.run(hall.member.start())
    hall.opened()
    asked = next(one["body"] for one in hall.asked if one.get("body", {}).get("request") == "join")
    assert asked == {"request": "join", "room": 77, "pin": "4711", "display": "Front door", "muted": True}
    hall.joined(guest(2, "Olga"), guest(3, setup=False), guest(4, suspended=True))
    assert hall.told(api.Accepted) == [api.Accepted(api.Peer("hall", "audio:hall", "hall"))]
    assert hall.members == [
        api.Member("2", "Olga", "Olga"), api.Member("3", "g3", "g3", connecting=True),
        api.Member("4", "g4", "g4", muted=True)]
    assert hall.of(Publish) == [Publish(0)]
    hall.run(hall.member.offered(0, "offer"))
    offered = next(one for one in hall.asked if "jsep" in one)
    assert (offered["body"], offered["jsep"]) == (
        {"request": "configure", "muted": True}, {"type": "offer", "sdp": "offer"})
    hall.plugin("configure", {"audiobridge": "event", "result": "ok"}, jsep={"type": "answer", "sdp": "theirs"})
    assert hall.of(TakeAnswer) == [TakeAnswer(0, "theirs")]
    hall.run(hall.member.session(0, SessionUp({}), watching=False))
    assert hall.told(api.Connected)


def test_who_comes_changes_and_goes() -> None:
    hall = Hall()
    hall.in_room(guest(2))
    hall.says({"audiobridge": "joined", "room": 77, "participants": [guest(5, "Ada", setup=False)]})
    hall.tells(participants=[guest(5, "Ada")])
    hall.tells(participants=[guest(2, muted=True)])
    assert hall.members == [api.Member("2", "g2", "g2", muted=True), api.Member("5", "Ada", "Ada")]
    hall.tells(leaving=2)
    hall.tells(kicked=5)
    hall.tells(leaving=5)
    assert hall.members == []
    assert not hall.of(Finish)


def test_the_server_knows_our_mute_once_and_again_after_a_loss() -> None:
    hall = Hall()
    hall.in_room(guest(2))
    assert hall.mutes == []
    for muted in (True, True, False, True):
        hall.run(hall.member.mute(muted))
    assert hall.mutes == [True, False, True]
    hall.run(hall.member.link_down("gone"))
    hall.run(hall.member.mute(False))
    hall.run(hall.member.mute(True))
    assert hall.mutes == []
    hall.run(hall.member.link_up(same=False))
    hall.answer(lambda one: one["janus"] == "create", data={"id": 6})
    hall.answer(lambda one: one["janus"] == "attach", data={"id": 21})
    join = next(one["body"] for one in hall.asked if one.get("body", {}).get("request") == "join")
    assert join["muted"] is True
    hall.joined(guest(1, "Front door"), guest(2), own=9, handle=21)
    assert [one.id for one in hall.members] == ["2"]  # what is left of us is nobody
    hall.published(21)
    hall.run(hall.member.session(hall.member.generation, SessionUp({}), watching=False))
    assert hall.told(api.Recovered)
    assert hall.mutes == []


def test_what_a_moderator_mutes_is_told_and_what_is_let_go_stays_as_we_want_it() -> None:
    hall = Hall()
    hall.in_room(guest(2))
    us = guest(1, "Front door")
    hall.tells(participants=[{**us, "muted": True}])
    assert hall.told(api.Moderated) == [api.Moderated(audio=True)]
    hall.run(hall.member.mute(True))  # the device goes along
    hall.tells(participants=[us])
    assert hall.told(api.Moderated)[-1] == api.Moderated()
    assert hall.mutes == [True, True]  # the second one is news to the server, which had let us go
    hall.tells(participants=[{**us, "muted": True}])  # as we have asked for
    assert hall.told(api.Moderated)[-1] == api.Moderated()
    hall.run(hall.member.mute(False))
    assert hall.mutes == [False]

    hall.tells(muted=True)
    assert hall.told(api.Moderated)[-1] == api.Moderated(audio=True)
    hall.run(hall.member.mute(True))
    hall.tells(muted=False)
    assert hall.told(api.Moderated)[-1] == api.Moderated()
    assert hall.mutes == [True, True]
    hall.tells(participants=[{**us, "muted": True}])
    hall.run(hall.member.link_down("gone"))
    assert hall.told(api.Moderated)[-1] == api.Moderated()
    assert [one.id for one in hall.told(api.Members)[-2].members] == ["2"]  # we ourselves stand in no roster


def test_whom_a_moderator_suspends_does_not_miss_what_is_not_sent() -> None:
    hall = Hall()
    hall.in_room(guest(2))
    us = guest(1, "Front door")

    def joins_again() -> bool:
        blocked = hall.member.session(hall.member.generation, SessionBlocked(before=True), watching=False)
        return StartTimer(Timer.BLOCKED, 0.0) in hall.run(blocked)

    assert joins_again()
    hall.run(hall.member.mute(True))
    hall.tells(participants=[{**us, "suspended": True}])
    assert not joins_again()
    hall.tells(participants=[us])
    assert joins_again()


def test_who_talks_is_told_until_it_has_been_quiet() -> None:
    hall = Hall()
    hall.in_room(guest(2), guest(3))
    hall.run(hall.member.timeout(Timer.VOICES))
    assert not hall.told(api.Voices)
    hall.says({"audiobridge": "talking", "room": 77, "id": 2})
    assert hall.told(api.Voices)[-1].levels == {"2": -40.0, "3": -127.0}
    assert [one.id for one in hall.members if one.speaking] == ["2"]
    assert hall.of(StartTimer)[-1].timer is Timer.VOICES
    hall.tells(participants=[guest(2, muted=True)])  # of which the server tells no end of talking
    assert not any(one.speaking for one in hall.members)
    before = len(hall.told(api.Voices))
    for _ in range(QUIET + 3):
        hall.run(hall.member.timeout(Timer.VOICES))
    told = hall.told(api.Voices)[before:]
    assert len(told) == QUIET
    assert told[-1].levels == {"2": -127.0, "3": -127.0}
    hall.tells(participants=[guest(2)])
    assert [one.id for one in hall.members if one.speaking] == ["2"]
    assert hall.told(api.Voices)[-1].levels == {"2": -40.0, "3": -127.0}
    hall.says({"audiobridge": "stopped-talking", "room": 77, "id": 2})
    hall.says({"audiobridge": "talking", "room": 77, "id": 99})
    assert not any(one.speaking for one in hall.members)


def test_removed_and_destroyed() -> None:
    for data, key in (({"kicked": 1}, "0/removed"), ({"audiobridge": "destroyed"}, "0/endedForAll")):
        hall = Hall()
        hall.in_room(guest(2))
        hall.tells(**data)
        assert [one.reason.key for one in hall.of(Finish)] == [key]


def test_the_end_of_its_connection_is_a_loss_and_the_room_is_joined_again() -> None:
    hall = Hall()
    hall.in_room(guest(2))
    hall.run(hall.member.receive({"janus": "hangup", "sender": PUBLISHER + 5}))
    assert not hall.told(api.Lost)
    hall.says({"audiobridge": "talking", "room": 77, "id": 2})
    hall.run(hall.member.receive({"janus": "hangup", "sender": PUBLISHER, "reason": "ICE failed"}))
    assert hall.told(api.Lost) == [api.Lost("media")]
    assert hall.members == []
    assert CancelTimer(Timer.VOICES) in hall.done
    hall.run(hall.member.link_up())
    hall.answer(lambda one: one["janus"] == "claim")
    assert any(one["janus"] == "detach" and one["handle_id"] == PUBLISHER for one in hall.asked)


@pytest.mark.parametrize(("same", "key"), [(True, "0/endedForAll"), (False, "404/noSuchRoom")])
def test_a_room_that_is_gone_after_our_connection_was_ended_unless_the_server_began_anew(same: bool, key: str) -> None:
    hall = Hall()
    hall.in_room(guest(2))
    hall.run(hall.member.receive({"janus": "hangup", "sender": PUBLISHER, "reason": "Janus API"}))
    hall.run(hall.member.link_up(same=same))
    if same:
        hall.answer(lambda one: one["janus"] == "claim")
    else:
        hall.answer(lambda one: one["janus"] == "create", data={"id": 6})
    hall.answer(lambda one: one["janus"] == "attach", data={"id": 21})
    hall.plugin("join", {"audiobridge": "event", "error_code": 485, "error": "No such room (77)"}, handle=21)
    assert [one.reason.key for one in hall.of(Finish)] == [key]


def test_everybody_else_is_sent_away() -> None:
    hall = Hall()
    hall.in_room(guest(2), guest(3))
    assert hall.member.may_order
    hall.run(hall.member.expel())
    hall.plugin("listparticipants", {"audiobridge": "participants", "participants": [{"id": 1}, {"id": 2}, {"id": 3}]})
    assert [one["body"]["id"] for one in hall.asked if one.get("body", {}).get("request") == "kick"] == [2, 3]
    hall.plugin("kick", {"audiobridge": "success"})
    hall.plugin("kick", {"audiobridge": "event", "error_code": 492, "error": "No such user 3 in room 77"})
    assert hall.of(Ordered) == [Ordered()]


def test_others_are_muted() -> None:
    hall = Hall()
    hall.in_room(guest(2), guest(3))
    hall.run(hall.member.silence())
    hall.plugin("listparticipants", {"audiobridge": "participants", "participants": [{"id": 1}, {"id": 2}, {"id": 3}]})
    assert [one["body"]["id"] for one in hall.asked if one.get("body", {}).get("request") == "mute"] == [2, 3]
    hall.plugin("mute", {"audiobridge": "success"})
    hall.plugin("mute", {"audiobridge": "success"})
    assert hall.of(Ordered) == [Ordered()]


VALUES: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.text(max_size=8)


@given(st.dictionaries(
    st.sampled_from(["audiobridge", "participants", "id", "muted", "leaving", "kicked", "room"]),
    VALUES | st.lists(VALUES | st.dictionaries(st.sampled_from(["id", "display", "setup", "muted", "talking"]), VALUES),
                      max_size=4), max_size=5))
def test_anything_the_server_tells_is_taken_without_an_exception(data: Json) -> None:
    hall = Hall()
    hall.in_room(guest(2))
    hall.says(data)
    hall.says({"audiobridge": "talking", **data})
