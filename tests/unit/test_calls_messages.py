"""Data messages at the controller, on virtual time: who is meant, who sent it, and how many there may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import BadRequest, Refused
from appliance.providers.api import DataReceived, Member
from appliance.vocabulary import VERB, Command, Origin
from tests.support.calls import House, in_room, settle
from tests.support.clock import virtual_time

OLGA, OTTO = Member("7", "olga", "Olga"), Member("8", "otto", "Otto")


@virtual_time
async def test_a_message_is_for_all_or_for_those_who_are_named(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)
        await house.give("data.send", payload="hello")
        await house.give("data.send", payload="a", channel="chat", to=["olga", "8"], reliability="lossy",
                         priority="high")
        await house.give("data.send", payload="b", reliability="reliable", priority="normal")
        assert leg.sent == [("edgecall", "hello"), ("chat", "a"), ("edgecall", "b")]
        assert leg.sent_how == [((), False, False), (("7", "8"), True, True), ((), False, False)]
        with pytest.raises(BadRequest, match="'nobody' is nobody") as unknown:
            await house.give("data.send", payload="x", to=["olga", "nobody"])
        assert unknown.value.key == "404/notFound"
        with pytest.raises(BadRequest, match="60 KB") as large:
            await house.give("data.send", payload="ä" * 40_000)
        assert large.value.key == "413/tooLarge"
        assert len(leg.sent) == 3


@virtual_time
async def test_nobody_is_sent_a_message_before_the_answer(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        dialling = house.giving("call.dial", to="operator:desk")
        await house.provider.dialled.wait()
        with pytest.raises(Refused, match="nobody has answered"):
            await house.give("data.send", payload="hello")
        house.provider.legs[0].up()
        await dialling


@virtual_time
async def test_what_comes_is_told_with_who_sent_it(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)
        leg.peer_does(DataReceived("chat", "hello", "7"), DataReceived("chat", "?", "99", lost=2))
        await settle()
        call = house.call["callId"]
        assert house.posted("data.received") == [
            {"callId": call, "channel": "chat", "payload": "hello", "lost": 0, "participantId": "7", "rawId": "olga"},
            {"callId": call, "channel": "chat", "payload": "?", "lost": 2, "participantId": None, "rawId": None}]


@virtual_time
async def test_one_who_floods_silences_nobody_else(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)
        for _ in range(20):
            leg.peer_does(*[DataReceived("chat", "x", "7")] * 30)
            await settle()
        leg.peer_does(DataReceived("chat", "help", "8"))
        await settle()
        told = house.posted("data.received")
        assert 100 <= len(told) - 1 <= 140
        assert told[-1]["payload"] == "help"


@virtual_time
@pytest.mark.parametrize("channel", ["door", "state"])
async def test_the_channels_of_the_appliance_are_its_own(tmp_path: Path, channel: str) -> None:
    async with House(tmp_path) as house:
        leg = await in_room(house, OLGA, OTTO)
        by_hand = Command("1", VERB["data.send"], {"channel": channel, "payload": "{}"}, Origin.MQTT)
        with pytest.raises(BadRequest, match="take another label") as refused:
            await house.handlers["data.send"](by_hand)
        assert refused.value.key == "400/channel"
        assert leg.sent == []
        await house.give("data.send", channel=channel, payload="{}")  # the door's own answer
        assert leg.sent == [(channel, "{}")]


def test_the_verb_says_what_it_takes() -> None:
    verb = VERB["data.send"]
    assert verb.acts
    assert [arg.name for arg in verb.args] == ["channel", "payload", "to", "reliability", "priority"]
