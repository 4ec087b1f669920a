"""The TextRoom beside a room, against a server in the test's hand: how it is come into, and who says what to whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Refused
from appliance.media.api import SessionClosed, SessionUp
from appliance.media.messages import FRAME_LIMIT, Outbound
from appliance.providers import api
from appliance.providers.janus.effects import CancelTimer, CloseText, OpenText, StartTimer, Timer, WriteText
from appliance.providers.janus.stay import Room
from appliance.providers.janus.text_room import RUNS
from appliance.vocabulary import END_REASONS, Json
from tests.support.janus_hall import Hall, guest

HANDLE = 31


class Talk(Hall):
    """A room of sound alone with a TextRoom; of ours in the room the id is 1."""

    def __init__(self) -> None:
        super().__init__(Room(77, "hall", pin="4711", scheme="audio", text=7))
        self.text = self.member.text

    def tells_text(self, **said: Any) -> None:
        self.run(self.text.told(self.member.generation, json.dumps(said)))

    @property
    def written(self) -> list[Json]:
        return [json.loads(one.text) for one in self.of(WriteText)]

    def connected(self, handle: int = HANDLE) -> None:
        """Up to the request to join."""
        self.answer(lambda one: one["janus"] == "attach" and one["plugin"] == "janus.plugin.textroom",
                    data={"id": handle})
        self.plugin("setup", {"textroom": "event", "result": "ok"}, handle=handle,
                    jsep={"type": "offer", "sdp": "text offer"})
        self.run(self.text.answered(self.member.generation, "our answer"))
        self.run(self.text.session(self.member.generation, SessionUp({})))

    def let_in(self, *people: Json) -> None:
        self.tells_text(textroom="success", transaction=self.written[-1]["transaction"], participants=list(people))

    def talks(self, *guests: Json, people: Sequence[Json] = ()) -> None:
        self.in_room(*guests)
        self.connected()
        self.let_in(*people)

    def heard(self) -> list[api.DataReceived]:
        return self.told(api.DataReceived)


def says(name: str, text: str) -> Json:
    return {"textroom": "message", "room": 7, "from": name, "text": text}


def test_it_is_come_into_under_our_id_with_what_opens_the_room() -> None:
    talk = Talk()
    talk.in_room(guest(2, "Olga"))
    with pytest.raises(Refused):
        talk.text.require()
    talk.connected()
    assert talk.of(OpenText) == [OpenText(0, "text offer")]
    acked = next(one for one in talk.asked if one.get("body", {}).get("request") == "ack")
    assert (acked["handle_id"], acked["jsep"]) == (HANDLE, {"type": "answer", "sdp": "our answer"})
    joined = talk.written[-1]
    del joined["transaction"]
    assert joined == {"textroom": "join", "room": 7, "username": "1", "display": "Front door", "history": False,
                      "pin": "4711"}
    with pytest.raises(Refused):
        talk.text.require()
    talk.let_in()
    talk.text.require()
    assert talk.done[-1] == CancelTimer(Timer.TEXT)


def test_a_name_that_is_taken_is_ours_with_something_behind_it() -> None:
    talk = Talk()
    talk.in_room(guest(2))
    talk.connected()
    for _ in range(2):
        talk.tells_text(textroom="error", error_code=420, error="Username already taken",
                        transaction=talk.written[-1]["transaction"])
    names = [one["username"] for one in talk.written]
    assert names[0] == "1"
    assert len(set(names)) == 3
    assert all(name.startswith("1-") and name.count("-") == 1 for name in names[1:])


def test_what_some_are_meant_by_goes_to_them_alone_and_leaves_no_gap_for_others() -> None:
    talk = Talk()
    talk.talks(guest(2, "Olga"), guest(3, "Ada"), guest(4, "Ada"), people=[
        {"username": "2"}, {"username": "ada", "display": "Ada"}, {"username": "bot", "display": "Bot"}])

    def sent(to: Sequence[str]) -> list[tuple[Any, int]]:
        return [(body.get("tos"), json.loads(body["text"])["seq"]) for body in map(
            json.loads, talk.text.messages("chat", "hello", to, lossy=False))]

    assert [sent(()), sent(["2"]), sent(()), sent(["2"])] == [
        [(None, 1)], [(["2"], 1)], [(None, 2)], [(["2"], 2)]]
    for nobody in (["3"], ["4"], ["99"]):  # of two Adas one is in the TextRoom, and nobody knows which
        with pytest.raises(Refused, match="nobody of those who are meant"):
            sent(nobody)
    assert sent(["bot"]) == [(["bot"], 1)]  # a program in the TextRoom alone, which has written to us
    talk.tells(leaving=4)
    assert sent(["3", "2"]) == [(["2", "ada"], 1)]
    for number in range(RUNS):
        talk.tells_text(textroom="join", room=7, username=f"u{number}")
        sent([f"u{number}"])
    assert sent(["2"]) == [(["2"], 1)]  # with a run of its own again


def test_a_large_message_is_cut_so_that_each_part_fits() -> None:
    talk = Talk()
    talk.talks(guest(2), people=[{"username": "2"}])
    for payload in ("\\" * 60_000, "\x01" * 60_000, "ä" * 30_000, '"' * 60_000):
        texts = talk.text.messages("chat", payload, (), lossy=False)
        assert max(len(text.encode()) for text in texts) < FRAME_LIMIT
        assert "".join(json.loads(json.loads(text)["text"])["payload"] for text in texts) == payload
    with pytest.raises(Refused) as refused:
        talk.text.messages("chat", "x" * 70_000, (), lossy=False)
    assert refused.value.key == "413/tooLarge"


def test_who_says_something_is_found_in_the_roster_as_far_as_it_is_clear() -> None:
    talk = Talk()
    talk.talks(guest(2, "Olga"), guest(3, "Ada"), guest(4, "Ada"), people=[
        {"username": "2", "display": "Olga"}, {"username": "ada", "display": "Ada"}])
    theirs = Outbound()
    for name in ("2", "ada", "nobody", "1"):
        talk.tells_text(**says(name, theirs.frames("note", "hello")[0]))
    assert [(one.channel, one.sender) for one in talk.heard()] == [("note", "2"), ("note", "ada"), ("note", "nobody")]
    talk.tells(leaving=4)
    talk.tells_text(**says("ada", "Good evening"))
    talk.tells_text(**says("2", "Olga: {\"channel\": 5}"))
    talk.tells_text(textroom="announcement", room=7, text="The server is restarted")
    assert talk.heard()[3:] == [
        api.DataReceived("chat", "Good evening", "3"), api.DataReceived("chat", "Olga: {\"channel\": 5}", "2"),
        api.DataReceived("announcement", "The server is restarted")]


def test_a_recording_is_begun_only_where_it_can_be_told() -> None:
    for text, able in ((None, False), (7, True)):
        hall = Hall(Room(77, "hall", secret="s3cret", text=text))
        hall.in_room(guest(2))
        assert hall.member.may_record is able
    talk = Talk()
    talk.in_room(guest(2))
    assert not talk.text.takes
    talk.connected()
    talk.let_in()
    assert talk.text.takes
    talk.tells_text(textroom="destroyed", room=7)
    assert not talk.text.takes


def test_a_gap_is_seen() -> None:
    talk = Talk()
    talk.talks(guest(2), people=[{"username": "2"}])
    theirs = Outbound()
    frames = [theirs.frames("note", str(number))[0] for number in range(4)]
    for number in (0, 3):
        talk.tells_text(**says("2", frames[number]))
    assert [one.lost for one in talk.heard()] == [0, 2]


@pytest.mark.parametrize(("said", "words"), [
    ({"textroom": "kicked", "room": 7, "username": "1"}, "removed"),
    ({"textroom": "destroyed", "room": 7}, "destroyed")])
def test_it_is_let_be_once_we_are_sent_out(said: Json, words: str) -> None:
    talk = Talk()
    talk.talks(guest(2))
    talk.tells_text(textroom="kicked", room=7, username="2")
    talk.text.require()
    talk.tells_text(**said)
    assert talk.of(CloseText) == [CloseText(0)]
    with pytest.raises(Refused, match=words):
        talk.text.require()
    assert talk.run(talk.member.timeout(Timer.TEXT)) == []
    assert not talk.told(api.Lost)


def test_what_it_refuses_for_good_is_told_and_not_tried_again() -> None:
    talk = Talk()
    talk.in_room(guest(2))
    talk.connected()
    talk.tells_text(textroom="error", error_code=417, error="No such room (7)",
                    transaction=talk.written[-1]["transaction"])
    with pytest.raises(Refused, match="No such room"):
        talk.text.require()
    assert talk.run(talk.member.timeout(Timer.TEXT)) == []
    assert any(one["janus"] == "detach" and one["handle_id"] == HANDLE for one in talk.asked)


def test_an_id_that_its_server_takes_in_no_form_is_not_tried_again() -> None:
    talk = Talk()
    talk.in_room(guest(2))
    talk.connected()
    for form in (7, "7"):
        assert talk.written[-1]["room"] == form
        talk.tells_text(textroom="error", error_code=414, error="Invalid element type (room should be a string)",
                        transaction=talk.written[-1]["transaction"])
    with pytest.raises(Refused, match="Invalid element type"):
        talk.text.require()
    assert talk.run(talk.member.timeout(Timer.TEXT)) == []


def test_what_fails_is_tried_again_ever_more_seldom_and_the_call_goes_on() -> None:
    talk = Talk()
    talk.talks(guest(2))
    pauses = []
    for _ in range(3):
        talk.run(talk.text.session(0, SessionClosed("lost")))
        pauses.append(talk.of(StartTimer)[-1].seconds)
        with pytest.raises(Refused):
            talk.text.require()
        talk.run(talk.member.timeout(Timer.TEXT))
        talk.answer(lambda one: one["janus"] == "attach" and one["plugin"] == "janus.plugin.textroom",
                    janus="error", error={"code": 490, "reason": "no memory left"})
        pauses.append(talk.of(StartTimer)[-1].seconds)
        talk.run(talk.member.timeout(Timer.TEXT))
        talk.connected()
    assert pauses == sorted(pauses)
    assert len(set(pauses)) > 3
    talk.let_in()
    talk.text.require()
    assert not talk.told(api.Lost)
    talk.tells_text(textroom="error", error_code=422, error="Not in room 7", transaction="of some message")
    with pytest.raises(Refused):
        talk.text.require()


def test_a_handle_that_comes_too_late_is_given_back() -> None:
    talk = Talk()
    talk.in_room(guest(2))
    talk.run(talk.member.timeout(Timer.TEXT))
    assert talk.of(StartTimer)[-1].timer is Timer.TEXT
    talk.answer(lambda one: one["janus"] == "attach" and one["plugin"] == "janus.plugin.textroom", data={"id": 30})
    assert [one["handle_id"] for one in talk.asked if one["janus"] == "detach"] == [30]
    talk.run(talk.member.timeout(Timer.TEXT))
    talk.connected()
    talk.let_in()
    talk.text.require()


def test_a_server_that_does_not_let_us_in_in_time_is_asked_anew() -> None:
    talk = Talk()
    talk.in_room(guest(2))
    talk.connected()
    talk.run(talk.member.timeout(Timer.TEXT))
    assert talk.of(CloseText) == [CloseText(0)]
    talk.let_in()  # late, and of the connection that is given up
    with pytest.raises(Refused):
        talk.text.require()


def test_after_a_loss_it_is_come_into_anew_and_old_handles_are_let_go() -> None:
    talk = Talk()
    talk.talks(guest(2))
    talk.run(talk.member.link_down("gone"))
    talk.tells_text(**says("2", "too late"))
    assert not talk.heard()
    talk.run(talk.member.link_up())
    talk.answer(lambda one: one["janus"] == "claim")
    assert any(one["janus"] == "detach" and one["handle_id"] == HANDLE for one in talk.asked)
    talk.answer(lambda one: one["janus"] == "attach" and one["plugin"] == "janus.plugin.audiobridge", data={"id": 41})
    talk.joined(guest(2), own=9, handle=41)
    talk.connected(42)
    assert talk.written[-1]["username"] == "9"
    talk.run(talk.member.end(END_REASONS["0/local"]))
    assert talk.run(talk.text.session(talk.member.generation, SessionClosed("closed"))) == []


VALUES: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.text(max_size=8)


@given(st.dictionaries(
    st.sampled_from(["textroom", "from", "text", "username", "display", "participants", "transaction", "error_code"]),
    VALUES | st.sampled_from(["message", "join", "leave", "kicked", "success", "error", "destroyed"])
    | st.lists(VALUES | st.dictionaries(st.sampled_from(["username", "display"]), VALUES), max_size=3), max_size=6))
def test_anything_it_says_is_taken_without_an_exception(said: Json) -> None:
    talk = Talk()
    talk.talks(guest(2), people=[{"username": "2"}])
    talk.tells_text(**said)
    talk.run(talk.text.told(0, "no JSON"))
