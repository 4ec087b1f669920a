"""Statistics: what is in a report, when it is published, and that no subscription is forgotten. On virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.bulletin import Bulletin
from appliance.care import sampling as module
from appliance.care.sampling import Sampling
from appliance.vocabulary import VERB, Command, Json, Origin
from hw.api import Health
from tests.support.clock import virtual_time

STREAM: Json = {"type": "inbound-rtp", "id": "in", "packetsReceived": 7}


class Scene:
    def __init__(self) -> None:
        self.bulletin = Bulletin("boot-1")
        self.call: list[Json] = []
        self.health = Health()
        self.published: list[tuple[float, Json]] = []
        self.sampling = Sampling(self.bulletin, self._stats, lambda: {"networkQualityLevel": 5}, lambda: self.health,
                                 self._publish)

    async def _stats(self) -> Sequence[Json]:
        return self.call

    async def _publish(self, document: Json) -> None:
        self.published.append((asyncio.get_running_loop().time(), document))

    async def subscribe(self, **args: int) -> None:
        await self.sampling.handlers()["stats.subscribe"](
            Command("c1", VERB["stats.subscribe"], args, Origin.INTERNAL))

    def times(self) -> list[float]:
        return [at for at, _ in self.published]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    found = Scene()
    running = asyncio.create_task(found.sampling.run(), name="sampling")
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@virtual_time
async def test_without_a_call_and_without_anybody_asking_nothing_is_published() -> None:
    async with scene() as s:
        await asyncio.sleep(60)
        assert s.published == []


@virtual_time
async def test_a_call_is_sampled_every_five_seconds() -> None:
    async with scene() as s:
        s.call = [STREAM]
        s.bulletin.set("call", {"callId": "call-1", "state": "Connected"})
        await asyncio.sleep(21)
        assert len(s.published) == 4
        document = s.published[0][1]
        assert (document["callId"], document["interval"], document["quality"]) == (
            "call-1", 5, {"networkQualityLevel": 5})
        assert [row["type"] for row in document["stats"]] == ["inbound-rtp", "x-device"]


@virtual_time
async def test_who_subscribes_gets_samples_at_once_for_a_minute_also_without_a_call() -> None:
    async with scene() as s:
        await asyncio.sleep(3)
        begun = asyncio.get_running_loop().time()
        await s.subscribe(interval=2)
        await asyncio.sleep(100)
        times = [at - begun for at in s.times()]
        assert times[0] == 2
        assert {round(b - a) for a, b in itertools.pairwise(times)} == {2}
        assert 58 <= times[-1] <= 62
        await s.subscribe()
        await asyncio.sleep(30)
        await s.subscribe()
        await asyncio.sleep(50)
        assert s.times()[-1] - begun > 175, "renewed, it goes on"
        assert s.published[-1][1]["interval"] == 1


@virtual_time
async def test_the_device_is_in_every_report_with_what_its_board_knows() -> None:
    async with scene() as s:
        (row,) = await s.sampling.report()
        assert row["type"] == "x-device"
        assert row["memFree"] > 1 << 20
        assert row["cpuLoad"] >= 0
        assert "socTemperature" not in row
        s.health, s.call = Health(temperature_c=61.5, throttled=False), [STREAM]
        first, row = await s.sampling.report()
        assert first is STREAM
        assert (row["socTemperature"], row["throttled"]) == (61.5, False)


@virtual_time
async def test_a_system_that_does_not_tell_its_memory_is_no_failure() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MEMORY", Path("/nowhere"))
        async with scene() as s:
            assert (await s.sampling.report())[0]["memFree"] is None
