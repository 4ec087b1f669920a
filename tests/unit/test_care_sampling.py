"""Statistics: what is in a report, when it is published, and that no lease is forgotten. On virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.bulletin import Bulletin
from appliance.care import sampling as module
from appliance.care.sampling import Sampling, SamplingPorts
from appliance.errors import Refused
from appliance.vocabulary import VERB, Command, Json, Origin
from hw.api import Health
from tests.support.calm_call import CalmCall
from tests.support.clock import virtual_time
from tests.support.reports import faults

STREAM: Json = {"type": "inbound-rtp", "id": "in", "packetsReceived": 7}


class Scene:
    def __init__(self) -> None:
        self.bulletin = Bulletin("boot-1")
        self.call: list[Json] = []
        self.line: CalmCall | None = None
        self.earlier: list[Json] = []
        self.health = Health()
        self.lag: Json = {"encoderQueue": 0}
        self.asked = 0
        self.published: list[tuple[float, Json]] = []
        self.sampling = Sampling(self.bulletin, SamplingPorts(
            self._stats, lambda _: self.earlier, lambda: {"networkQualityLevel": 5}, lambda: self.health,
            lambda: self.lag, lambda: {"videoConfiguredBitrate": 1_500_000}, self._publish))

    async def _stats(self) -> Sequence[Json]:
        self.asked += 1
        if self.line is not None:
            self.line.after(asyncio.get_running_loop().time() - self.line.now)
            return self.line.report()
        return self.call

    async def _publish(self, document: Json) -> None:
        self.published.append((asyncio.get_running_loop().time(), document))

    async def subscribe(self, sender: str = "", **args: int | str) -> None:
        await self.sampling.handlers()["stats.subscribe"](
            Command("c1", VERB["stats.subscribe"], args, Origin.INTERNAL, sender))

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
async def test_without_anybody_asking_nothing_is_sampled_in_a_call_or_not() -> None:
    async with scene() as s:
        s.call = [STREAM]
        s.bulletin.set("call", {"callId": "call-1", "state": "Connected"})
        await asyncio.sleep(600)
        assert (s.published, s.asked) == ([], 0)


@virtual_time
async def test_who_subscribes_gets_samples_at_once_for_a_minute_also_without_a_call() -> None:
    async with scene() as s:
        await asyncio.sleep(3)
        begun = asyncio.get_running_loop().time()
        await s.subscribe(interval=2)
        await asyncio.sleep(100)
        times = [at - begun for at in s.times()]
        assert times[0] == 0, "the first one at once"
        assert {round(b - a) for a, b in itertools.pairwise(times)} == {2}
        assert 58 <= times[-1] <= 62
        await s.subscribe()
        await asyncio.sleep(30)
        await s.subscribe()
        await asyncio.sleep(50)
        assert s.times()[-1] - begun > 175, "renewed, it goes on"
        assert s.published[-1][1]["interval"] == 1


@virtual_time
async def test_a_sample_tells_call_quality_streams_and_device() -> None:
    async with scene() as s:
        s.call = [STREAM]
        s.bulletin.set("call", {"callId": "call-1", "state": "Connected"})
        await s.subscribe(interval=5)
        await asyncio.sleep(4)
        ((_, document),) = s.published
        assert (document["callId"], document["interval"], document["quality"]) == (
            "call-1", 5, {"networkQualityLevel": 5})
        assert [row["type"] for row in document["stats"]] == ["inbound-rtp", "x-device"]
        assert "acs" not in document


@virtual_time
async def test_each_lease_has_its_dialect_and_the_most_eager_sets_the_pace() -> None:
    async with scene() as s:
        s.line = CalmCall()
        await s.subscribe("anna", interval=10)
        await asyncio.sleep(25)
        await s.subscribe("bert", interval=2, dialect="acs")
        await asyncio.sleep(20)
        documents = [document for _, document in s.published]
        assert "acs" not in documents[0]
        assert {"stats", "acs"} <= set(documents[-1])
        assert documents[-1]["acs"]["audio"]["send"][0]["packetsPerSecond"] == pytest.approx(50, rel=0.02)
        await asyncio.sleep(20)
        assert "stats" not in s.published[-1][1], "the first lease has ended"


@virtual_time
async def test_one_report_in_the_other_dialect_has_the_rates_since_the_look_before() -> None:
    async with scene() as s:
        s.line = CalmCall()
        s.earlier = s.line.after(2)
        await asyncio.sleep(4)
        acs = (await s.sampling.document("acs"))["acs"]
        assert acs["video"]["receive"][0]["frameRateDecoded"] == pytest.approx(30, rel=0.02)
        assert acs["video"]["receive"], "and is no look itself"
        s.bulletin.set("call", {"callId": "call-1"})
        sample = await s.sampling.document("w3c")
        assert (sample["callId"], sample["quality"]) == ("call-1", {"networkQualityLevel": 5})
        assert set(sample) == {"callId", "quality", "stats"}


@virtual_time
async def test_who_follows_gets_samples_for_as_long_as_he_does_and_mqtt_none() -> None:
    async with scene() as s:
        told: list[tuple[float, Json]] = []
        begun = asyncio.get_running_loop().time()
        with s.bulletin.subscribed(
                on_sample=lambda sample: told.append((asyncio.get_running_loop().time() - begun, sample))):
            with s.sampling.following(30, "w3c"):
                await asyncio.sleep(100)
            await asyncio.sleep(300)
            assert [round(at) for at, _ in told] == [0, 30, 60, 90]
            assert set(told[0][1]) == {"callId", "quality", "stats", "interval"}
            assert s.published == []
            await s.subscribe(interval=30)
            await asyncio.sleep(10)
            assert told[-1][1] == s.published[-1][1], "stats.subscribe tells both"


@virtual_time
async def test_renewing_more_often_than_the_interval_does_not_hold_the_samples_back() -> None:
    async with scene() as s:
        for _ in range(20):
            await s.subscribe(interval=10)
            await asyncio.sleep(3)
        assert len(s.published) == 6


@virtual_time
async def test_a_defect_in_the_statistics_is_told_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with scene() as s:
        s.call = [{"id": "pair", "type": "candidate-pair"}]  # without its members
        await s.subscribe(interval=1, dialect="acs")
        s.earlier = [{"id": "pair", "type": "candidate-pair", "bytesSent": 0}]
        await asyncio.sleep(5)
        assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["ERROR"]
        s.call, s.earlier = [], []
        await asyncio.sleep(2)
        assert s.published, "it goes on"


@virtual_time
async def test_leases_are_limited() -> None:
    async with scene() as s:
        for number in range(module.LEASES):
            await s.subscribe(f"user-{number}")
        await s.subscribe("user-3")
        with pytest.raises(Refused) as refused:
            await s.subscribe("one-more")
        assert refused.value.key == "429/tooMany"
        await asyncio.sleep(70)
        await s.subscribe("one-more")


@virtual_time
async def test_the_device_is_in_every_report_with_what_its_board_knows() -> None:
    async with scene() as s:
        (row,) = await s.sampling.report()
        assert faults([row]) == []
        assert row["memFree"] > 1 << 20
        assert not {"socTemperature", "captureToSendLatency"} & set(row)
        s.health, s.call = Health(temperature_c=61.5, throttled=False), [STREAM]
        s.lag = {"encoderQueue": 3, "captureToSendLatency": 0.021}
        first, row = await s.sampling.report()
        assert first is STREAM
        assert faults([row]) == []
        assert (row["socTemperature"], row["throttled"], row["encoderQueue"], row["captureToSendLatency"]) == (
            61.5, False, 3, 0.021)


@virtual_time
async def test_a_system_that_does_not_tell_its_memory_is_no_failure() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MEMORY", Path("/nowhere"))
        async with scene() as s:
            assert "memFree" not in (await s.sampling.report())[0]
