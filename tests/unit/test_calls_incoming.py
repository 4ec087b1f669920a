"""Callers, on virtual time: who rings, who is refused with which reason, and who is let in by itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.calls.book import Entry
from appliance.errors import Refused
from appliance.media.api import Tone
from appliance.providers.api import MediaWanted, Peer
from appliance.vocabulary import END_REASONS
from tests.support.calls import MONDAY_NOON, OPERATOR, OPERATORS, House, connected, settle
from tests.support.clock import virtual_time


@virtual_time
async def test_an_incoming_call_rings_and_is_answered(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS]) as house:
        leg = house.provider.call_in(OPERATOR)
        await settle()
        assert (house.call["state"], house.studio.tone, leg.rang) == ("Incoming", Tone.RING, True)
        assert house.posted("call.incoming")[0]["callerInfo"]["displayName"] == "Reception"
        answering = house.giving("call.answer", callId="call-1", video=False)
        await settle()
        assert leg.accepted == MediaWanted(send_video=False)
        assert house.studio.tone is None
        leg.up()
        await answering
        assert house.call["state"] == "Connected"


@virtual_time
async def test_an_incoming_call_nobody_takes_is_missed_after_the_ring_time(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS], ring_s=20) as house:
        leg = house.provider.call_in(OPERATOR)
        started = asyncio.get_running_loop().time()
        await leg.over.wait()
        assert asyncio.get_running_loop().time() - started == 20
        await settle()
        assert house.reason == "487/noAnswer"
        assert house.posted("call.missed")[0]["callId"] == "call-1"


@virtual_time
async def test_rejecting_tells_the_caller(tmp_path: Path) -> None:
    for asked, key in ((None, "603/declined"), ("busy", "486/busy")):
        async with House(tmp_path, entries=[OPERATORS]) as house:
            leg = house.provider.call_in(OPERATOR)
            await house.give("call.reject", **({"reason": asked} if asked else {}))
            await settle()
            assert leg.ended == END_REASONS[key]
            assert house.call["state"] == "Disconnected"


@virtual_time
async def test_who_may_not_call(tmp_path: Path) -> None:
    stranger = Peer("eve", "device:eve", "Eve", verified=True)
    async with House(tmp_path, entries=[OPERATORS, Entry("Blocked", ("device:mallory",), allowed=False)]) as house:
        for peer in (stranger, Peer("mallory", "device:mallory", "M", verified=True)):
            leg = house.provider.call_in(peer)
            await settle()
            assert leg.ended == END_REASONS["403/notAllowed"]
        await house.give("dnd.set", on=True)
        leg = house.provider.call_in(OPERATOR)
        await settle()
        assert leg.ended == END_REASONS["480/doNotDisturb"]
        assert house.posted("call.missed")
        assert house.call["state"] == "None"
    async with House(tmp_path, allow_unknown=True) as house:
        leg = house.provider.call_in(stranger)
        await settle()
        assert leg.ended is None
        assert house.call["state"] == "Incoming"


@virtual_time
async def test_do_not_disturb_by_schedule_and_over_a_restart(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS], dnd=("Mon 11:00-13:00",)) as house:
        leg = house.provider.call_in(OPERATOR)
        await settle()
        assert leg.ended == END_REASONS["480/doNotDisturb"]
        await house.give("dnd.set", on=True)
    async with House(tmp_path, entries=[OPERATORS], records=house.records) as again:
        assert again.bulletin.document("device")["doNotDisturb"] is True


@virtual_time
async def test_the_schedule_is_told_when_it_begins_and_ends(tmp_path: Path) -> None:
    async with House(tmp_path, dnd=("Mon 12:30-13:00",)) as house:
        for later, active in ((29, False), (30, True), (59, True), (60, False)):
            house.now = MONDAY_NOON + timedelta(minutes=later)
            await asyncio.sleep(60)
            assert house.bulletin.document("device")["doNotDisturbNow"] is active


@virtual_time
async def test_the_second_caller_hears_busy_and_the_first_call_goes_on(tmp_path: Path) -> None:
    async with House(tmp_path, entries=[OPERATORS]) as house:
        await connected(house)
        second = house.provider.call_in(OPERATOR, "call-2")
        await settle()
        assert second.ended == END_REASONS["486/busy"]
        assert house.call["state"] == "Connected"
        with pytest.raises(Refused, match="a call already"):
            await house.give("call.dial", to="operator:desk")


@virtual_time
async def test_auto_answer_only_for_proven_callers_and_never_without_a_tone(tmp_path: Path) -> None:
    entry = Entry("Desk", ("operator:desk",), auto_answer=True)
    async with House(tmp_path, entries=[entry], auto_answer_delay_s=2.0) as house:
        leg = house.provider.call_in(OPERATOR)
        await asyncio.sleep(1.9)
        assert leg.accepted is None
        assert Tone.AUTO_ANSWER in house.studio.tones
        await asyncio.sleep(0.2)
        assert leg.accepted is not None
        assert house.call["isAutoAnswered"]
    async with House(tmp_path, entries=[entry]) as house:
        leg = house.provider.call_in(Peer("desk", "operator:desk", "claims to be the desk"))
        await asyncio.sleep(10)
        assert leg.accepted is None
