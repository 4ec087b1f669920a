"""Raised hands and mute marks at the controller, on virtual time: what is said of us, and what the others say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from appliance.calls.terms import Terms
from appliance.errors import Refused
from appliance.providers.api import DataReceived, Member, Members
from appliance.vocabulary import Json, Role
from tests.support.calls import House, ScriptedLeg, in_room, settle
from tests.support.clock import virtual_time

OLGA, OTTO = Member("7", "olga", "Olga"), Member("8", "otto", "Otto")


def said(leg: ScriptedLeg) -> list[Json]:
    return [json.loads(payload) for channel, payload in leg.sent if channel == "state"]


def member(house: House, number: int) -> Json:
    found: Json = house.bulletin.document("roster")["participants"][number]
    return found


@virtual_time
async def test_a_raised_hand_is_told_at_once_and_again_for_who_comes_later(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)
        await asyncio.sleep(60)
        assert said(leg) == []  # there is nothing to say
        await house.give("call.raiseHand")
        await settle()
        assert said(leg) == [{"handRaised": True, "muted": False}]
        assert leg.sent_how[-1] == ((), False, True)
        assert house.call["isHandRaised"]
        await asyncio.sleep(11)
        assert len(said(leg)) == 3
        await house.give("call.lowerHand")
        await settle()
        assert said(leg)[-1] == {"handRaised": False, "muted": False}
        assert not house.call["isHandRaised"]
        await asyncio.sleep(60)
        assert len(said(leg)) == 4


@virtual_time
async def test_in_a_room_a_mute_is_said_and_in_a_call_of_two_it_goes_by_signalling(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)
        await house.give("call.mute")
        await settle()
        assert said(leg) == [{"handRaised": False, "muted": True}]
        await house.give("call.unmute")
        await settle()
        assert said(leg)[-1] == {"handRaised": False, "muted": False}
        await house.give("room.leave")
        await settle()
        house.provider.dialled.clear()
        dialling = house.giving("call.dial", to="operator:desk")
        await house.provider.dialled.wait()
        leg = house.provider.legs[-1]
        leg.up()
        await dialling
        await house.give("call.mute")
        await settle()
        assert said(leg) == []
        await house.give("call.raiseHand")
        await settle()
        assert said(leg) == [{"handRaised": True, "muted": False}]


@virtual_time
async def test_until_the_channel_is_open_it_is_tried_again(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)
        leg.no_channel = Refused("not open", sub_code="noDataChannel")
        await house.give("call.raiseHand")
        await asyncio.sleep(0.7)
        leg.no_channel = None
        await asyncio.sleep(1.1)
        assert said(leg) == [{"handRaised": True, "muted": False}]


@virtual_time
async def test_a_call_that_never_has_a_channel_is_asked_seldom(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)
        leg.no_channel = Refused("there is none", sub_code="noDataChannel")
        await house.give("call.raiseHand")
        await asyncio.sleep(60)
        assert said(leg) == []
        assert 10 <= leg.tries <= 20


@virtual_time
async def test_what_others_say_stands_in_the_roster_and_is_no_data_message(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)

        async def says(who: str, payload: str) -> None:
            leg.peer_does(DataReceived("state", payload, who))
            await settle()

        await says("8", '{"handRaised": true, "muted": true}')
        await asyncio.sleep(0.01)
        await says("7", '{"handRaised": true}')
        assert [member(house, n)["isHandRaised"] for n in (0, 1)] == [True, True]
        assert [member(house, n)["isMuted"] for n in (0, 1)] == [False, True]
        assert house.bulletin.document("roster")["raisedHands"] == ["8", "7"]
        told = len(house.posted("call.participant.updated"))
        await says("8", '{"handRaised": true, "muted": true}')  # said again is not told again
        assert len(house.posted("call.participant.updated")) == told
        leg.peer_does(Members((OLGA, OTTO)))  # the server knows nothing of it
        await settle()
        assert member(house, 1)["isMuted"]
        await says("8", '{"handRaised": false, "muted": false}')
        assert (member(house, 1)["isHandRaised"], member(house, 1)["isMuted"]) == (False, False)
        assert house.bulletin.document("roster")["raisedHands"] == ["7"]
        for nonsense in ("", "[]", "{", '"x"', "7", '{"handRaised": "yes", "muted": 1}', "[" * 5000):
            await says("8", nonsense)
            assert not member(house, 1)["isHandRaised"]
        await says("99", '{"handRaised": true}')
        assert not house.posted("data.received")


@virtual_time
async def test_a_consumer_has_no_hand_to_raise(tmp_path: Path) -> None:
    async with House(tmp_path, rules={"room:1234": Terms(Role.CONSUMER)}) as house:
        leg = await in_room(house, OLGA, OTTO)
        with pytest.raises(Refused) as refused:
            await house.give("call.raiseHand")
        assert refused.value.key == "403/RoleRestricted"
        assert not any(one["handRaised"] for one in said(leg))
