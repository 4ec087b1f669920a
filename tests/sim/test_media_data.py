"""Data messages between two sessions over real SCTP, on a network that loses packets."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from appliance.errors import Refused
from appliance.media.api import DataMessage, SessionUp
from appliance.media.webrtc import LOSSY
from tests.support.impair import Conditions, relay
from tests.support.media_pair import End, pair, until

SIZES = (1, 20, 300, 1100, 9_000, 60_000)


def open_channels(end: End) -> set[str]:
    return {one.channel.label for one in end.session.channels if one.channel.readyState == "open"}


async def ready(*ends: End) -> None:
    for end in ends:
        await until(lambda end=end: open_channels(end) == {"edgecall", LOSSY}, 5, "both channels")  # type: ignore[misc]


def messages(end: End, channel: str) -> list[DataMessage]:
    return [event for event in end.told if isinstance(event, DataMessage) and event.channel == channel]


async def send(end: End, payload: str) -> None:
    """Reliably; waits while the peer does not take more."""
    while True:
        try:
            end.session.send("file", payload)
        except Refused as refused:
            assert refused.sub_code == "dataBacklog"
            await asyncio.sleep(0.01)
        else:
            return


async def test_reliable_messages_of_every_size_come_complete_and_in_order_over_loss() -> None:
    dice = random.Random(5)
    async with (
        relay(Conditions(loss=0.05, delay_s=0.005), seed=7) as between, pair(between=between) as (caller, callee),
    ):
        await callee.event(SessionUp, 10)
        await ready(caller, callee)
        sent = [f"{number}:" + "x" * dice.choice(SIZES) for number in range(200)]
        for payload in sent:
            await send(caller, payload)
        await until(lambda: len(messages(callee, "file")) == len(sent), 30, "all messages")
        came = messages(callee, "file")
        assert [message.payload for message in came] == sent
        assert not any(message.lost for message in came)
        assert between.left_to_right.counters.lost > 20


async def test_what_may_be_lost_waits_for_nothing_and_its_gaps_are_told() -> None:
    async with (
        relay(Conditions(loss=0.05, delay_s=0.005), seed=3) as between, pair(between=between) as (caller, callee),
    ):
        await callee.event(SessionUp, 10)
        await ready(caller, callee)
        late: list[float] = []
        seen = 0
        for number in range(300):
            caller.session.send("level", f"{time.monotonic()} {number}", lossy=True)
            await asyncio.sleep(0.02)
            came = messages(callee, "level")
            late += [time.monotonic() - float(message.payload.split()[0]) for message in came[seen:]]
            seen = len(came)
        came = messages(callee, "level")
        missing = 300 - len(came)
        assert 3 <= missing <= 60
        told = sum(message.lost for message in came)
        assert abs(told - missing) <= 5  # those at the end nobody can tell of, nor those that were overtaken
        late.sort()
        assert late[int(len(late) * 0.95)] < 0.2, late[-20:]


async def test_what_is_urgent_goes_where_the_rest_is_refused() -> None:
    async with pair() as (caller, callee):
        await callee.event(SessionUp, 10)
        await ready(caller)
        with pytest.raises(Refused) as refused:
            for _ in range(100):
                caller.session.send("file", "x" * 60_000)
        assert refused.value.sub_code == "dataBacklog"
        caller.session.send("alarm", "fire", urgent=True)
        with pytest.raises(Refused):
            caller.session.send("file", "x")
        await until(lambda: bool(messages(callee, "alarm")), 10, "the urgent one")
