"""The pre-call test: what is made of what came back, and when there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.bulletin import Bulletin
from appliance.care.precall import PreCall, report_of
from appliance.errors import Refused
from appliance.providers.api import Echo, Returned
from appliance.vocabulary import END_REASONS, VERB, Command, Event, Origin
from tests.support.clock import virtual_time

WELL = Returned(250, 248, 0, 0.002, 0.03)
SEEN = Returned(900, 890, 0, 0.004, 0.03, 140)


def report(audio: Returned | None = WELL, video: Returned | None = SEEN, **changes: Any) -> dict[str, Any]:
    kinds = {kind: one for kind, one in (("audio", audio), ("video", video)) if one is not None}
    facts: dict[str, Any] = {"reached_s": 0.1, "admitted_s": 0.2, "connected_s": 0.5, "kinds": kinds, **changes}
    return report_of("janus", Echo("wss://a.example", **facts))


def item(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in told["items"] if one["item"] == name)


def test_all_is_well() -> None:
    told = report()
    assert told["result"] == "passed"
    assert {one["result"] for one in told["items"]} == {"Good"}
    assert told["mos"] > 4.2
    assert item(told, "video")["pictures"] == 140


@pytest.mark.parametrize(("back", "grade", "why"), [
    (Returned(250, 230, 12, 0.002, 0.03), "Average", "loss"),
    (Returned(250, 200, 50, 0.002, 0.03), "Bad", "loss"),
    (Returned(250, 248, 0, 0.05, 0.03), "Average", "jitter"),
    (Returned(250, 248, 0, 0.2, 0.6), "Bad", "jitter, rtt"),
    (Returned(250, 248, 0, 0.2, 0.4), "Bad", "jitter"),
    (Returned(250, 248, 0, 0.002, None), "Good", None),
])
def test_a_figure_that_fell_is_named(back: Returned, grade: str, why: str | None) -> None:
    told = report(audio=back)
    assert (item(told, "audio")["result"], item(told, "audio")["reason"]) == (grade, why)
    assert item(told, "video")["result"] == "Good"
    assert told["result"] == "passed"


def test_what_does_not_come_back_has_failed() -> None:
    told = report(audio=Returned(250, 0, 0, 0.0, None), video=Returned(900, 890, 0, 0.004, 0.03, 0))
    assert item(told, "audio")["result"] == item(told, "video")["result"] == "Failed"
    assert item(told, "audio")["packetLoss"] == 1
    assert told["result"] == "failed"
    assert told["mos"] is None


def test_what_is_not_there_is_not_tested() -> None:
    told = report(video=None)
    assert item(told, "video")["result"] == "NotTested"
    assert "no camera" in item(told, "video")["reason"]
    assert told["result"] == "passed"


@pytest.mark.parametrize(("changes", "failed"), [
    ({"reached_s": None, "admitted_s": None, "connected_s": None}, "signaling"),
    ({"admitted_s": None, "connected_s": None}, "admission"),
    ({"connected_s": None}, "mediaPath"),
])
def test_exactly_the_step_that_failed_says_why(changes: dict[str, Any], failed: str) -> None:
    told = report(kinds={}, failure=END_REASONS["401/token"], **changes)
    assert [one["item"] for one in told["items"] if one["result"] == "Failed"] == [failed]
    assert item(told, failed)["reason"] == END_REASONS["401/token"].message
    after = told["items"][[one["item"] for one in told["items"]].index(failed) + 1:]
    assert {one["result"] for one in after} == {"NotTested"}


class World:
    """A server that echoes for as long as it is asked to, and a call that may come."""

    def __init__(self, *, known: bool = True) -> None:
        self.idle = True
        self.cancelled = False
        self.events: list[Event] = []
        bulletin = Bulletin("boot")
        self._subscription = bulletin.subscribed(on_event=self.events.append)
        self._subscription.__enter__()
        self.care = PreCall(bulletin, {"janus": self} if known else {}, idle=lambda: self.idle)

    async def echo(self, seconds: float) -> Echo:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Echo("wss://a.example", 0.1, 0.2, 0.5, {"audio": WELL})

    async def run(self, **args: Any) -> Any:
        return await self.care.handlers()["precall.run"](
            Command("c1", VERB["precall.run"], args, Origin.CLI))


@virtual_time
async def test_it_lasts_as_long_as_asked_and_is_told() -> None:
    world = World()
    began = asyncio.get_running_loop().time()
    answer = await world.run(seconds=7)
    assert asyncio.get_running_loop().time() - began == pytest.approx(7, abs=0.2)
    assert answer["report"]["provider"] == "janus"
    assert [(one.type, one.data) for one in world.events] == [("precall.completed", answer["report"])]


@virtual_time
async def test_a_call_that_comes_ends_it_at_once() -> None:
    world = World()
    test = asyncio.create_task(world.run(provider="janus", seconds=30))
    await asyncio.sleep(3)
    with pytest.raises(Refused) as busy:
        await world.run()
    assert busy.value.sub_code == "busy"
    world.idle = False
    began = asyncio.get_running_loop().time()
    with pytest.raises(Refused) as refused:
        await test
    assert refused.value.sub_code == "inCall"
    assert world.cancelled
    assert asyncio.get_running_loop().time() - began < 0.5
    assert not world.events
    with pytest.raises(Refused) as refused:
        await world.run()
    assert refused.value.sub_code == "inCall"
    world.idle = True
    assert await world.run()


@virtual_time
async def test_whoever_gives_up_waiting_ends_it() -> None:
    world = World()
    test = asyncio.create_task(world.run())
    await asyncio.sleep(1)
    test.cancel()
    await asyncio.gather(test, return_exceptions=True)
    assert world.cancelled


@virtual_time
async def test_where_nothing_can_be_tried_out() -> None:
    with pytest.raises(Refused, match=r"set janus\.url") as refused:
        await World(known=False).run()
    assert (refused.value.code, refused.value.sub_code) == (501, "FeatureNotSupported")
    with pytest.raises(Refused, match="tried out: janus"):
        await World().run(provider="sip")
