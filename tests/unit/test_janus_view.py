"""Whose pictures of a room are received, and how large: what is asked of the server when the screen changes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from appliance.media.layout import Quality, Shows, Source
from appliance.providers import api
from appliance.providers.janus.effects import Carry, StartTimer, Timer, Watch
from appliance.vocabulary import Json
from tests.support.janus_desk import WATCHER, Desk, person


def look(desk: Desk, view: Mapping[str, Quality]) -> None:
    desk.run(desk.member.want(hears=True, sees=True, view={Source(feed): one for feed, one in view.items()}))


def asked(desk: Desk) -> list[Json]:
    return [one["body"] for one in desk.asked if one.get("handle_id") == WATCHER]


def simulcast(number: int) -> Json:
    found = person(number)
    found["streams"][1]["simulcast"] = True
    return found


def mid_of(desk: Desk, feed: int) -> str:
    """Of the picture of this person."""
    return str(next(one["mid"] for one in desk.lines if (one["feed_id"], one["feed_mid"]) == (feed, "1")))


def pictures(lines: Mapping[str, object], desk: Desk) -> dict[str, str]:
    """Feed by MID, of the lines that carry pictures."""
    mids = {one["mid"] for one in desk.lines if one["type"] == "video"}
    return {mid: on.feed for mid, on in lines.items() if mid in mids}  # type: ignore[attr-defined]


def test_only_the_pictures_in_view_are_received() -> None:
    desk = Desk()
    look(desk, {"3": Quality.HIGH})
    desk.in_room(person(2), person(3))
    assert sorted(one.feed for one in desk.carried()) == ["2", "3", "3"]
    look(desk, {})
    desk.subscribed()
    assert sorted(one.feed for one in desk.carried()) == ["2", "3"]


def test_another_person_takes_the_line_without_a_negotiation() -> None:
    desk = Desk()
    look(desk, {"2": Quality.HIGH})
    desk.in_room(person(2), person(3))
    line, negotiations = mid_of(desk, 2), len(desk.of(Watch))
    look(desk, {"3": Quality.HIGH})
    (body,) = asked(desk)
    assert body == {"request": "switch", "streams": [{"feed": 3, "mid": "1", "sub_mid": line}]}
    assert pictures(desk.of(Carry)[-1].lines, desk) == {}  # nobody is there until the server has answered
    desk.plugin("switch", {"videoroom": "event", "switched": "ok", "changes": 1}, handle=WATCHER)
    assert pictures(desk.of(Carry)[-1].lines, desk) == {line: "3"}
    assert len(desk.of(Carry)[-1].lines) == 3  # and the voices as before
    assert len(desk.of(Watch)) == negotiations
    assert asked(desk) == []
    assert [one.receiving for one in desk.told(api.Members)[-1].members] == [False, True]


def test_the_servers_own_list_of_lines_is_the_truth_after_a_switch() -> None:
    desk = Desk()
    look(desk, {"2": Quality.HIGH})
    desk.in_room(person(2), person(3))
    line = mid_of(desk, 2)
    look(desk, {"3": Quality.HIGH})
    lines = [one | ({"feed_id": 3} if one["mid"] == line else {}) for one in desk.lines]
    desk.plugin("switch", {"videoroom": "event", "switched": "ok", "streams": lines}, handle=WATCHER)
    assert pictures(desk.of(Carry)[-1].lines, desk) == {line: "3"}


def test_what_cannot_be_switched_is_negotiated() -> None:
    desk = Desk()
    look(desk, {"2": Quality.HIGH})
    desk.in_room(person(2), person(3))
    look(desk, {"3": Quality.HIGH})
    desk.plugin("switch", {"videoroom": "event", "error_code": 428, "error": "No such feed"}, handle=WATCHER)
    assert [body["request"] for body in asked(desk)] == ["unsubscribe"]
    desk.subscribed()
    assert sorted(one.feed for one in desk.carried()) == ["2", "3", "3"]
    look(desk, {"2": Quality.HIGH})
    assert [body["request"] for body in asked(desk)] == ["unsubscribe"]  # not tried again


def test_a_sender_of_several_qualities_is_asked_for_the_one_that_is_shown() -> None:
    desk = Desk()
    look(desk, {"2": Quality.LOW, "3": Quality.LOW})
    desk.in_room(simulcast(2), person(3))
    (body,) = asked(desk)
    assert body == {"request": "configure", "streams": [{"mid": mid_of(desk, 2), "substream": 0, "temporal": 1}]}
    desk.plugin("configure", {"videoroom": "event", "configured": "ok"}, handle=WATCHER)
    look(desk, {"2": Quality.LOW, "3": Quality.HIGH})
    assert asked(desk) == []
    look(desk, {"2": Quality.HIGH, "3": Quality.LOW})
    (body,) = asked(desk)
    assert body["streams"] == [{"mid": mid_of(desk, 2), "substream": 2, "temporal": 2}]
    desk.plugin("configure", {"videoroom": "event", "error_code": 429, "error": "?"}, handle=WATCHER)
    assert asked(desk) == []


def test_a_quality_is_asked_for_again_since_its_sender_may_not_have_listened() -> None:
    desk = Desk()
    look(desk, {"2": Quality.HIGH})
    desk.in_room(simulcast(2))
    (body,) = asked(desk)
    desk.plugin("configure", {"videoroom": "event", "configured": "ok"}, handle=WATCHER)
    assert StartTimer(Timer.INSIST, 1.0) in desk.done
    for _ in range(4):
        assert StartTimer(Timer.INSIST, 1.0) in desk.run(desk.member.timeout(Timer.INSIST))
        assert asked(desk) == [body]
        desk.plugin("configure", {"videoroom": "event", "configured": "ok"}, handle=WATCHER)
    assert desk.run(desk.member.timeout(Timer.INSIST)) == []


def test_a_line_that_was_switched_is_asked_for_its_quality_anew() -> None:
    desk = Desk()
    look(desk, {"2": Quality.LOW})
    desk.in_room(simulcast(2), simulcast(3))
    desk.plugin("configure", {"videoroom": "event", "configured": "ok"}, handle=WATCHER)
    line = mid_of(desk, 2)
    look(desk, {"3": Quality.LOW})
    desk.plugin("switch", {"videoroom": "event", "switched": "ok"}, handle=WATCHER)
    assert [body["request"] for body in asked(desk)] == ["configure"]
    assert asked(desk)[0]["streams"][0]["mid"] == line


def sharing(number: int, name: str, *streams: str, identity: str = "") -> Json:
    """Somebody with a voice and these pictures, each by its description."""
    pictures = [{"type": "video", "mid": str(place), "codec": "h264", **({"description": one} if one else {})}
                for place, one in enumerate(streams, start=1)]
    return {"id": number, "display": name, "streams": [{"type": "audio", "mid": "0", "codec": "opus"}, *pictures],
            **({"metadata": {"identity": identity}} if identity else {})}


def only_sharing(number: int, name: str, *, description: str = "", identity: str = "") -> Json:
    found = sharing(number, name, description, identity=identity)
    del found["streams"][0]
    return found


def watch(desk: Desk, *sources: Source) -> None:
    desk.run(desk.member.want(hears=True, sees=True, view=dict.fromkeys(sources, Quality.HIGH)))


def shown(desk: Desk) -> set[tuple[str, Shows]]:
    """Of what the lines that carry pictures are told to be."""
    mids = {one["mid"] for one in desk.lines if one["type"] == "video"}
    return {(on.feed, on.shows) for mid, on in desk.of(Watch)[-1].lines.items() if mid in mids}


@pytest.mark.parametrize(("first", "second"), [("", "screen"), ("Screen 1", ""), ("", "content"), ("camera", "")])
def test_a_second_picture_of_somebody_is_content_and_asked_for_as_such(first: str, second: str) -> None:
    desk = Desk()
    watch(desk, Source("2", Shows.CONTENT))
    desk.in_room(sharing(2, "Olga", first, second))
    (olga,) = desk.told(api.Members)[-1].members
    assert (olga.video, olga.receiving, olga.content, olga.content_receiving) == (True, False, True, True)
    assert shown(desk) == {("2", Shows.CONTENT)}
    camera = "2" if first == "Screen 1" else "1"
    content = "1" if first == "Screen 1" else "2"
    assert {one["feed_mid"] for one in desk.lines if one["type"] == "video"} == {content}
    watch(desk, Source("2", Shows.CONTENT), Source("2"))
    desk.subscribed()
    assert {one["feed_mid"] for one in desk.lines if one["type"] == "video"} == {content, camera}


@pytest.mark.parametrize("screen", [
    only_sharing(5, "Olga (screen)"), only_sharing(5, "Olga (Content)"),
    only_sharing(5, "Slides of Olga", description="presentation", identity="olga"),
])
def test_a_feed_that_only_shares_is_no_person_but_what_another_shares(screen: Json) -> None:
    desk = Desk()
    watch(desk, Source("2", Shows.CONTENT), Source("2"))
    desk.in_room(sharing(2, "Olga", "", identity="olga"), screen)
    (olga,) = desk.told(api.Members)[-1].members
    assert (olga.id, olga.receiving, olga.content, olga.content_receiving) == ("2", True, True, True)
    assert shown(desk) == {("2", Shows.PERSON), ("2", Shows.CONTENT)}
    desk.says({"videoroom": "event", "unpublished": 5})
    assert not desk.told(api.Members)[-1].members[0].content


def test_of_a_feed_that_only_shares_and_belongs_to_nobody_there_is_one_who_shares() -> None:
    desk = Desk()
    watch(desk, Source("5", Shows.CONTENT))
    desk.in_room(only_sharing(5, "Whiteboard", description="content"))
    (board,) = desk.told(api.Members)[-1].members
    assert (board.id, board.video, board.content, board.content_receiving) == ("5", False, True, True)


def test_nine_people_and_one_content_are_received_and_no_more() -> None:
    everybody = [sharing(number, f"P {number}", "", "screen") for number in range(2, 14)]
    desk = Desk()
    desk.in_room(*everybody)
    assert shown(desk) == {("2", Shows.CONTENT), *((str(number), Shows.PERSON) for number in range(2, 11))}
    desk = Desk()
    watch(desk, Source("13", Shows.CONTENT), *(Source(str(number)) for number in range(5, 14)))
    desk.in_room(*everybody)
    assert shown(desk) == {("13", Shows.CONTENT), *((str(number), Shows.PERSON) for number in range(5, 14))}


def test_who_has_one_picture_shares_nothing() -> None:
    desk = Desk()
    desk.in_room(sharing(2, "Olga", ""), sharing(3, "Otto", "front camera"))
    assert not any(one.content for one in desk.told(api.Members)[-1].members)


def test_how_well_each_arrives_stands_in_the_roster() -> None:
    desk = Desk()
    desk.in_room(person(2, "Olga"), person(3, "Otto"), person(4, "Ida"))
    desk.run(desk.member.absent(0, {"3"}, levels={"2": 4, "3": 5}))
    assert [one.quality for one in desk.told(api.Members)[-1].members] == [4, 0, None]
    told = len(desk.told(api.Members))
    desk.run(desk.member.absent(0, {"3"}, levels={"2": 4, "3": 5}))
    assert len(desk.told(api.Members)) == told


def test_qualities_that_an_old_token_does_not_get_do_not_pile_up() -> None:
    """Under a token that has ended a kiosk may stay for weeks; all of them at once would overrun the connection."""
    desk = Desk()
    look(desk, {"2": Quality.LOW})
    desk.in_room(simulcast(2))
    for turn in range(300):
        desk.answer(lambda one: one.get("body", {}).get("request") == "configure", janus="error",
                    error={"code": 403, "reason": "Unauthorized"})
        look(desk, {"2": Quality.LOW if turn % 2 else Quality.HIGH})
    desk.asked.clear()
    desk.run(desk.member.token_renewed())
    assert [body["streams"][0]["substream"] for body in asked(desk)] == [0]
