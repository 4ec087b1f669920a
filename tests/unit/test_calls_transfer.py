"""Calls that are handed on, at the controller, on virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.calls.book import Entry
from appliance.calls.machine import IllegalEvent
from appliance.errors import BadRequest, Refused
from appliance.providers.api import Connected, Ended, Held, Lost, Peer, Pressed, Transferred
from appliance.vocabulary import END_REASONS, KeyPress
from tests.support.calls import House, ScriptedLeg, settle
from tests.support.clock import virtual_time

CAROL = Peer("carol", "sip:carol@example.org", "Carol", "pstn")


async def talking(house: House) -> ScriptedLeg:
    dialling = house.giving("call.dial", to="tel:+493012345")
    await house.provider.dialled.wait()
    leg = house.provider.legs[-1]
    leg.up()
    await dialling
    return leg


@virtual_time
async def test_the_call_is_over_when_somebody_else_has_it(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await talking(house)
        leg.handed_on = asyncio.get_running_loop().create_future()
        handing = house.giving("call.transfer", to="sip:carol@example.org", attended=True)
        await settle()
        assert house.call["state"] == "Transferring"
        assert leg.transfers == [("sip:carol@example.org", True)]
        with pytest.raises(IllegalEvent, match="Transferring"):
            await house.give("call.transfer", to="sip:dave@example.org")
        leg.handed_on.set_result(None)
        assert await handing == {"callId": house.call["callId"]}
        await settle()
        assert house.call["state"] == "Disconnected"
        assert house.reason == "0/transferred"
        assert leg.ended == END_REASONS["0/transferred"]


@virtual_time
async def test_what_comes_to_nothing_leaves_the_call_as_it_was(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await talking(house)
        leg.handed_on = asyncio.get_running_loop().create_future()
        handing = house.giving("call.transfer", to="tel:+493099999")
        await settle()
        leg.peer_does(Held(True))
        await settle()
        assert house.call["state"] == "Transferring", "the hold shows when it is over"
        leg.handed_on.set_exception(Refused("busy", code=486, sub_code="busy"))
        with pytest.raises(Refused, match="busy"):
            await handing
        assert house.call["state"] == "RemoteHold"
        leg.peer_does(Held(False))
        await settle()
        assert house.call["state"] == "Connected"
        assert leg.ended is None


@virtual_time
async def test_whoever_leaves_meanwhile_ends_it(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await talking(house)
        leg.handed_on = asyncio.get_running_loop().create_future()
        handing = house.giving("call.transfer", to="tel:+493099999")
        await settle()
        leg.peer_does(Ended(END_REASONS["0/transferred"]))
        await settle()
        leg.handed_on.set_result(None)
        await handing
        assert house.reason == "0/transferred"


@virtual_time
async def test_to_whom_it_may_be_handed_on(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[Entry("Reception", ("operator:desk", "sip:desk@example.org")),
                                        Entry("Lobby", ("device:lobby-2",))]) as house:
        with pytest.raises(Refused, match="no call"):
            await house.give("call.transfer", to="Reception")
        leg = await talking(house)
        with pytest.raises(Refused, match="to a telephone only"):
            await house.give("call.transfer", to="Lobby")
        with pytest.raises(BadRequest):
            await house.give("call.transfer", to="Nobody")
        assert house.call["state"] == "Connected"
        await house.give("call.transfer", to="Reception")
        assert leg.transfers == [("sip:desk@example.org", False)]


@virtual_time
async def test_locked_down_nobody_is_handed_on(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await talking(house)
        await house.give("lockdown.set", on=True)
        with pytest.raises(Refused) as refused:
            await house.give("call.transfer", to="tel:+493099999")
        assert refused.value.key == "403/lockedDown"
        assert not leg.transfers


@virtual_time
async def test_the_other_side_hands_us_on(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        keys: list[KeyPress] = []

        def press(key: KeyPress) -> bool:
            keys.append(key)
            return True

        house.controller.on_key = press
        leg = await talking(house)
        leg.peer_does(Pressed("1"))
        await settle()
        leg.peer = CAROL
        leg.peer_does(Transferred(CAROL), Connected({"signalling": "TLS"}), Pressed("2"))
        await settle()
        assert house.call["state"] == "Connected"
        assert house.call["callerInfo"]["rawId"] == "carol"
        assert house.call["security"] == {"signalling": "TLS"}
        assert house.posted("call.transferred") == [{"callId": house.call["callId"], "peer": CAROL.payload()}]
        (person,) = house.bulletin.document("roster")["participants"]
        assert person["rawId"] == "carol"
        assert [key.verified for key in keys] == [True, False], "it is not whom we called"
        leg.peer_does(Lost("media"))
        await settle()
        assert house.call["state"] == "Reconnecting"
