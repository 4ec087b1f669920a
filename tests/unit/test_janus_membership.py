"""Being in a room, against a server in the test's hand: what is asked in which order, and what each turn ends in."""

from __future__ import annotations

import json
import time

import pytest

from appliance.media.api import OnLine, SessionClosed, SessionUp
from appliance.providers import api
from appliance.providers.janus.effects import (
    CancelTimer,
    Finish,
    GiveUp,
    Open,
    Ordered,
    Publish,
    StartTimer,
    TakeAnswer,
    Timer,
    Trickle,
    Unwatch,
    Watch,
)
from appliance.providers.janus.membership import PICTURES
from appliance.providers.janus.moderation import AT_ONCE
from appliance.providers.janus.protocol import PERSONS
from appliance.providers.janus.stay import Room
from appliance.vocabulary import END_REASONS, Json
from tests.support.janus_desk import OFFER, PUBLISHER, WATCHER, Desk, person


def test_what_a_moderator_mutes_of_ours_is_told_and_gone_with_the_publication() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.run(desk.member.offered(desk.member.generation, OFFER))

    def moderate(who: int, mid: object, muted: bool) -> None:
        desk.says({"videoroom": "event", "id": who, "mid": mid, "moderation": "muted" if muted else "unmuted"})

    moderate(1, "1", True)
    moderate(1, "1", True)
    moderate(1, "0", True)
    moderate(2, "0", True)  # another person
    moderate(1, "7", True)  # no line of ours
    moderate(1, None, True)
    moderate(1, "1", False)
    assert desk.told(api.Moderated) == [
        api.Moderated(video=True), api.Moderated(audio=True, video=True), api.Moderated(audio=True)]
    assert desk.told(api.Members)[-1].members[0].muted
    desk.run(desk.member.link_down("gone"))
    assert desk.told(api.Moderated)[-1] == api.Moderated()


def test_everybody_else_is_sent_away() -> None:
    desk = Desk(room=Room(1234, "lobby", secret="s3cret"))
    assert not desk.member.may_order
    assert [type(one) for one in desk.member.expel()] == [Ordered]
    desk.in_room(person(2))
    assert desk.member.may_order
    desk.run(desk.member.expel())
    assert desk.run(desk.member.expel()) == []  # once is enough
    desk.plugin("listparticipants", {"participants": [{"id": 1}, {"id": 2}, {"id": "x"}, {}, 7]})
    kicks = [one["body"] for one in desk.asked if one.get("body", {}).get("request") == "kick"]
    assert kicks == [{"request": "kick", "room": 1234, "secret": "s3cret", "id": who} for who in (2, "x")]
    desk.plugin("kick", {"videoroom": "success"})
    assert not desk.of(Ordered)
    desk.plugin("kick", {"videoroom": "event", "error_code": 428, "error": "No such user x"})  # left by itself
    assert desk.of(Ordered) == [Ordered()]


def test_a_secret_that_the_server_does_not_take_is_told() -> None:
    desk = Desk(room=Room(1234, "lobby", secret="wrong"))
    desk.in_room(person(2))
    desk.run(desk.member.expel())
    desk.plugin("listparticipants", {"participants": [{"id": 1}, {"id": 2}]})
    desk.plugin("kick", {"videoroom": "event", "error_code": 433, "error": "Unauthorized (wrong secret)"})
    refusal = desk.of(Ordered)[-1].refusal
    assert refusal.key == "403/roomSecret"
    assert "wrong secret" in refusal.message
    assert not desk.of(Finish)
    desk.run(desk.member.expel())
    desk.run(desk.member.link_down("gone"))
    assert desk.of(Ordered)[-1].refusal.key == "503/provider"


def ordered(desk: Desk, request: str) -> list[Json]:
    return [one["body"] for one in desk.asked if one.get("body", {}).get("request") == request]


def test_others_are_muted_by_their_voices() -> None:
    desk = Desk(room=Room(1234, "lobby", secret="s3cret"))
    silent = person(4)
    silent["streams"][0]["moderated"] = True
    desk.in_room(person(2), person(3), silent)
    desk.run(desk.member.silence())
    desk.plugin("listparticipants", {"participants": [{"id": one} for one in (1, 2, 3, 4, 5)]})
    guarded = {"request": "moderate", "room": 1234, "secret": "s3cret", "mid": "0", "mute": True}
    assert ordered(desk, "moderate") == [{**guarded, "id": 2}, {**guarded, "id": 3}]
    desk.plugin("moderate", {"videoroom": "success"})
    desk.plugin("moderate", {"videoroom": "success"})
    assert desk.of(Ordered) == [Ordered()]
    desk.asked.clear()
    desk.run(desk.member.silence("3"))
    desk.plugin("listparticipants", {"participants": [{"id": one} for one in (1, 2, 3, 4)]})
    assert [one["id"] for one in ordered(desk, "moderate")] == [3]


def test_one_is_sent_away_with_what_that_one_shares() -> None:
    desk = Desk(room=Room(1234, "lobby", secret="s3cret"))
    screen = {"id": 9, "display": "Olga (screen)", "streams": [
        {"type": "video", "mid": "0", "codec": "h264", "description": "screen"}]}
    desk.in_room(person(2, "Olga"), person(3, "Otto"), screen)
    desk.run(desk.member.expel("2"))
    desk.plugin("listparticipants", {"participants": [{"id": one} for one in (1, 2, 3, 9)]})
    assert [one["id"] for one in ordered(desk, "kick")] == [2, 9]
    desk.plugin("kick", {"videoroom": "success"})
    desk.plugin("kick", {"videoroom": "success"})
    assert desk.of(Ordered) == [Ordered()]


def test_the_way_in() -> None:
    desk = Desk(room=Room(1234, "lobby", pin="4711", token=lambda: "t0ken", api_secret="s3cret"))
    assert desk.member.start() == [Open()]
    desk.run(desk.member.link_up())
    assert desk.asked[0] == {"janus": "create", "transaction": "t1", "token": "t0ken", "apisecret": "s3cret"}
    desk.answer(lambda one: one["janus"] == "create", data={"id": 5})
    desk.answer(lambda one: one["janus"] == "attach", data={"id": PUBLISHER})
    join = desk.asked[0]
    assert (join["session_id"], join["handle_id"]) == (5, PUBLISHER)
    assert join["body"] == {"request": "join", "ptype": "publisher", "room": 1234, "pin": "4711", "token": "t0ken",
                            "display": "Front door", "metadata": {"identity": "door-1"}}
    desk.joined()
    accepted = desk.told(api.Accepted)[0]
    assert (accepted.peer.uri, accepted.peer.display_name) == ("room:lobby", "The lobby")
    assert desk.of(Publish) == [Publish(0)]
    desk.published()
    assert desk.of(TakeAnswer) == [TakeAnswer(0, "answer")]
    assert not desk.told(api.Connected)
    desk.run(desk.member.session(0, SessionUp({"srtpCipher": "x"}), watching=False))
    assert desk.told(api.Connected) == [api.Connected({"srtpCipher": "x"})]


def test_with_nothing_to_send_being_there_is_all() -> None:
    desk = Desk()
    desk.opened()
    desk.joined()
    desk.run(desk.member.nothing_to_send(0))
    assert desk.told(api.Connected) == [api.Connected({})]


@pytest.mark.parametrize(("error", "key"), [
    ({"error_code": 426, "error": "No such room"}, "404/noSuchRoom"),
    ({"error_code": 433, "error": "Unauthorized (wrong pin)"}, "403/wrongPin"),
    ({"error_code": 499, "error": "?"}, "503/provider"),
])
def test_a_room_that_refuses_is_given_up(error: Json, key: str) -> None:
    desk = Desk()
    desk.opened()
    desk.plugin("join", {"videoroom": "event", **error})
    assert [one.reason.key for one in desk.of(Finish)] == [key]
    assert desk.asked[-1]["janus"] == "destroy"


def test_a_room_whose_number_is_refused_for_being_one_is_named_in_text_once() -> None:
    desk = Desk()
    desk.opened()
    malformed = {"videoroom": "event", "error_code": 430, "error": "Invalid element type (room should be a string)"}
    number = next(one["body"]["room"] for one in desk.asked if one.get("body", {}).get("request") == "join")
    assert isinstance(number, int)
    desk.plugin("join", malformed)
    assert desk.asked[-1]["body"]["room"] == str(number)
    assert not desk.of(Finish)
    desk.plugin("join", malformed)
    assert [one.reason.key for one in desk.of(Finish)] == ["404/noSuchRoom"]


def test_a_full_room_says_so_when_we_publish() -> None:
    desk = Desk()
    desk.opened()
    desk.joined()
    desk.run(desk.member.offered(0, "offer"))
    desk.plugin("publish", {"videoroom": "event", "error_code": 432, "error": "Maximum number of publishers"})
    assert desk.of(Finish)[0].reason.key == "403/roomFull"


def test_a_server_that_is_not_there_or_says_nothing() -> None:
    desk = Desk()
    desk.run(desk.member.link_down("connection refused"))
    assert desk.of(Finish)[0].reason.key == "503/provider"
    assert "connection refused" in desk.of(Finish)[0].reason.message
    mute = Desk()
    mute.run(mute.member.link_up())
    assert StartTimer(Timer.ANSWER, 5.0) in mute.done
    assert mute.run(mute.member.timeout(Timer.ANSWER)) == [GiveUp("it does not answer")]
    mute.run(mute.member.link_down("it does not answer"))
    assert mute.of(Finish)[0].reason.key == "503/provider"


def test_only_what_can_be_used_is_subscribed() -> None:
    desk = Desk()
    desk.in_room(person(2, "Olga"), person(3, "Otto", codec="vp8"))
    assert sorted(one.feed for one in desk.carried()) == ["2", "2", "3"]
    olga, otto = desk.told(api.Members)[-1].members
    assert (olga.video, olga.receiving) == (True, True)
    assert (otto.video, otto.receiving) == (True, False)


def test_without_a_screen_no_picture_is_subscribed() -> None:
    desk = Desk(shows=False)
    desk.in_room(person(2))
    assert len(desk.carried()) == 1


def talker(number: int) -> Json:
    """Somebody with sound and data messages."""
    return {"id": number, "display": f"p{number}", "streams": [
        {"type": "audio", "mid": "0", "codec": "opus"}, {"type": "data", "mid": "1"}]}


def test_data_messages_of_all_come_on_one_line_that_nobody_who_leaves_takes_away() -> None:
    desk = Desk()
    desk.in_room()
    desk.says({"videoroom": "event", "publishers": [talker(2)]})
    desk.answer(lambda one: one["janus"] == "attach", data={"id": WATCHER})
    lines: list[Json] = [{"type": "audio", "active": True, "mid": "0", "feed_id": 2, "feed_mid": "0"},
                         {"type": "data", "active": True, "mid": "1", "sources": 1, "source_ids": [2]}]
    assert desk.asked[-1]["body"]["streams"] == [{"feed": 2, "mid": "0"}, {"feed": 2, "mid": "1"}]
    desk.plugin("join", {"videoroom": "attached", "streams": lines}, handle=WATCHER, jsep={"type": "offer", "sdp": "x"})
    assert desk.of(Watch)[-1].lines == {"0": OnLine("2")}
    desk.start()
    desk.says({"videoroom": "event", "publishers": [{**talker(3), "streams": talker(3)["streams"][1:]}]})
    assert desk.asked[-1]["body"] == {"request": "subscribe", "streams": [{"feed": 3, "mid": "1"}]}
    desk.plugin("subscribe", {"videoroom": "updated"}, handle=WATCHER)  # the line is there
    asked = len(desk.asked)
    desk.says({"videoroom": "event", "leaving": 3})
    assert len(desk.asked) == asked
    desk.says({"videoroom": "event", "publishers": [talker(4)]})
    assert desk.asked[-1]["body"]["streams"] == [{"feed": 4, "mid": "0"}, {"feed": 4, "mid": "1"}]
    desk.plugin("subscribe", {"videoroom": "updated", "streams": [
        *lines, {"type": "audio", "active": True, "mid": "2", "feed_id": 4, "feed_mid": "0"}]}, handle=WATCHER,
        jsep={"type": "offer", "sdp": "y"})
    desk.start()
    desk.run(desk.member.want(hears=False, sees=False))  # on hold the sound stops, and data messages do not
    assert desk.asked[-1]["body"] == {"request": "unsubscribe", "streams": [{"sub_mid": "0"}, {"sub_mid": "2"}]}


def test_no_more_pictures_than_are_shown() -> None:
    desk = Desk()
    desk.in_room(*(person(number) for number in range(2, 16)))
    feeds = [one.feed for one in desk.carried()]
    assert len(feeds) == 14 + PICTURES
    desk.says({"videoroom": "event", "leaving": 2})
    desk.subscribed()
    feeds = [one.feed for one in desk.carried()]
    assert "2" not in feeds
    assert len(feeds) == 13 + PICTURES


def test_nothing_is_received_on_hold_and_all_of_it_after() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.run(desk.member.want(hears=False, sees=False))
    desk.subscribed()
    assert desk.carried() == []
    desk.run(desk.member.want(hears=True, sees=True))
    desk.subscribed()
    assert [one.feed for one in desk.carried()] == ["2", "2"]


def test_one_negotiation_at_a_time() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.says({"videoroom": "event", "publishers": [person(3)]})
    desk.says({"videoroom": "event", "publishers": [person(4)]})
    waiting = [one for one in desk.asked if one.get("handle_id") == WATCHER]
    assert [one["body"]["request"] for one in waiting] == ["subscribe"]
    desk.subscribed()
    assert {one.feed for one in desk.carried()} == {"2", "3", "4"}


def test_who_leaves_is_taken_off_by_the_servers_own_offer() -> None:
    desk = Desk()
    desk.in_room(person(2), person(3))
    rest = [one for one in desk.lines if one["feed_id"] == 3]
    desk.says({"videoroom": "updated", "streams": rest}, handle=WATCHER, jsep={"type": "offer", "sdp": "x"})
    assert {one.feed for one in desk.carried()} == {"3"}
    desk.start()
    desk.says({"videoroom": "event", "leaving": 2})
    assert desk.names == ["p3"]
    assert not [one for one in desk.asked if one.get("handle_id") == WATCHER]


def test_of_several_the_one_who_has_just_left_is_found_out() -> None:
    desk = Desk()
    desk.run(desk.member.start())
    desk.opened()
    desk.joined(person(2), person(3))
    desk.answer(lambda one: one["janus"] == "attach", data={"id": WATCHER})
    gone = {"videoroom": "event", "error_code": 428, "error": "No such feed (2)"}
    desk.plugin("join", gone, handle=WATCHER)
    assert {one["feed"] for one in desk.asked[-1]["body"]["streams"]} == {2}
    desk.plugin("join", gone, handle=WATCHER)
    desk.subscribed()
    assert {one.feed for one in desk.carried()} == {"3"}
    desk.says({"videoroom": "event", "publishers": [person(2)]})  # back again, it is worth a try
    desk.subscribed()
    assert {one.feed for one in desk.carried()} == {"2", "3"}


def test_who_is_in_the_room() -> None:
    desk = Desk()
    desk.in_room(person(2, "Olga"))
    desk.says({"videoroom": "event", "joining": {"id": 3, "display": "Ada"}})
    assert desk.names == ["Olga", "Ada"]
    desk.says({"videoroom": "talking", "id": 2})
    assert desk.told(api.Members)[-1].members[0].speaking
    desk.says({"videoroom": "stopped-talking", "id": 2})
    for new, shown in (("Olga P.\n", "Olga P."), (7, ""), ("Olga", "Olga")):
        desk.says({"videoroom": "event", "id": 2, "display": new})
        assert desk.names == [shown, "Ada"]
    desk.says({"videoroom": "event", "id": 9, "display": "nobody here"})
    assert desk.names == ["Olga", "Ada"]
    desk.says({"videoroom": "event", "id": 2, "mid": "0", "moderation": "muted"})
    olga = desk.told(api.Members)[-1].members[0]
    assert (olga.speaking, olga.muted) == (False, True)
    desk.run(desk.member.absent(0, {"2"}))
    assert desk.told(api.Members)[-1].members[0].away
    desk.says({"videoroom": "event", "unpublished": 2, "display": "Olga"})
    assert not desk.told(api.Members)[-1].members[0].video
    desk.says({"videoroom": "event", "kicked": 3})
    desk.says({"videoroom": "event", "leaving": 2, "display": "Olga"})
    assert desk.names == []
    before = len(desk.told(api.Members))
    desk.says({"videoroom": "event", "leaving": 2})
    assert len(desk.told(api.Members)) == before  # the same list is not told again


@pytest.mark.parametrize(("data", "key"), [
    ({"videoroom": "event", "leaving": "ok", "reason": "kicked"}, "0/removed"),
    ({"videoroom": "destroyed", "room": 1234}, "0/endedForAll"),
])
def test_ends_of_the_rooms_making(data: Json, key: str) -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.says(data)
    assert desk.of(Finish)[0].reason.key == key
    assert desk.run(desk.member.end(END_REASONS["0/local"])) == []
    assert desk.run(desk.member.link_down("gone")) == []


def test_leaving_tells_the_server() -> None:
    desk = Desk()
    desk.in_room()
    desk.run(desk.member.end(END_REASONS["0/local"]))
    assert desk.asked[-1]["janus"] == "destroy"
    assert desk.done[-1] == Finish(END_REASONS["0/local"])
    assert {one.timer for one in desk.of(CancelTimer)} == set(Timer)


def test_keep_alive_is_acknowledged_or_the_server_is_lost() -> None:
    desk = Desk()
    desk.in_room()
    sent = desk.run(desk.member.timeout(Timer.KEEPALIVE))
    beat = desk.asked[-1]
    assert (beat["janus"], beat["session_id"]) == ("keepalive", 5)
    assert [one.timer for one in sent if isinstance(one, StartTimer)] == [Timer.ANSWER, Timer.KEEPALIVE]
    acknowledged = desk.run(desk.member.receive({"janus": "ack", "transaction": beat["transaction"]}))
    assert acknowledged == [CancelTimer(Timer.ANSWER)]


def test_an_acknowledgement_is_not_yet_the_answer() -> None:
    desk = Desk()
    desk.opened()
    assert desk.run(desk.member.receive({"janus": "ack", "transaction": desk.asked[0]["transaction"]})) == []
    desk.joined()
    assert desk.of(Publish)


def test_a_subscription_that_nobody_is_on_may_be_closed_by_the_server() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.says({"videoroom": "updated", "streams": []}, handle=WATCHER, jsep={"type": "offer", "sdp": "x"})
    desk.start()
    desk.says({"videoroom": "event", "leaving": 2})
    desk.run(desk.member.receive({"janus": "hangup", "sender": WATCHER}))
    assert desk.of(Unwatch) == [Unwatch(0)]
    assert not desk.told(api.Lost)
    desk.says({"videoroom": "event", "publishers": [person(3)]})
    desk.answer(lambda one: one["janus"] == "attach", data={"id": 13})
    desk.subscribed(13)
    assert {one.feed for one in desk.carried()} == {"3"}


def test_candidates_that_come_later_go_to_their_connection() -> None:
    desk = Desk()
    desk.in_room(person(2))
    candidate = {"candidate": "candidate:1 1 udp 1 10.0.0.1 5 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
    for handle, given, expected in (
        (PUBLISHER, candidate, Trickle(0, False, str(candidate["candidate"]), "0", 0)),
        (WATCHER, {"completed": True}, Trickle(0, True, "", None, 0)),
    ):
        message = {"janus": "trickle", "sender": handle, "candidate": given}
        assert desk.run(desk.member.receive(message)) == [expected]


def test_strangers_and_the_past_are_not_listened_to() -> None:
    desk = Desk()
    desk.in_room(person(2))
    for message in (
        {}, {"janus": "event"}, {"janus": "event", "sender": 99, "plugindata": {"data": {"videoroom": "destroyed"}}},
        {"janus": "hangup", "sender": 99}, {"janus": "timeout", "session_id": 99}, {"janus": "trickle", "sender": 11},
        {"janus": "event", "sender": PUBLISHER, "plugindata": []}, {"janus": "success", "transaction": ["x"]},
        {"janus": "error", "error": "x", "transaction": 7},
    ):
        assert desk.run(desk.member.receive(message)) == []
    desk.run(desk.member.link_down("closed"))
    assert desk.run(desk.member.session(0, SessionClosed("lost"), watching=False)) == []
    assert desk.run(desk.member.offered(0, "late")) == []
    assert desk.run(desk.member.watched(0, "late")) == []
    assert desk.run(desk.member.absent(0, {"2"})) == []


def test_a_room_of_hundreds_holds_up_nothing() -> None:
    """Sound and pictures are sent by the same loop. With a look at everybody for each one it took seconds."""
    desk = Desk()
    crowd = [person(number, metadata={"identity": f"one-{number}"}) for number in range(2, 302)]
    crowd += [{"id": 1000 + number, "display": f"p{number} (screen)", "streams": [
        {"type": "video", "mid": "0", "codec": "h264"}]} for number in range(2, 302)]
    began = time.process_time()
    desk.in_room(*crowd)
    for _ in range(5):
        desk.run(desk.member.absent(desk.member.generation, set()))
        desk.run(desk.member.voices(desk.member.generation, {}))
    assert time.process_time() - began < 1.5
    assert len(desk.told(api.Members)[-1].members) == 300
    assert all(one.content for one in desk.told(api.Members)[-1].members)


def test_a_server_that_tells_of_ever_more_people_fills_no_memory() -> None:
    desk = Desk()
    desk.in_room(person(2))
    for first in range(10, 3000, 500):
        desk.says({"videoroom": "event", "publishers": [
            {"id": number, "display": "x", "streams": []} for number in range(first, first + 500)]})
    assert len(desk.told(api.Members)[-1].members) == PERSONS - 1  # we are one of them
    desk.says({"videoroom": "event", "leaving": 10})
    desk.says({"videoroom": "event", "publishers": [{"id": 9999, "display": "late", "streams": []}]})
    assert desk.names[-1] == "late"


@pytest.mark.parametrize("own", [None, True, 1.5, [], {}, "", "\ud800"])
def test_who_is_told_no_id_has_not_joined(own: object) -> None:
    desk = Desk()
    desk.run(desk.member.start())
    desk.opened()
    desk.plugin("join", {"videoroom": "joined", "id": own})
    assert desk.of(Finish)[-1].reason.key == "503/provider"


def test_half_of_a_character_reaches_neither_the_doors_nor_the_server() -> None:
    """No JSON text with one can be sent: it would stop the link to the broker, and that to the room."""
    desk = Desk()
    desk.run(desk.member.start())
    desk.opened()
    desk.plugin("join", {"videoroom": "joined", "id": 1, "private_id": "\ud800", "description": "Lob\ud800by",
                         "publishers": [person(2, "O\ud800lga"), {**person(3), "id": "a\ud800b"}]})
    assert desk.told(api.Accepted)[0].peer.display_name == "Lobby"
    assert [(one.id, one.display_name) for one in desk.told(api.Members)[-1].members] == [("2", "Olga"), ("ab", "p3")]
    desk.attached()
    json.dumps(desk.done, default=repr, ensure_ascii=False).encode()


def test_an_error_in_no_form_is_an_error_all_the_same() -> None:
    desk = Desk()
    desk.run(desk.member.start())
    desk.run(desk.member.link_up())
    desk.answer(lambda one: one["janus"] == "create", janus="error", error="full", data={"id": 5})
    assert desk.of(Finish)[-1].reason.key == "503/provider"


def test_hundreds_are_sent_away_a_few_at_a_time() -> None:
    """The connection takes so many messages at once and no more: beyond, it was lost in the middle."""
    desk = Desk(room=Room(1234, "lobby", secret="s3cret"))
    desk.in_room(person(2))
    desk.run(desk.member.expel())
    desk.plugin("listparticipants", {"participants": [{"id": number} for number in range(1, 402)]})
    waiting = [one for one in desk.asked if one.get("body", {}).get("request") == "kick"]
    assert len(waiting) == AT_ONCE
    for _ in range(400):
        assert not desk.of(Ordered)
        desk.plugin("kick", {"videoroom": "success"})
    assert desk.of(Ordered) == [Ordered()]


def test_a_server_that_answers_nothing_is_given_up_however_much_is_asked() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.asked.clear()
    first = desk.run(desk.member.timeout(Timer.KEEPALIVE))
    second = desk.run(desk.member.timeout(Timer.KEEPALIVE))
    assert [one.timer for one in first if isinstance(one, StartTimer)] == [Timer.ANSWER, Timer.KEEPALIVE]
    assert [one.timer for one in second if isinstance(one, StartTimer)] == [Timer.KEEPALIVE]
    assert StartTimer(Timer.ANSWER, 5.0) in desk.answer(lambda one: one["janus"] == "keepalive", janus="ack")
    assert CancelTimer(Timer.ANSWER) in desk.answer(lambda one: one["janus"] == "keepalive", janus="ack")


def test_who_loses_the_room_for_weeks_remembers_its_latest_ghosts_alone() -> None:
    desk = Desk()
    desk.in_room()
    for own in range(1001, 1200):
        desk.run(desk.member.link_down("gone"))
        desk.asked.clear()
        desk.run(desk.member.link_up(same=False))
        desk.answer(lambda one: one["janus"] == "create", data={"id": 5})
        desk.answer(lambda one: one["janus"] == "attach", data={"id": PUBLISHER})
        desk.joined(*(person(ghost) for ghost in range(max(1001, own - 30), own)), person(2, "Olga"), own=own)
        assert desk.names == ["Olga"]
    assert len(desk.member._ours) == 64


def test_nothing_that_opens_a_room_stands_in_what_is_printed_of_a_request() -> None:
    desk = Desk(room=Room(1234, "lobby", pin="p1n-x", secret="s3cret-x", api_secret="4pi-x", token=lambda: "t0ken-x"))
    desk.in_room(person(2))
    desk.run(desk.member.expel())
    assert not any(word in repr(desk.done) for word in ("p1n-x", "s3cret-x", "4pi-x", "t0ken-x"))
