"""What a membership in a room loses and how it comes back: connections, servers, sessions, tokens, single streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from appliance.media.api import (
    SessionBlocked,
    SessionClosed,
    SessionEvent,
    SessionPassed,
    SessionSilent,
    SessionStranded,
    SessionUp,
)
from appliance.providers import api
from appliance.providers.janus.effects import (
    CancelTimer,
    Drop,
    Effect,
    Finish,
    Open,
    Shut,
    StartTimer,
    Timer,
    TokenJudged,
    Unwatch,
)
from appliance.providers.janus.stay import Room
from appliance.vocabulary import END_REASONS
from tests.support.janus_desk import PUBLISHER, WATCHER, Desk, person


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


def test_a_room_that_is_not_reached_yet_is_given_time_and_one_that_was_is_joined_anew() -> None:
    desk = Desk()
    desk.opened()
    desk.joined()
    desk.published()
    desk.run(desk.member.session(0, SessionSilent(3.0), watching=False))
    assert not desk.of(Finish)
    desk.run(desk.member.session(0, SessionUp({}), watching=False))
    desk.run(desk.member.session(0, SessionSilent(3.0), watching=False))
    desk.run(desk.member.timeout(Timer.RETRY))
    desk.run(desk.member.session(1, SessionSilent(3.0), watching=False))  # in its handshake
    assert desk.of(Drop) == [Drop(0), Drop(1)]
    assert not desk.of(Finish)


def tell(desk: Desk, event: SessionEvent) -> list[float]:
    """How long is waited until the room is joined again because of it."""
    effects = desk.run(desk.member.session(desk.member.generation, event, watching=False))
    return [one.seconds for one in effects if isinstance(one, StartTimer) and one.timer is Timer.BLOCKED]


def test_where_no_media_pass_the_room_is_joined_again_ever_more_seldom() -> None:
    desk = Desk()
    desk.in_room(person(2))
    pauses = tell(desk, SessionBlocked(before=True))
    for _ in range(7):
        desk.run(desk.member.timeout(Timer.BLOCKED))
        assert desk.of(Drop)[-1].generation == desk.member.generation - 1
        pauses += tell(desk, SessionBlocked(before=False))  # of what never comes there are no reports either
    assert pauses == [0.0, 4.0, 14.0, 34.0, 74.0, 294.0, 294.0, 294.0]
    assert desk.told(api.Lost) == [api.Lost("media")]
    assert not desk.of(Finish)
    desk.run(desk.member.session(desk.member.generation, SessionPassed(), watching=False))
    assert desk.done[-1] == CancelTimer(Timer.BLOCKED)
    assert tell(desk, SessionBlocked(before=True)) == [0.0]


def test_a_server_that_never_reports_is_let_be() -> None:
    desk = Desk()
    desk.in_room(person(2))
    assert tell(desk, SessionBlocked(before=False)) == []


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


def mids(desk: Desk, *feeds: int) -> set[str]:
    return {str(one["mid"]) for one in desk.lines if one["feed_id"] in feeds}


def watching(desk: Desk) -> list[str]:
    """What is asked about the subscription and waits."""
    return [one.get("body", {}).get("request", one["janus"]) for one in desk.asked]


def look(desk: Desk, still: set[str]) -> list[str]:
    """Nothing comes on these lines for another while; what is asked then."""
    desk.asked.clear()
    desk.run(desk.member.absent(0, set(), still))
    desk.run(desk.member.timeout(Timer.RENEW))
    return watching(desk)


def test_where_nothing_comes_of_anybody_the_connection_is_made_anew_without_end() -> None:
    desk = Desk()
    desk.in_room(person(2), person(3))
    anew, handle = [], WATCHER
    for number in range(1, 125):
        if look(desk, mids(desk, 2, 3)):
            assert watching(desk) == ["detach", "attach"]
            assert desk.asked[0]["handle_id"] == handle
            anew.append(number)
            handle += 10
            desk.attached(handle)
            assert sorted(one.feed for one in desk.carried()) == ["2", "2", "3", "3"]
    assert anew == [1, 3, 7, 15, 31, 60, 120]
    assert desk.of(Unwatch) == [Unwatch(0)] * len(anew)
    assert not desk.told(api.Lost)


def test_nobody_who_is_seen_is_disturbed_for_one_who_is_not() -> None:
    desk = Desk()
    desk.in_room(person(2), person(3))
    asked = []
    for _ in range(70):
        asked += look(desk, mids(desk, 2))
        desk.subscribed()
    assert asked == ["unsubscribe"] * 6
    assert not desk.of(Unwatch)


def test_of_the_only_one_the_lines_are_tried_first() -> None:
    desk = Desk()
    desk.in_room(person(2))
    assert look(desk, mids(desk, 2)) == ["unsubscribe"]
    desk.subscribed()
    assert look(desk, mids(desk, 2)) == []
    assert look(desk, mids(desk, 2)) == ["detach", "attach"]


def test_an_offer_that_the_server_owes_and_does_not_make_is_a_loss() -> None:
    """It says so where another negotiation is under way. With it lost, nobody who came later was ever seen."""
    desk = Desk()
    desk.in_room(person(2))
    desk.says({"videoroom": "event", "publishers": [person(3)]})
    desk.plugin("subscribe", {"videoroom": "updated", "streams": desk.lines}, handle=WATCHER)
    assert desk.done[-1] == StartTimer(Timer.OFFER, 10.0)
    desk.run(desk.member.timeout(Timer.OFFER))
    assert desk.told(api.Lost) == [api.Lost("signalling")]


def test_an_offer_that_is_made_later_is_none() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.says({"videoroom": "event", "publishers": [person(3)]})
    desk.plugin("subscribe", {"videoroom": "updated", "streams": desk.lines}, handle=WATCHER)
    desk.says({"videoroom": "updated", "streams": desk.lines}, handle=WATCHER, jsep={"type": "offer", "sdp": "x"})
    desk.start()
    assert desk.of(CancelTimer)[-2:] == [CancelTimer(Timer.OFFER), CancelTimer(Timer.ANSWER)]
    desk.run(desk.member.timeout(Timer.OFFER))
    assert not desk.told(api.Lost)


def test_an_offer_that_we_do_not_answer_is_a_loss() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.says({"videoroom": "updated", "streams": desk.lines}, handle=WATCHER, jsep={"type": "offer", "sdp": "x"})
    desk.run(desk.member.timeout(Timer.OFFER))
    assert desk.told(api.Lost) == [api.Lost("signalling")]


def test_what_the_server_did_not_give_is_asked_for_again() -> None:
    desk = Desk()
    desk.in_room(person(2))
    desk.says({"videoroom": "event", "publishers": [person(3)]})
    desk.plugin("subscribe", {"videoroom": "event", "error_code": 428, "error": "No such feed"}, handle=WATCHER)
    assert desk.of(StartTimer)[-1] == StartTimer(Timer.FORGIVE, 30.0)
    assert not desk.asked
    desk.run(desk.member.timeout(Timer.FORGIVE))
    desk.subscribed()
    assert {one.feed for one in desk.carried()} == {"2", "3"}


def test_a_server_for_which_nothing_changes_is_asked_from_the_beginning() -> None:
    """It has another subscription of ours than we believe: asked for the same again it would say the same again."""
    desk = Desk()
    desk.in_room(person(2))
    desk.says({"videoroom": "event", "publishers": [person(3)]})
    desk.plugin("subscribe", {"videoroom": "updated", "room": 1234}, handle=WATCHER)
    assert watching(desk) == ["detach", "attach"]
    desk.attached(22)
    assert {one.feed for one in desk.carried()} == {"2", "3"}
