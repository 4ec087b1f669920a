"""Layouts in calls and rooms, on virtual time: what is chosen, who is shown, and what is received for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.calls.stage import Stage
from appliance.errors import BadRequest, Refused
from appliance.media.layout import PEER, SELF, Face, Layout, Quality, Shows, Source
from appliance.providers.api import Lost, Members, Peer, Recovered
from hw.api import Fit
from tests.support.calls import House, RememberingStudio, ScriptedLeg, in_room, settle
from tests.support.clock import virtual_time
from tests.unit.test_calls_rooms import OLGA, OTTO

OLGA_PEER = Peer("olga", "operator:olga", "Olga")
OLGA_THERE, OTTO_THERE = Source(OLGA.id), Source(OTTO.id)


async def call(house: House, **args: object) -> ScriptedLeg:
    dialling = house.giving("call.dial", to="operator:desk", **args)
    await house.provider.dialled.wait()
    leg = house.provider.legs[-1]
    leg.up()
    await dialling
    await settle()
    return leg


def shown(house: House) -> list[str]:
    return [seat.source.feed for seat in house.studio.seats]


@virtual_time
async def test_of_a_room_only_those_are_received_who_are_shown(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        await settle()
        assert leg.media[-1].view == {}
        leg.peer_does(Members((OLGA, OTTO)))  # Otto has no picture
        await settle()
        assert leg.media[-1].view == {OLGA_THERE: Quality.HIGH}
        assert house.studio.faces[1].muted
        await house.give("video.layout", layout="none")
        await settle()
        assert (leg.media[-1].receive_video, leg.media[-1].view) == (False, {})
        assert leg.media[-1].receive_audio
        assert await house.give("video.layout", layout="grid", fit="crop") == {
            "layout": {"wanted": "grid", "actual": "grid", "fit": "crop"}}
        await settle()
        assert leg.media[-1].receive_video
        assert house.studio.fit is Fit.CROP
        leg.peer_does(Members(()))
        await settle()
        assert leg.media[-1].view == {}


@virtual_time
async def test_who_begins_to_speak_is_large_and_the_others_come_small(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        await house.give("video.layout", layout="speaker")
        otto = replace(OTTO, video=True)
        leg.peer_does(Members((OLGA, otto)))
        await settle()
        assert leg.media[-1].view == {OLGA_THERE: Quality.HIGH, OTTO_THERE: Quality.LOW}
        speaking = replace(otto, speaking=True)
        leg.peer_does(Members((OLGA, speaking)))
        await settle()
        assert leg.media[-1].view == {OTTO_THERE: Quality.HIGH, OLGA_THERE: Quality.LOW}


@virtual_time
async def test_a_layout_of_a_call_ends_with_it_and_one_without_a_call_stays(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        stage = house.controller.stage
        await house.give("video.layout", layout="single")
        leg = await call(house)
        assert (stage.layout, leg.media[-1].receive_video, leg.media[-1].view) == (Layout.SINGLE, True, None)
        await house.give("video.layout", layout="pip")
        assert [seat.source for seat in house.studio.seats] == [PEER, SELF]
        await house.give("call.hangup")
        await settle()
        assert (stage.layout, house.studio.seats) == (Layout.SINGLE, ())
        house.provider.dialled.clear()
        leg = await call(house, layout="none")
        assert leg.media[-1].receive_video is False
        await house.give("call.hangup")
        await settle()
        assert stage.layout is Layout.SINGLE
        stage.configure(Layout.GRID, Fit.STRETCH)
        assert stage.document() == {"wanted": "grid", "actual": "grid", "fit": "stretch"}
        await house.give("video.layout", layout="single")
        stage.configure(Layout.GRID, Fit.STRETCH)  # the same settings, read again
        assert stage.layout is Layout.SINGLE


@virtual_time
async def test_a_call_is_answered_with_a_layout(tmp_path: Path) -> None:
    async with House(tmp_path, allow_unknown=True) as house:
        leg = house.provider.call_in(OLGA_PEER)
        answering = house.giving("call.answer", layout="none")
        await settle()
        assert leg.accepted is not None
        assert leg.accepted.receive_video is False
        leg.up()
        await answering


@virtual_time
async def test_the_picture_of_one_is_asked_for_in_a_quality_or_not_at_all(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        with pytest.raises(Refused, match="no call"):
            await house.give("video.subscribe", participantId="7", quality="low")
        leg = await in_room(house)
        otto = replace(OTTO, video=True)
        leg.peer_does(Members((OLGA, otto)))
        await settle()
        await house.give("video.subscribe", participantId="7", quality="low")
        await settle()
        assert leg.media[-1].view == {OLGA_THERE: Quality.LOW, OTTO_THERE: Quality.MID}
        await house.give("video.subscribe", participantId="7", quality="off")
        await settle()
        assert leg.media[-1].view == {OTTO_THERE: Quality.HIGH}
        assert shown(house) == ["8"]
        await house.give("video.subscribe", participantId="7", quality="auto")
        await settle()
        assert leg.media[-1].view == {OLGA_THERE: Quality.MID, OTTO_THERE: Quality.MID}
        with pytest.raises(BadRequest) as caught:
            await house.give("video.subscribe", participantId="9", quality="low")
        assert caught.value.key == "404/notFound"
        await house.give("video.subscribe", participantId="7", quality="off")
        leg.peer_does(Members((otto,)), Members((otto, OLGA)))  # who comes again is seen again
        await settle()
        assert shown(house) == ["8", "7"]


@virtual_time
async def test_fewer_pictures_and_smaller_ones_are_received_where_they_are_limited(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        leg.peer_does(Members((OLGA, replace(OTTO, video=True), replace(OTTO, id="9", video=True))))
        await settle()
        assert leg.media[-1].view == dict.fromkeys((OLGA_THERE, OTTO_THERE, Source("9")), Quality.MID)
        await house.give("video.constraints", recv={"maxVideos": 2, "frameHeight": 200})
        await settle()
        assert leg.media[-1].view == dict.fromkeys((OLGA_THERE, OTTO_THERE), Quality.LOW)
        assert shown(house) == ["7", "8"]
        house.controller.stage.limit(1)  # the board carries no more
        await settle()
        assert shown(house) == ["7"]
        house.controller.stage.limit(9)
        await house.give("video.constraints", recv={"maxVideos": 0})
        await settle()
        assert leg.media[-1].view == dict.fromkeys((OLGA_THERE, OTTO_THERE, Source("9")), Quality.LOW)


@virtual_time
async def test_what_was_asked_of_one_holds_where_the_room_is_joined_anew(tmp_path: Path) -> None:
    """Also when the server, another one perhaps, knows that one by another id now."""
    async with House(tmp_path) as house:
        leg = await in_room(house)
        otto = replace(OTTO, video=True)
        leg.peer_does(Members((OLGA, otto)))
        await settle()
        await house.give("video.subscribe", participantId="7", quality="off")
        await settle()
        leg.peer_does(Lost("signalling"), Members(), Members((replace(OLGA, id="17"), otto)), Recovered())
        await settle()
        assert shown(house) == ["8"]
        leg.peer_does(Members((otto,)), Members((otto, OLGA)))  # but who leaves and comes again is seen again
        await settle()
        assert shown(house) == ["8", "7"]


@virtual_time
async def test_the_other_side_of_a_direct_call_can_be_switched_off(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await call(house)
        assert leg.media[-1].receive_video
        who = house.bulletin.document("roster")["participants"][0]["participantId"]
        await house.give("video.subscribe", participantId=who, quality="off")
        await settle()
        assert not leg.media[-1].receive_video
        assert leg.media[-1].receive_audio


@virtual_time
async def test_a_board_without_a_screen_receives_no_picture_and_says_so(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        house.studio.shows = False
        leg = await call(house)
        assert leg.media[-1].receive_video is False
        for verb, args in (("video.layout", {"layout": "grid"}),
                           ("video.subscribe", {"participantId": "7", "quality": "low"})):
            with pytest.raises(Refused) as caught:
                await house.give(verb, **args)
            assert caught.value.key == "501/FeatureNotSupported"


def test_what_is_shared_is_shown_by_itself_until_it_ends_or_somebody_chooses() -> None:
    stage = Stage(RememberingStudio())
    olga, sharing = Face("7", "Olga"), Face("7", "Olga", content=True)
    stage.cast([olga])
    assert stage.layout is Layout.GRID
    stage.cast([sharing])
    assert stage.layout is Layout.CONTENT
    assert set(stage.view) == {Source("7", Shows.CONTENT), Source("7")}
    stage.cast([olga])
    assert stage.layout is Layout.GRID
    stage.cast([sharing])
    stage.choose(Layout.SINGLE, None, in_call=True)
    assert stage.layout is Layout.SINGLE
    stage.choose(Layout.CONTENT, None, in_call=True)
    assert (stage.layout, stage.document()["wanted"]) == (Layout.CONTENT, "content")
    stage.cast([olga])
    assert (stage.layout, stage.document()["wanted"]) == (Layout.SPEAKER, "content")
    stage.choose(Layout.NONE, None, in_call=True)
    stage.cast([sharing])
    assert (stage.layout, stage.view) == (Layout.NONE, {})


def test_a_board_that_carries_fewer_pictures_is_asked_for_fewer() -> None:
    stage = Stage(RememberingStudio())
    views: list[int] = []
    stage.on_view = lambda: views.append(len(stage.view))
    stage.cast([Face(str(number)) for number in range(6)])
    stage.limit(2)
    assert set(stage.view) == {Source("0"), Source("1")}
    stage.limit(9)
    assert views == [6, 2, 6]


@virtual_time
async def test_the_network_quality_stands_on_the_picture(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await call(house)
        house.controller.note_level(2)
        assert house.studio.faces[0].level == 2
        assert house.bulletin.document("roster")["participants"][0]["networkQualityLevel"] == 2
        await house.give("call.hangup")
        await settle()
        leg = await in_room_again(house)
        leg.peer_does(Members((replace(OLGA, quality=4), OTTO)))
        await settle()
        house.controller.note_level(1)  # of a room each has its own
        assert [face.level for face in house.studio.faces] == [4, None]


async def in_room_again(house: House) -> ScriptedLeg:
    house.provider.dialled.clear()
    return await in_room(house)
