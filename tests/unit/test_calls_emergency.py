"""The emergency target, which nothing of ours stops, and the lock-down, which stops everything else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.calls.auto_join import Verdict, verdict
from appliance.calls.book import Entry
from appliance.errors import Refused
from appliance.providers.api import Connected, Ended, Member, Peer, Ringing
from appliance.vocabulary import END_REASONS
from tests.support.calls import OPERATOR, OPERATORS, House, ScriptedLeg, connected, in_room, settle
from tests.support.clock import virtual_time
from tests.unit.test_settings_file import faults_of

HELP = Entry("Help point", ("tel:+4930123456",), fallback="Second")
SECOND = Entry("Second", ("tel:+4930999999",))
HELPER = Peer("+4930123456", "tel:+4930123456", "+4930123456", "pstn", verified=True)


def help_house(folder: Path, **settings: Any) -> House:
    return House(folder, entries=[OPERATORS, HELP, SECOND], emergency_target="Help point", **settings)


async def refused(house: House, verb: str, **args: Any) -> str:
    with pytest.raises(Refused) as caught:
        await house.give(verb, **args)
    return caught.value.key


async def answers(house: House, count: int) -> ScriptedLeg:
    while len(house.provider.legs) < count:
        await settle()
    leg = house.provider.legs[-1]
    leg.peer_does(Ringing())
    leg.up()
    return leg


@virtual_time
async def test_it_ends_the_call_in_progress(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        desk = await connected(house)
        helping = house.giving("call.dial", to="Help point")
        await answers(house, 2)
        await helping
        assert desk.ended == END_REASONS["0/emergency"]
        assert (house.call["state"], house.call["isEmergency"]) == ("Connected", True)
        assert house.posted("call.emergency") == [{"callId": house.call["callId"], "target": "tel:+4930123456"}]
        assert all(target.emergency for target in house.provider.targets[1:])
        assert not house.provider.targets[0].emergency


@virtual_time
async def test_a_peer_that_does_not_say_goodbye_holds_it_up_for_two_seconds(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        desk = await connected(house)
        desk.says_goodbye = False
        began = asyncio.get_running_loop().time()
        helping = house.giving("call.dial", to="Help point")
        await desk.over.wait()
        stranger = house.provider.call_in(OPERATOR)
        assert await refused(house, "call.dial", to="operator:desk") == "409/inCall"
        await asyncio.sleep(1.9)
        assert len(house.provider.targets) == 1
        await asyncio.sleep(0.2)
        await answers(house, 2)
        await helping
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.1)
        assert stranger.ended == END_REASONS["486/busy"], "nobody comes between"


@virtual_time
async def test_it_ends_a_room_that_is_joined_again_afterwards(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        room = await in_room(house, Member("1", "olga", "Olga"))
        helping = house.giving("call.dial", to="tel:+4930123456", targets=["tel:+4930999999"])
        await answers(house, 2)
        await helping
        assert room.ended == END_REASONS["0/emergency"]
        assert house.call["isEmergency"], "by whatever name it is called"
    assert verdict(END_REASONS["0/emergency"]) is Verdict.LATER


@virtual_time
async def test_a_second_press_does_not_end_the_emergency_call(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        helping = house.giving("call.dial", to="Help point")
        await answers(house, 1)
        await helping
        assert await refused(house, "call.dial", to="Help point") == "409/inCall"
        assert house.call["state"] == "Connected"


@virtual_time
async def test_an_ordinary_call_ends_nothing_and_is_none(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        desk = await connected(house)
        for to in ("tel:+4930999999", "Second"):
            assert await refused(house, "call.dial", to=to) == "409/inCall"
        assert desk.ended is None
        assert not house.call["isEmergency"]


@virtual_time
async def test_in_a_lock_down_only_it_is_called_and_rings(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        await house.give("lockdown.set", on=True)
        assert house.bulletin.document("device")["lockedDown"] is True
        assert await refused(house, "call.dial", to="operator:desk") == "403/lockedDown"
        assert await refused(house, "room.join", target="1234") == "403/lockedDown"
        caller = house.provider.call_in(OPERATOR)
        await settle()
        assert caller.ended == END_REASONS["403/lockedDown"]
        assert house.posted("call.missed")
        helping = house.giving("call.dial", to="Help point")
        leg = await answers(house, 1)
        await helping
        leg.peer_does(Ended(END_REASONS["0/remote"]))
        await settle()
        back = house.provider.call_in(HELPER, "call-2")
        await settle()
        assert (back.ended, house.call["state"]) == (None, "Incoming")
    async with House(tmp_path, entries=[OPERATORS], records=house.records) as again:
        assert again.bulletin.document("device")["lockedDown"] is True, "over a restart"
        await again.give("lockdown.set", on=False)
        await connected(again)


@virtual_time
async def test_a_call_in_progress_outlives_the_lock_down(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        desk = await connected(house)
        await house.give("lockdown.set", on=True)
        assert (desk.ended, house.call["state"]) == (None, "Connected")


@pytest.mark.parametrize("verified", [True, False])
@virtual_time
async def test_whom_it_stands_for_calls_back_through_do_not_disturb(tmp_path: Path, verified: bool) -> None:
    async with help_house(tmp_path, allow_unknown=True) as house:
        await house.give("dnd.set", on=True)
        back = house.provider.call_in(Peer("+4930123456", "tel:+4930123456", "Help", "pstn", verified=verified))
        await settle()
        assert back.ended == (None if verified else END_REASONS["480/doNotDisturb"])


@virtual_time
async def test_a_failed_one_is_tried_once_more_without_encryption(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        helping = house.giving("call.dial", to="Help point")
        for number in range(1, 3):
            while len(house.provider.legs) < number:
                await settle()
            house.provider.legs[-1].peer_does(Ended(END_REASONS["488/noCodec"]))
        leg = await answers(house, 3)
        leg.peer_does(Connected({"signalling": "TLS", "verified": False}))
        await helping
        assert [(one.uri, one.plain) for one in house.provider.targets] == [
            ("tel:+4930123456", False), ("tel:+4930999999", False), ("tel:+4930123456", True)]


@pytest.mark.parametrize("key", ["603/declined", "486/busy"])
@virtual_time
async def test_one_that_was_heard_is_not_tried_again(tmp_path: Path, key: str) -> None:
    async with help_house(tmp_path) as house:
        helping = house.giving("call.dial", to="Help point")
        for number in range(1, 3):
            while len(house.provider.legs) < number:
                await settle()
            house.provider.legs[-1].peer_does(Ended(END_REASONS[key]))
        await asyncio.wait({helping})
        assert helping.exception() is not None
        assert (len(house.provider.targets), house.reason) == (2, key)


@virtual_time
async def test_an_ordinary_call_is_never_unencrypted(tmp_path: Path) -> None:
    async with help_house(tmp_path) as house:
        dialling = house.giving("call.dial", to="Second")
        while not house.provider.legs:
            await settle()
        house.provider.legs[-1].peer_does(Ended(END_REASONS["488/noCodec"]))
        await asyncio.wait({dialling})
        assert dialling.exception() is not None
        assert [one.plain for one in house.provider.targets] == [False]


@pytest.mark.parametrize("number", ["112", "911"])
def test_a_public_emergency_number_is_refused(number: str) -> None:
    found = faults_of(f"[call]\nemergency_target = 'tel:{number}'\n")
    assert any("public emergency number" in one for one in found), found
