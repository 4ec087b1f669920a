"""Being in a room, against a server in the test's hand: what is asked in which order, and what each turn ends in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from appliance.media.api import OnLine, SessionClosed, SessionSilent, SessionStranded, SessionUp
from appliance.providers import api
from appliance.providers.janus.effects import (
    CancelTimer,
    Drop,
    Effect,
    Expelled,
    Finish,
    GiveUp,
    Open,
    Publish,
    Send,
    Shut,
    StartTimer,
    TakeAnswer,
    TakenOver,
    Tell,
    Timer,
    TokenJudged,
    Trickle,
    Unwatch,
    Watch,
)
from appliance.providers.janus.membership import PICTURES, Membership, Room
from appliance.vocabulary import END_REASONS, Json

ME = api.Peer("door-1", "device:door-1", "Front door", "device", verified=True)
PUBLISHER, WATCHER = 11, 12


def person(number: int, name: str = "", *, codec: str = "h264", **more: Any) -> Json:
    return {"id": number, "display": name or f"p{number}", "streams": [
        {"type": "audio", "mid": "0", "codec": "opus"}, {"type": "video", "mid": "1", "codec": codec}], **more}


class Desk:
    """A membership, what it did, and answers to what it asked last."""

    def __init__(self, *, shows: bool = True, room: Room | None = None) -> None:
        numbers = itertools.count(1)
        self.now = 1000.0
        self.member = Membership(room or Room(1234, "lobby"), me=ME, shows=shows,
                                 new_transaction=lambda: f"t{next(numbers)}", monotonic=lambda: self.now)
        self.done: list[Effect] = []
        self.asked: list[Json] = []
        self._lines = itertools.count()

    def run(self, effects: Sequence[Effect]) -> Sequence[Effect]:
        self.done += effects
        self.asked += [effect.message for effect in effects if isinstance(effect, Send)]
        return effects

    def of(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.done if isinstance(effect, kind)]

    def told(self, kind: type[Any]) -> list[Any]:
        return [effect.event for effect in self.of(Tell) if isinstance(effect.event, kind)]

    @property
    def names(self) -> list[str]:
        return [one.display_name for one in self.told(api.Members)[-1].members]

    def answer(self, which: Callable[[Json], bool], **message: Any) -> Sequence[Effect]:
        """Answer the first waiting request of this kind."""
        asked = next(one for one in self.asked if which(one))
        self.asked.remove(asked)
        return self.run(self.member.receive({"janus": "success", "transaction": asked["transaction"], **message}))

    def plugin(
        self, request: str, data: Json, *, handle: int = PUBLISHER, jsep: Json | None = None,
    ) -> Sequence[Effect]:
        return self.answer(
            lambda one: one.get("body", {}).get("request") == request and one["handle_id"] == handle,
            janus="event", sender=handle, plugindata={"data": data}, **({"jsep": jsep} if jsep else {}))

    def says(self, data: Json, *, handle: int = PUBLISHER, jsep: Json | None = None) -> Sequence[Effect]:
        """Of its own accord."""
        return self.run(self.member.receive({"janus": "event", "sender": handle, "plugindata": {"data": data},
                                             **({"jsep": jsep} if jsep else {})}))

    def opened(self, session: int = 5, handle: int = PUBLISHER) -> None:
        """Up to the request to join."""
        self.run(self.member.link_up())
        self.answer(lambda one: one["janus"] == "create", data={"id": session})
        self.answer(lambda one: one["janus"] == "attach", data={"id": handle})

    def joined(self, *persons: Json, attendees: Sequence[Json] = (), handle: int = PUBLISHER, own: int = 1) -> None:
        self.plugin("join", {"videoroom": "joined", "id": own, "private_id": 77, "description": "The lobby",
                             "publishers": list(persons), "attendees": list(attendees)}, handle=handle)

    def published(self, handle: int = PUBLISHER) -> None:
        self.run(self.member.offered(self.member.generation, "offer"))
        self.plugin("publish", {"videoroom": "event", "configured": "ok"}, handle=handle,
                    jsep={"type": "answer", "sdp": "answer"})

    def in_room(self, *persons: Json) -> None:
        self.run(self.member.start())
        self.opened()
        self.joined(*persons)
        self.published()
        self.run(self.member.session(self.member.generation, SessionUp({}), watching=False))
        if persons:
            self.attached()

    def attached(self, handle: int = WATCHER) -> None:
        """The second handle, and everything that is asked of it, down to the started subscription."""
        self.answer(lambda one: one["janus"] == "attach", data={"id": handle})
        self.subscribed(handle)

    def subscribed(self, handle: int = WATCHER) -> None:
        while any(self._is_subscription(one, handle) for one in self.asked):
            asked = next(one for one in self.asked if self._is_subscription(one, handle))
            body = asked["body"]
            if body["request"] == "unsubscribe":
                gone = {one["sub_mid"] for one in body["streams"]}
                self.lines = [one for one in self.lines if one["mid"] not in gone]
            else:
                self.lines = [*(self.lines if body["request"] == "subscribe" else []), *(
                    {"type": "audio" if one["mid"] == "0" else "video", "active": True, "mid": str(next(self._lines)),
                     "feed_id": one["feed"], "feed_mid": one["mid"]} for one in body["streams"])]
            kind = "attached" if body["request"] == "join" else "updated"
            self.plugin(body["request"], {"videoroom": kind, "streams": self.lines}, handle=handle,
                        jsep={"type": "offer", "sdp": "room offer"})
            self.start(handle)

    lines: list[Json]

    def start(self, handle: int = WATCHER) -> None:
        self.run(self.member.watched(self.member.generation, "our answer"))
        self.plugin("start", {"videoroom": "event", "started": "ok"}, handle=handle)

    @staticmethod
    def _is_subscription(message: Json, handle: int) -> bool:
        return message.get("handle_id") == handle and message.get("body", {}).get("request") in (
            "join", "subscribe", "unsubscribe")

    def carried(self) -> list[OnLine]:
        return list(self.of(Watch)[-1].lines.values())


OFFER = "v=0\r\nm=audio 9 X 1\r\na=mid:0\r\nm=video 9 X 2\r\na=mid:1\r\n"


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
    assert not desk.member.may_expel
    assert [type(one) for one in desk.member.expel()] == [Expelled]
    desk.in_room(person(2))
    assert desk.member.may_expel
    desk.run(desk.member.expel())
    assert desk.run(desk.member.expel()) == []  # once is enough
    desk.plugin("listparticipants", {"participants": [{"id": 1}, {"id": 2}, {"id": "x"}, {}, 7]})
    kicks = [one["body"] for one in desk.asked if one.get("body", {}).get("request") == "kick"]
    assert kicks == [{"request": "kick", "room": 1234, "secret": "s3cret", "id": who} for who in (2, "x")]
    desk.plugin("kick", {"videoroom": "success"})
    assert not desk.of(Expelled)
    desk.plugin("kick", {"videoroom": "event", "error_code": 428, "error": "No such user x"})  # left by itself
    assert desk.of(Expelled) == [Expelled()]


def test_a_secret_that_the_server_does_not_take_is_told() -> None:
    desk = Desk(room=Room(1234, "lobby", secret="wrong"))
    desk.in_room(person(2))
    desk.run(desk.member.expel())
    desk.plugin("listparticipants", {"participants": [{"id": 1}, {"id": 2}]})
    desk.plugin("kick", {"videoroom": "event", "error_code": 433, "error": "Unauthorized (wrong secret)"})
    refusal = desk.of(Expelled)[-1].refusal
    assert refusal.key == "403/roomSecret"
    assert "wrong secret" in refusal.message
    assert not desk.of(Finish)
    desk.run(desk.member.expel())
    desk.run(desk.member.link_down("gone"))
    assert desk.of(Expelled)[-1].refusal.key == "503/provider"


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


def test_another_server_is_tried_at_once_also_when_one_takes_connections_and_says_nothing() -> None:
    desk = Desk()
    assert Open() in desk.run(desk.member.link_down("refused", elsewhere=True))
    desk.run(desk.member.link_up(same=False))
    assert Open() in desk.run(desk.member.link_down("it does not answer", elsewhere=True))
    desk.asked.clear()
    desk.opened()
    desk.joined()
    assert desk.told(api.Accepted)
    assert not desk.of(Finish)
    assert not desk.told(api.Lost)


def test_at_another_server_no_session_is_claimed() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.run(desk.member.link_down("closed"))
    assert desk.run(desk.member.timeout(Timer.RETRY)) == [Open()]
    assert Open() in desk.run(desk.member.link_down("refused", elsewhere=True))
    assert len(desk.told(api.Lost)) == 1
    desk.asked.clear()
    desk.run(desk.member.link_up(same=False))
    assert [one["janus"] for one in desk.asked] == ["create"]


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
    desk.says({"videoroom": "event", "id": 2, "mid": "0", "moderation": "muted"})
    olga = desk.told(api.Members)[-1].members[0]
    assert (olga.speaking, olga.muted) == (False, True)
    desk.run(desk.member.absent(0, {"2"}))
    assert desk.told(api.Members)[-1].members[0].away
    desk.says({"videoroom": "event", "unpublished": 2})
    assert not desk.told(api.Members)[-1].members[0].video
    desk.says({"videoroom": "event", "kicked": 3})
    desk.says({"videoroom": "event", "leaving": 2})
    assert desk.names == []
    before = len(desk.told(api.Members))
    desk.says({"videoroom": "event", "leaving": 2})
    assert len(desk.told(api.Members)) == before  # the same list is not told again


def gate(number: int, name: str) -> Json:
    return person(number, name, metadata={"identity": "gate-1"})


def test_of_an_identity_the_newest_counts_and_of_us_no_ghost() -> None:
    desk = Desk()
    desk.in_room(gate(2, "old"), person(3, "me", metadata={"identity": "door-1"}), gate(4, "new"))
    assert desk.names == ["new"]
    assert not desk.of(TakenOver)  # so it was when we came


def test_an_identity_changes_hands_once_in_30_s_and_each_time_is_told() -> None:
    desk = Desk()
    desk.in_room(gate(2, "first"))
    desk.says({"videoroom": "event", "publishers": [gate(3, "second")]})
    assert desk.names == ["second"]
    assert desk.of(TakenOver) == [TakenOver("gate-1")]
    desk.now += 10
    desk.says({"videoroom": "event", "publishers": [gate(4, "third")]})
    assert desk.names == ["second"]
    assert StartTimer(Timer.TAKE_OVER, 20.0) in desk.done
    desk.now += 20
    desk.run(desk.member.timeout(Timer.TAKE_OVER))
    assert desk.names == ["third"]
    assert desk.of(TakenOver) == [TakenOver("gate-1")] * 2


def test_who_is_back_after_the_old_one_has_left_takes_nothing_over() -> None:
    desk = Desk()
    desk.in_room(gate(2, "first"))
    desk.says({"videoroom": "event", "leaving": 2})
    desk.says({"videoroom": "event", "publishers": [gate(3, "second")]})
    desk.says({"videoroom": "event", "leaving": 3})
    desk.says({"videoroom": "event", "publishers": [gate(4, "third")]})
    assert desk.names == ["third"]
    assert not desk.of(TakenOver)


def test_of_two_the_one_that_is_left_is_shown() -> None:
    desk = Desk()
    desk.in_room(gate(2, "first"))
    desk.says({"videoroom": "event", "publishers": [gate(3, "second")]})
    desk.says({"videoroom": "event", "leaving": 3})
    assert desk.names == ["first"]


def test_another_device_under_our_own_identity_is_shown_and_told() -> None:
    desk = Desk()
    desk.in_room()
    desk.says({"videoroom": "event", "publishers": [person(2, "Front door", metadata={"identity": "door-1"})]})
    assert desk.names == ["Front door"]
    assert desk.of(TakenOver) == [TakenOver("door-1")]


def test_a_loss_of_ours_is_no_take_over_of_others() -> None:
    desk = Desk()
    desk.in_room(gate(2, "first"))
    desk.run(desk.member.link_down("closed"))
    desk.asked.clear()
    desk.run(desk.member.link_up())
    desk.answer(lambda one: one["janus"] == "claim")
    desk.answer(lambda one: one["janus"] == "attach", data={"id": 21})
    desk.joined(gate(7, "first"), handle=21, own=8)
    assert desk.names == ["first"]
    assert not desk.of(TakenOver)


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


def losses() -> list[tuple[str, Callable[[Desk], Sequence[Effect]]]]:
    return [
        ("signalling", lambda desk: desk.member.link_down("closed")),
        ("signalling", lambda desk: desk.member.receive({"janus": "timeout", "session_id": 5})),
        ("media", lambda desk: desk.member.receive({"janus": "hangup", "sender": PUBLISHER})),
        ("media", lambda desk: desk.member.receive({"janus": "hangup", "sender": WATCHER})),
        ("media", lambda desk: desk.member.session(0, SessionSilent(3.0), watching=True)),
        ("media", lambda desk: desk.member.session(0, SessionStranded(gone=True), watching=False)),
        ("media", lambda desk: desk.member.session(0, SessionClosed("lost"), watching=False)),
        ("media", lambda desk: desk.member.media_failed(0, END_REASONS["503/provider"])),
    ]


@pytest.mark.parametrize(("cause", "lose"), losses())
def test_what_is_lost_is_made_anew(cause: str, lose: Callable[[Desk], Sequence[Effect]]) -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.run(lose(desk))
    assert desk.told(api.Lost) == [api.Lost(cause)]
    assert desk.of(Drop) == [Drop(0)]
    assert Shut() in desk.done
    assert desk.names == []
    assert StartTimer(Timer.RETRY, 0.2) in desk.done
    assert desk.run(desk.member.timeout(Timer.RETRY)) == [Open()]
    assert not desk.of(Finish)


def test_the_old_session_is_claimed_and_its_handles_let_go() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.run(desk.member.link_down("closed"))
    desk.asked.clear()
    desk.run(desk.member.link_up())
    assert (desk.asked[0]["janus"], desk.asked[0]["session_id"]) == ("claim", 5)
    desk.answer(lambda one: one["janus"] == "claim")
    assert [one["handle_id"] for one in desk.asked if one["janus"] == "detach"] == [PUBLISHER, WATCHER]
    desk.answer(lambda one: one["janus"] == "attach", data={"id": 21})
    desk.joined(person(2), handle=21, own=8)
    desk.published(handle=21)
    desk.run(desk.member.session(1, SessionUp({}), watching=False))
    assert len(desk.told(api.Recovered)) == 1
    assert len(desk.told(api.Connected)) == 1
    assert len(desk.told(api.Accepted)) == 1
    assert desk.names == ["p2"]


def test_a_session_that_is_gone_is_replaced_and_our_ghost_not_shown() -> None:
    desk = Desk()
    desk.in_room()
    desk.run(desk.member.link_down("closed"))
    desk.asked.clear()
    desk.run(desk.member.link_up())
    desk.answer(lambda one: one["janus"] == "claim", janus="error", error={"code": 458, "reason": "No such session"})
    desk.answer(lambda one: one["janus"] == "create", data={"id": 6})
    desk.answer(lambda one: one["janus"] == "attach", data={"id": 21})
    desk.joined(person(1, "Front door"), person(2, "Olga"), handle=21, own=8)
    assert desk.names == ["Olga"]


def test_a_room_full_of_our_ghost_is_tried_again_ever_slower() -> None:
    desk = Desk()
    desk.in_room()
    pauses = []
    for own in range(20, 25):
        desk.run(desk.member.link_down("closed"))
        pauses.append(desk.of(StartTimer)[-1].seconds)
        desk.asked.clear()
        desk.run(desk.member.link_up())
        desk.answer(lambda one: one["janus"] == "claim", janus="error", error={"code": 458})
        desk.answer(lambda one: one["janus"] == "create", data={"id": 6})
        desk.answer(lambda one: one["janus"] == "attach", data={"id": own})
        desk.joined(handle=own)
        desk.run(desk.member.offered(desk.member.generation, "offer"))
        desk.plugin("publish", {"videoroom": "event", "error_code": 432, "error": "full"}, handle=own)
    assert not desk.of(Finish)
    assert pauses == sorted(pauses)
    assert len(desk.told(api.Lost)) == 1


def test_a_room_that_is_gone_when_we_come_back_ends_the_call() -> None:
    desk = Desk()
    desk.in_room()
    desk.run(desk.member.link_down("closed"))
    desk.asked.clear()
    desk.run(desk.member.link_up())
    desk.answer(lambda one: one["janus"] == "claim", janus="error", error={"code": 458})
    desk.answer(lambda one: one["janus"] == "create", data={"id": 6})
    desk.answer(lambda one: one["janus"] == "attach", data={"id": 21})
    desk.plugin("join", {"videoroom": "event", "error_code": 426, "error": "No such room"}, handle=21)
    assert desk.of(Finish)[0].reason.key == "404/noSuchRoom"


def test_keep_alive_is_acknowledged_or_the_server_is_lost() -> None:
    desk = Desk()
    desk.in_room()
    sent = desk.run(desk.member.timeout(Timer.KEEPALIVE))
    beat = desk.asked[-1]
    assert (beat["janus"], beat["session_id"]) == ("keepalive", 5)
    assert [one.timer for one in sent if isinstance(one, StartTimer)] == [Timer.ANSWER, Timer.KEEPALIVE]
    acknowledged = desk.run(desk.member.receive({"janus": "ack", "transaction": beat["transaction"]}))
    assert acknowledged == [CancelTimer(Timer.ANSWER)]


REFUSED = {"code": 403, "reason": "Unauthorized request (wrong or missing secret/token)"}


def test_a_token_that_is_refused_at_the_door_ends_the_call() -> None:
    desk = Desk()
    desk.run(desk.member.link_up())
    desk.answer(lambda one: one["janus"] == "create", janus="error", error=REFUSED)
    assert desk.of(TokenJudged) == [TokenJudged(REFUSED["reason"])]
    assert desk.of(Finish)[0].reason.key == "401/token"


def test_in_the_room_a_call_goes_on_without_a_token_and_catches_up_with_another() -> None:
    token = "old"
    desk = Desk(room=Room(1234, "lobby", token=lambda: token))
    desk.in_room(person(2))
    assert desk.of(TokenJudged) == [TokenJudged()]
    desk.run(desk.member.timeout(Timer.KEEPALIVE))
    desk.answer(lambda one: one["janus"] == "keepalive", janus="error", error=REFUSED)
    desk.says({"videoroom": "event", "publishers": [person(3)]})
    desk.answer(lambda one: one.get("body", {}).get("request") == "subscribe", janus="error", error=REFUSED)
    assert not desk.of(Finish)
    assert not desk.told(api.Lost)
    assert desk.of(TokenJudged)[-1].refused
    desk.says({"videoroom": "event", "publishers": [person(4)]})
    assert not desk.asked  # it waits behind what was refused
    token = "new"
    desk.run(desk.member.token_renewed())
    assert {one["token"] for one in desk.asked} == {"new"}
    assert [one["janus"] for one in desk.asked] == ["message", "keepalive"]
    desk.subscribed()
    assert {one.feed for one in desk.carried()} == {"2", "3", "4"}


def test_a_token_that_is_refused_while_the_room_is_joined_again_ends_the_call() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.run(desk.member.link_down("closed"))
    desk.asked.clear()
    desk.run(desk.member.link_up())
    desk.answer(lambda one: one["janus"] == "claim", janus="error", error=REFUSED)
    assert desk.of(Finish)[0].reason.key == "401/token"


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


def test_what_should_come_and_does_not_is_subscribed_anew_ever_more_seldom() -> None:
    desk = Desk()
    desk.in_room(person(2), person(3))

    def mid(feed: int) -> str:
        return next(str(one["mid"]) for one in desk.lines if one["feed_id"] == feed and one["feed_mid"] == "1")

    anew = []
    for look in range(1, 20):
        desk.run(desk.member.absent(0, set(), {mid(2)}))
        desk.run(desk.member.timeout(Timer.RENEW))
        if asked := [one["body"]["request"] for one in desk.asked if one.get("handle_id") == WATCHER]:
            assert asked == ["unsubscribe"]
            anew.append(look)
            desk.subscribed()
            assert sorted(one.feed for one in desk.carried()) == ["2", "2", "3", "3"]
    assert anew == [1, 3, 7, 15]
    desk.run(desk.member.absent(0, set(), set()))  # it comes
    desk.run(desk.member.timeout(Timer.RENEW))
    desk.run(desk.member.absent(0, set(), {mid(2)}))
    assert desk.done[-1] == StartTimer(Timer.RENEW, 5.0)
    desk.run(desk.member.timeout(Timer.RENEW))
    assert [one["body"]["request"] for one in desk.asked if one.get("handle_id") == WATCHER] == ["unsubscribe"]


def test_of_one_muted_by_a_moderator_nothing_is_expected() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.says({"videoroom": "event", "id": 2, "mid": "1", "moderation": "muted"})
    desk.run(desk.member.absent(0, {"2"}, {str(desk.lines[1]["mid"])}))
    desk.run(desk.member.timeout(Timer.RENEW))
    assert not [one for one in desk.asked if one.get("handle_id") == WATCHER]


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
