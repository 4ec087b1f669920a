"""Rooms at the controller, on virtual time: joining and leaving, and who is told to be there."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.calls.book import Entry
from appliance.errors import BadRequest, EdgecallError, Refused
from appliance.providers.api import Connected, Ended, Lost, Member, Members, Recovered
from appliance.vocabulary import END_REASONS
from tests.support.calls import House, in_room, settle
from tests.support.clock import virtual_time

LOBBY = Entry("The lobby", ("operator:desk", "room:1234"))
OLGA = Member("7", "olga", "Olga", video=True, receiving=True)
OTTO = Member("8", "otto", "Otto", muted=True)


def names(house: House) -> list[str]:
    return [one["displayName"] for one in house.bulletin.document("roster")["participants"]]


@virtual_time
async def test_joining_and_leaving_a_room(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        assert (house.call["state"], house.call["kind"]) == ("Connected", "Room")
        assert names(house) == []  # the room is not one of those who are in it
        await house.give("room.leave")
        await settle()
        assert leg.ended == END_REASONS["0/local"]
        assert (house.call["state"], house.reason) == ("Disconnected", "0/local")
        assert not house.posted("call.participant.removed")


@virtual_time
async def test_the_limits_of_a_call_end_with_it_and_those_set_in_it_stay(tmp_path: Path) -> None:
    def sends(house: House) -> tuple[int, int]:
        return house.studio.constraints.send_height, house.studio.constraints.send_fps

    async with House(tmp_path) as house:
        await house.give("video.constraints", send={"frameHeight": 720})
        for fps in (0, 12):
            joining = house.giving("room.join", target="1234", constraints={"send": {"frameHeight": 180}})
            await house.provider.dialled.wait()
            house.provider.dialled.clear()
            assert sends(house) == (180, fps), "before anything is sent"
            house.provider.legs[-1].up()
            await joining
            answer = await house.give("video.constraints", send={"frameRate": 12})
            assert answer is not None
            assert answer["constraints"]["send"] == {"frameHeight": 180, "frameRate": 12, "bitrate": 0}
            await house.give("room.leave")
            await settle()
            assert sends(house) == (720, 12)
        with pytest.raises(BadRequest, match="is no room"):
            await house.give("room.join", target="sip:a@b", constraints={"send": {"frameHeight": 180}})
        assert sends(house) == (720, 12)


@virtual_time
@pytest.mark.parametrize(("target", "address"), [
    ("1234", "room:1234"), ("room:lobby", "room:lobby"), ("The lobby", "room:1234"), ("audio:77", "audio:77"),
    ("hall:2", "room:hall:2"), ("room:sip:a@b", "room:sip:a@b")])
async def test_a_room_is_meant_by_id_by_uri_or_by_the_address_book(tmp_path: Path, target: str, address: str) -> None:
    async with House(tmp_path, entries=[LOBBY]) as house:
        joining = house.giving("room.join", target=target, pin="4711", video=False)
        await house.provider.dialled.wait()
        assert [(one.uri, one.pin) for one in house.provider.targets] == [(address, "4711")]
        house.provider.legs[0].up()
        await joining
        assert not house.call["isLocalVideoStarted"]
        assert "4711" not in str(house.bulletin.snapshot().documents)


@virtual_time
@pytest.mark.parametrize("given", [{}, {"displayName": " "}])
async def test_a_room_is_joined_by_the_name_of_the_device_or_the_one_that_is_given(
    tmp_path: Path, given: dict[str, str],
) -> None:
    async with House(tmp_path) as house:
        for args in (given, {"displayName": " North gate "}):
            house.provider.dialled.clear()
            joining = house.giving("room.join", target="1234", **args)
            await house.provider.dialled.wait()
            house.provider.legs[-1].up()
            await joining
            await house.give("room.leave")
            await settle()
        own, other = house.provider.callers
        assert other == replace(own, display_name="North gate")
        assert own.display_name not in ("", " ", "North gate")


@virtual_time
async def test_what_is_no_room_is_refused(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[Entry("Desk", ("operator:desk",))]) as house:
        for target in ("Desk", "room:", "audio:"):
            with pytest.raises(BadRequest) as caught:
                await house.give("room.join", target=target)
            assert caught.value.key == "404/notFound"
        for target in ("whip:studio", "sip:a@b", "SIP:a@b", "tel:+4930123456"):
            with pytest.raises(BadRequest, match=rf"call\.dial.* room:{re.escape(target)}$") as caught:
                await house.give("room.join", target=target)
            assert caught.value.key == "400/target"
        assert not house.provider.targets
        dialling = house.giving("call.dial", to="operator:desk")
        await house.provider.dialled.wait()
        house.provider.legs[0].up()
        await dialling
        with pytest.raises(Refused, match=r"call\.hangup"):
            await house.give("room.leave")
        with pytest.raises(Refused) as busy:
            await house.give("room.join", target="1234")
        assert busy.value.sub_code == "inCall"


@virtual_time
async def test_a_room_that_refuses_says_why(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        joining = house.giving("room.join", target="1234")
        await house.provider.dialled.wait()
        house.provider.legs[0].peer_does(Ended(END_REASONS["403/roomFull"]))
        with pytest.raises(EdgecallError) as caught:
            await joining
        assert caught.value.key == "403/roomFull"
        assert house.reason == "403/roomFull"


@virtual_time
async def test_the_roster_is_the_rooms_list(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        leg.peer_does(Members((OLGA, OTTO)))
        await settle()
        first, second = house.bulletin.document("roster")["participants"]
        assert (first["participantId"], first["rawId"], first["displayName"]) == ("7", "olga", "Olga")
        assert (first["state"], first["isMuted"], second["isMuted"]) == ("Connected", False, True)
        assert first["videoStreams"][0]["isReceiving"]
        assert len(house.posted("call.participant.added")) == 2

        leg.peer_does(Members((Member("7", "olga", "Olga", video=True, away=True), OTTO)))
        await settle()
        assert house.bulletin.document("roster")["participants"][0]["state"] == "Reconnecting"
        assert len(house.posted("call.participant.updated")) == 1

        leg.peer_does(Members((Member("7", "olga", "Olga", video=True, away=True, speaking=True), OTTO)))
        await settle()
        assert house.bulletin.document("roster")["participants"][0]["isSpeaking"]
        assert len(house.posted("call.participant.updated")) == 1  # each word would be an event

        leg.peer_does(Members((OTTO,)))
        await settle()
        assert names(house) == ["Otto"]
        assert [one["participantId"] for one in house.posted("call.participant.removed")] == ["7"]

        leg.peer_does(Ended(END_REASONS["0/endedForAll"]))
        await settle()
        assert house.reason == "0/endedForAll"
        assert [one["participantId"] for one in house.posted("call.participant.removed")] == ["7", "8"]
        assert names(house) == []


@virtual_time
async def test_a_room_that_is_lost_is_joined_again_within_the_call(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house)
        leg.peer_does(Lost("signalling"), Members(()))
        await settle()
        assert house.call["state"] == "Reconnecting"
        leg.peer_does(Members((OLGA,)), Recovered())
        await settle()
        assert house.call["state"] == "Connected"
        assert names(house) == ["Olga"]
        leg.peer_does(Connected())  # means nothing now
        await settle()
        assert house.call["state"] == "Connected"


@virtual_time
async def test_a_roster_of_hundreds_holds_up_nothing(tmp_path: Path) -> None:
    """All of them change at once when a network does. With a document for each change it took seconds."""
    async with House(tmp_path) as house:
        leg = await in_room(house)
        crowd = [Member(str(number), f"one-{number}", f"Person {number}", quality=3) for number in range(200)]
        leg.peer_does(Members(tuple(crowd)))
        await settle()
        before, began = house.bulletin.rev, time.process_time()
        leg.peer_does(Members(tuple(replace(one, quality=1) for one in crowd)))
        await settle()
        assert time.process_time() - began < 0.5
        assert house.bulletin.rev == before + 1
        assert [one["networkQualityLevel"] for one in house.bulletin.document("roster")["participants"]] == [1] * 200
        assert len(house.posted("call.participant.updated")) == 200
