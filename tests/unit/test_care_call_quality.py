"""The quality of a call as it goes: level, event, diagnostics, and the summary after it. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from appliance.bulletin import Bulletin
from appliance.care.call_quality import CallQuality
from appliance.care.diagnostics import Diagnostics
from appliance.care.summaries import Summaries
from appliance.errors import Refused
from appliance.vocabulary import VERB, CallState, Command, Event, Json, Origin
from tests.support.calm_call import CalmCall
from tests.support.clock import virtual_time


class Scene:
    def __init__(self) -> None:
        self.bulletin = Bulletin("boot-1")
        self.line: CalmCall | None = None
        self.began = 0.0
        self.verbosity = 1
        self.broken = False
        self.asked = 0
        self.events: list[Event] = []
        self.kept: dict[str | None, Json] = {}
        self.logs: list[tuple[str, Json]] = []
        self.given_up: list[Sequence[Json]] = []
        self.quality = CallQuality(self.bulletin, Diagnostics(self.bulletin), self._stats, self._replaced,
                                   lambda: self.verbosity)
        self.record: Json | None = None  # of the call in progress
        self.summaries = Summaries(self.quality, self._find, self._running, self._publish)

    async def _stats(self) -> Sequence[Json]:
        self.asked += 1
        if self.broken:
            raise KeyError("ssrc")
        if self.line is None:
            return []
        now = asyncio.get_running_loop().time() - self.began
        return self.line.after(now - self.line.now)

    async def _replaced(self) -> Sequence[Sequence[Json]]:
        given_up, self.given_up = self.given_up, []
        return given_up

    async def _find(self, call_id: str | None) -> Json | None:
        found = self.kept.get(call_id)
        return None if found is None else dict(found)

    def _running(self, call_id: str | None) -> Json | None:
        return self.record if self.record is not None and call_id in (None, self.record["callId"]) else None

    async def _publish(self, kind: str, document: Json) -> None:
        self.logs.append((kind, document))

    def state(self, state: CallState, call_id: str = "call-1") -> None:
        self.bulletin.set("call", {"callId": call_id, "state": state.value})

    def connect(self, call_id: str = "call-1", **line: float) -> None:
        self.began, self.line = asyncio.get_running_loop().time(), CalmCall(**line)  # type: ignore[arg-type]
        self.state(CallState.CONNECTED, call_id)

    @property
    def level(self) -> int | None:
        return self.bulletin.document("net").get("networkQualityLevel")

    def levels(self) -> list[int]:
        return [event.data["level"] for event in self.events if event.type == "net.networkQualityLevelChanged"]

    def diagnostic(self, name: str) -> int | None:
        return self.bulletin.document("diag").get(name, {}).get("value")


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    found = Scene()
    with found.bulletin.subscribed(on_event=found.events.append):
        running = asyncio.create_task(found.quality.run(), name="quality")
        try:
            yield found
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@virtual_time
async def test_without_a_call_nothing_is_asked_or_told() -> None:
    async with scene() as s:
        await asyncio.sleep(60)
        assert (s.asked, s.events, s.level, s.quality.quality) == (0, [], None, None)


@virtual_time
async def test_the_level_is_told_with_the_connection_and_with_every_change() -> None:
    async with scene() as s:
        await asyncio.sleep(1)
        s.connect()
        await asyncio.sleep(1.1)
        assert (s.level, s.levels()) == (5, [5])
        await asyncio.sleep(10)
        assert s.line is not None
        s.line.loss = 0.12
        await asyncio.sleep(5)
        assert (s.level, s.levels()) == (2, [5, 2])
        assert (s.diagnostic("networkReceiveQuality"), s.diagnostic("networkSendQuality")) == (3, 3)
        assert next(event for event in s.events if event.type.startswith("net.")).data["callId"] == "call-1"
        told = {event.data["diagnostic"]: event.data["detail"] for event in s.events if event.type == "diag.changed"}
        for name, direction in (("networkSendQuality", "send"), ("networkReceiveQuality", "receive")):
            assert told[name]["direction"] == direction
            assert told[name]["what"].startswith("loss 1") and told[name]["what"].endswith("% (bad above 10 %)")
        s.line.loss = 0.0
        await asyncio.sleep(5)
        assert s.level == 2, "one better look is not yet a better line"
        await asyncio.sleep(5)
        assert (s.level, s.levels()) == (5, [5, 2, 5])
        assert s.diagnostic("networkReceiveQuality") == 1
        assert s.bulletin.document("diag")["networkReceiveQuality"]["detail"] == {}


@virtual_time
async def test_a_defect_in_the_statistics_is_told_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with scene() as s:
        s.connect()
        s.broken = True
        await asyncio.sleep(20)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        s.broken = False
        await asyncio.sleep(6)
        assert s.level == 5


@virtual_time
async def test_the_first_second_raises_no_diagnostic() -> None:
    async with scene() as s:
        s.connect(jitter=0.05)
        await asyncio.sleep(2)
        assert s.level is not None
        assert s.diagnostic("networkReceiveQuality") is None
        await asyncio.sleep(5)
        assert s.diagnostic("networkReceiveQuality") == 2


@virtual_time
async def test_a_line_that_wavers_makes_few_events() -> None:
    async with scene() as s:
        s.connect()
        await asyncio.sleep(2)
        for _ in range(20):
            assert s.line is not None
            s.line.loss = 0.0 if s.line.loss else 0.05
            await asyncio.sleep(5)
        assert s.levels() == [5, 4]


@virtual_time
async def test_reconnecting_is_broken_at_once_and_the_level_comes_back_at_once() -> None:
    async with scene() as s:
        s.connect()
        await asyncio.sleep(7)
        s.state(CallState.RECONNECTING)
        await asyncio.sleep(0.1)
        assert (s.level, s.levels(), s.quality.quality) == (0, [5, 0], None)
        await asyncio.sleep(20)
        s.connect()
        await asyncio.sleep(1.1)
        assert (s.level, s.levels()) == (5, [5, 0, 5])
        s.state(CallState.DISCONNECTED)
        await asyncio.sleep(0.1)
        assert (s.level, s.quality.quality) == (None, None)


@pytest.mark.parametrize(("verbosity", "events", "stats"), [(0, 0, None), (1, 1, set()), (2, 1, {"audio", "video"})])
@virtual_time
async def test_verbosity_says_what_the_event_tells(verbosity: int, events: int, stats: set[str] | None) -> None:
    async with scene() as s:
        s.verbosity = verbosity
        s.connect()
        await asyncio.sleep(2)
        assert (s.level, len(s.levels())) == (5, events)
        if stats is not None:
            assert set(s.events[-1].data["stats"]) == stats


@virtual_time
async def test_the_report_before_is_of_this_call_and_old_enough() -> None:
    async with scene() as s:
        s.connect()
        await asyncio.sleep(7)
        assert s.line is not None
        now = s.line.after(0.5)
        before = s.quality.earlier(now)
        assert before[0]["timestamp"] <= now[0]["timestamp"] - 1000
        assert s.quality.earlier(now, 60) == ()
        s.state(CallState.DISCONNECTED)
        await asyncio.sleep(1)
        assert s.quality.earlier(now) == ()


@virtual_time
async def test_a_summary_is_of_the_whole_call_its_last_seconds_and_a_reconnection_included() -> None:
    async with scene() as s:
        s.connect()
        await asyncio.sleep(12)  # looks at 1, 6 and 11
        assert s.line is not None
        s.given_up = [s.line.after(1.0)]
        s.state(CallState.RECONNECTING)
        await asyncio.sleep(4)
        s.connect(ssrc=99, rtt=0.2)
        await asyncio.sleep(7)  # looks at 1 and 6
        assert s.line is not None
        s.state(CallState.DISCONNECTED)
        summary = {"callId": "call-1", "media": s.summaries.media("call-1", [s.line.after(2.0)])}
        metrics = {(row["metricName"], row["direction"], row["type"]): row for row in summary["media"]["metrics"]}
        sent = metrics["packetsSent", "send", "audio"]
        assert sent["sum"] == 50 * 12 + 50 * 8, "what the lost connection sent after the last look is in it"
        levels, scores = metrics["networkQualityLevel", "", "call"], metrics["mos", "", "call"]
        assert (levels["count"], levels["minimum"], levels["maximum"]) == (5, 5, 5), "one of each look"
        assert scores["maximum"] == pytest.approx(4.42, abs=0.01)
        assert scores["minimum"] < scores["average"] < scores["maximum"]
        trips = metrics["roundTripTime", "send", "video"]
        assert (trips["minimum"], trips["maximum"], trips["count"]) == (0.02, 0.2, 7)
        assert metrics["bitrate", "receive", "audio"]["average"] == pytest.approx(40_000, rel=0.02)
        assert metrics["bitrate", "receive", "audio"]["codec"] == "opus"
        assert summary["media"]["intervalSeconds"] == 5
        await s.summaries.tell(summary)
        assert s.logs == [("callSummary", summary)]
        assert s.summaries.media("call-1", [])["metrics"] == [], "told once"


@virtual_time
async def test_a_summary_is_found_again_in_both_dialects() -> None:
    async with scene() as s:
        s.connect()
        await asyncio.sleep(11)
        s.kept["call-1"] = s.kept[None] = {"callId": "call-1", "media": s.summaries.media("call-1", [])}
        verb = VERB["call.summary"]
        handle = s.summaries.handlers()["call.summary"]
        ours = await handle(Command("c1", verb, {}, Origin.INTERNAL))
        assert ours == s.kept["call-1"]
        theirs = await handle(Command("c2", verb, {"callId": "call-1", "dialect": "acs"}, Origin.INTERNAL))
        assert theirs is not None
        rows = {(row["MetricName"], row["MediaStreamDirection"], row["MediaStreamType"]): row
                for row in theirs["mediaStatsTimeSeries"]}
        row = rows["rttInMs", "Outbound", "Audio"]
        assert (row["Count"], row["Average"], row["MediaStreamCodec"], row["AggregationIntervalSeconds"]) == (
            2, 20.0, "opus", 5)
        assert "media" not in theirs
        with pytest.raises(Refused) as refused:
            await handle(Command("c3", verb, {"callId": "call-9"}, Origin.INTERNAL))
        assert refused.value.key == "404/notFound"


@virtual_time
async def test_during_a_call_the_summary_is_of_that_call_so_far() -> None:
    async with scene() as s:
        s.kept["call-0"] = s.kept[None] = {"callId": "call-0", "state": "Disconnected", "media": {}}
        s.connect()
        s.record = {"callId": "call-1", "state": "Connected", "endReason": None}
        assert (await s.summaries.document(None, "w3c"))["media"] == {
            "intervalSeconds": 5, "seconds": 0.0, "metrics": []}, "nothing was seen yet"
        await asyncio.sleep(12)
        running = await s.summaries.document(None, "w3c")
        assert (running["callId"], running["state"], running["media"]["seconds"]) == ("call-1", "Connected", 10)
        sent = {(row["metricName"], row["direction"], row["type"]): row["sum"] for row in running["media"]["metrics"]}
        assert sent["packetsSent", "send", "audio"] == 50 * 11
        assert await s.summaries.document("call-1", "w3c") == running, "to ask changes nothing"
        assert (await s.summaries.document("call-0", "w3c"))["callId"] == "call-0"
        assert "mediaStatsTimeSeries" in await s.summaries.document(None, "acs")
        s.record = None
        assert (await s.summaries.document(None, "w3c"))["callId"] == "call-0"
