"""The watch on virtual time: facts in, diagnostics and documents out, in the times that are promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.bulletin import Bulletin
from appliance.care import watch as module
from appliance.care.diagnostics import Diagnostics
from appliance.care.watch import Watch, WatchPorts
from appliance.errors import StoreError
from appliance.vocabulary import CallState, Json
from hw.api import Health, Link
from tests.support.clock import virtual_time

FULL_LEVEL = 0.3
MEDIA: Json = {
    "audio": {"wanted": {"muted": False}, "actual": {"sending": False}, "codec": "opus", "rate": 48000,
              "missedBlocks": 3},
    "video": {"wanted": {"open": False, "bitrate": 1}, "actual": {"open": False, "bitrate": 5}, "codec": "H264",
              "pictures": 17, "stalled": 0},
    "sessions": 0, "without": {}, "optimalVideoCount": {"value": 9, "reason": "externalLimit"}}


@dataclass
class World:
    """What the watch looks at; the test changes it."""

    levels: tuple[float, float] = (0.0, 0.0)
    broker: bool | None = None
    backlog: int = 0
    store_hangs: bool = False
    speaking: list[bool] = field(default_factory=list)
    media: Json = field(default_factory=lambda: MEDIA)
    providers: Json = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    addresses: list[str] = field(default_factory=lambda: ["192.0.2.7"])
    storage: tuple[int, bool] = (1 << 30, False)
    synchronised: bool = True

    def __post_init__(self) -> None:
        self.bulletin = Bulletin("boot-1")
        self.diagnostics = Diagnostics(self.bulletin)
        self.told: list[tuple[float, str, Any]] = []
        self.began = self.now()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def ask_backlog(self) -> int:
        if self.store_hangs:
            raise StoreError("The data folder does not answer.")
        return self.backlog

    def call(self, state: CallState, call_id: str = "call-1", **more: Any) -> None:
        self.bulletin.set("call", {"callId": call_id, "state": state.value, "isMuted": False, **more})

    def edges(self, name: str) -> list[tuple[float, Any]]:
        return [(round(at - self.began, 2), value) for at, one, value in self.told if one == name]

    def document(self, name: str) -> Json:
        return self.bulletin.document(name)


class WorldClock:
    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now()

    def wall(self) -> float:
        return 1.7e9

    def synchronised(self) -> bool:
        return self._world.synchronised


@asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> AsyncIterator[World]:
    world = World(**facts)

    async def addresses() -> list[str]:
        return world.addresses

    monkeypatch.setattr(module, "addresses", addresses)
    monkeypatch.setattr(module, "_storage", lambda _folder: world.storage)
    watch = Watch(world.bulletin, world.diagnostics, WorldClock(world), Path("/nowhere"), WatchPorts(
        levels=lambda: world.levels, broker=lambda: world.broker, backlog=world.ask_backlog,
        note_speaking=world.speaking.append, media=lambda: world.media, providers=lambda: world.providers,
        health=lambda: world.health), started=0.0)
    world.watch = watch

    def tell(event: Any) -> None:
        if event.type == "diag.changed":
            world.told.append((world.now(), event.data["diagnostic"], event.data["value"]))

    with world.bulletin.subscribed(on_event=tell):
        running = asyncio.create_task(watch.run(), name="watch")
        try:
            yield world
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            world.diagnostics.close()


@virtual_time
async def test_lost_media_are_poor_at_once_and_bad_within_ten_seconds_of_the_loss() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch) as world:
            world.call(CallState.RECONNECTING)  # 3 s after the loss
            await asyncio.sleep(20)
            (poor, first), (bad, second) = world.edges("networkReconnect")
            assert (first, second) == (2, 3)
            assert poor <= 0.5
            assert 3 + bad <= 10
            world.call(CallState.CONNECTED)
            await asyncio.sleep(3)
            assert world.edges("networkReconnect")[-1][1] == 1
            world.call(CallState.RECONNECTING, "call-2")
            await asyncio.sleep(1)
            assert world.edges("networkReconnect")[-1][1] == 2, "another loss begins anew"
            world.call(CallState.DISCONNECTED, "call-2")
            await asyncio.sleep(2)
            assert world.edges("networkReconnect")[-1][1] == 1, "over is over"


@virtual_time
async def test_lost_media_without_a_network_are_bad() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch, addresses=[]) as world:
            await asyncio.sleep(1)
            assert world.diagnostics.raised("noNetwork")
            world.call(CallState.RECONNECTING)
            await asyncio.sleep(1)
            assert [value for _, value in world.edges("networkReconnect")] == [3]
            assert world.document("net") | {"online": False, "addresses": []} == world.document("net")


@virtual_time
async def test_a_network_that_goes_and_comes_is_told_within_three_seconds() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch) as world:
            await asyncio.sleep(10)
            world.addresses = []
            await asyncio.sleep(3)
            world.addresses = ["192.0.2.7"]
            await asyncio.sleep(3)
            (gone, first), (back, second) = world.edges("noNetwork")
            assert (first, second) == (True, False)
            assert gone <= 13
            assert back <= 16
            assert world.document("net")["addresses"] == ["192.0.2.7"]


@virtual_time
async def test_a_broker_that_restarts_is_no_trouble_and_one_that_stays_away_is() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch, broker=True) as world:
            await asyncio.sleep(10)
            world.broker = False
            await asyncio.sleep(4)
            world.broker = True
            await asyncio.sleep(10)
            assert world.edges("mqttDisconnected") == []
            world.broker = False
            await asyncio.sleep(10)
            assert world.diagnostics.raised("mqttDisconnected")
            assert world.document("net")["brokerConnected"] is False
            world.broker = True
            await asyncio.sleep(3)
            assert not world.diagnostics.raised("mqttDisconnected")


@virtual_time
async def test_who_speaks_into_a_muted_microphone_is_told_within_a_second() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch, levels=(FULL_LEVEL, 0.0)) as world:
            world.call(CallState.CONNECTED)
            await asyncio.sleep(5)
            world.call(CallState.CONNECTED, isMuted=True)  # in the middle of a word: the meter is 100 ms behind
            await asyncio.sleep(0.25)
            world.levels = (0.0, 0.0)
            await asyncio.sleep(3)
            assert world.edges("speakingWhileMicrophoneIsMuted") == [], "what was said before does not count"
            world.levels = (FULL_LEVEL, 0.0)
            await asyncio.sleep(1)
            assert world.diagnostics.raised("speakingWhileMicrophoneIsMuted")
            world.call(CallState.CONNECTED)
            await asyncio.sleep(0.3)
            world.levels = (0.0, 0.0)
            world.call(CallState.CONNECTED, isMuted=True)
            await asyncio.sleep(0.3)
            assert not world.diagnostics.raised("speakingWhileMicrophoneIsMuted"), "each mute begins anew"
            world.levels = (FULL_LEVEL, 0.0)
            world.call(CallState.DISCONNECTED, isMuted=True)
            await asyncio.sleep(2)
            assert not world.diagnostics.raised("speakingWhileMicrophoneIsMuted"), "without a call nobody is unheard"


@virtual_time
async def test_the_other_side_speaks_while_it_is_heard_and_a_second_longer() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch, levels=(0.0, FULL_LEVEL)) as world:
            await asyncio.sleep(1)
            assert world.speaking[-1] is False, "a tone of our own, without a call"
            world.call(CallState.CONNECTED)
            await asyncio.sleep(0.5)
            assert world.speaking[-1] is True
            world.levels = (0.0, 0.0)
            await asyncio.sleep(0.6)
            assert world.speaking[-1] is True
            await asyncio.sleep(1)
            assert world.speaking[-1] is False


@virtual_time
async def test_the_board_reports_heat_supply_and_a_full_store() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch) as world:
            world.health = Health(temperature_c=85.0, throttled=True, undervoltage=True, storage_full=True)
            await asyncio.sleep(3)
            assert set(world.diagnostics.standing()) == {"thermalThrottled", "powerUndervoltage", "storageLow"}
            assert world.document("diag")["thermalThrottled"]["detail"] == {"celsius": 85.0, "what": "85 °C"}
            told = world.document("health")["board"]
            assert (told["celsius"], told["throttled"], told["undervoltage"]) == (85, True, True)
            world.health = Health()
            await asyncio.sleep(3)
            assert world.diagnostics.standing() == []
            assert world.document("health")["board"]["throttled"] is None


@virtual_time
async def test_storage_and_clock_are_told_and_over_within_three_seconds() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch, storage=(100 << 20, False)) as world:
            await asyncio.sleep(10)
            assert world.diagnostics.standing() == []
            world.storage, world.synchronised = (63 << 20, True), False
            await asyncio.sleep(3)
            assert set(world.diagnostics.standing()) == {"storageLow", "storageReadOnly", "clockNotSynchronised"}
            world.storage, world.synchronised = (79 << 20, False), True
            await asyncio.sleep(3)
            assert world.diagnostics.standing() == ["storageLow"]  # flutters about the limit
            world.storage = 80 << 20, False
            await asyncio.sleep(3)
            assert world.diagnostics.standing() == []


@virtual_time
async def test_worn_storage_and_links_are_told_and_a_signal_that_flutters_is_not() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch) as world:
            world.health = Health(storage_wear=0.8, links=[Link("wlan0", True, dbm=-60)], supply="PoE, class 4")
            await asyncio.sleep(3)
            assert world.diagnostics.standing() == []
            assert world.document("net")["links"] == [{"name": "wlan0", "up": True, "mbps": None, "dbm": -60}]
            world.health = Health(storage_wear=0.9, links=[Link("wlan0", True, dbm=-63)])
            await asyncio.sleep(3)
            assert world.document("diag")["storageWear"]["detail"] == {"what": "90% of its life is used up"}
            assert world.document("net")["links"][0]["dbm"] == -60
            world.health = Health(links=[Link("wlan0", True, dbm=-70)])
            await asyncio.sleep(3)
            assert world.document("net")["links"][0]["dbm"] == -70
            world.health = Health(temperature_c=61.4, links=[Link("wlan0", False)])
            await asyncio.sleep(30)
            assert world.document("net")["links"] == [{"name": "wlan0", "up": False, "mbps": None, "dbm": None}]
            assert world.document("health")["board"]["celsius"] == 61


@virtual_time
async def test_health_names_what_is_raised() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch, synchronised=False, storage=(1 << 20, True), backlog=2000) as world:
            await asyncio.sleep(1)
            health = world.document("health")
            assert (health["status"], health["clock"]) == ("degraded", "unsynchronised")
            assert set(health["causes"]) == {"clockNotSynchronised", "storageLow", "storageReadOnly",
                                             "eventQueueBacklog"}
            assert health["pssBytes"] > 1 << 20
            world.synchronised, world.storage, world.backlog = True, (1 << 30, False), 0
            await asyncio.sleep(31)
            assert world.document("health")["status"] == "ok"
            world.diagnostics.flag("cameraFreeze", True)
            await asyncio.sleep(0.3)
            assert world.document("health")["causes"] == ["cameraFreeze"], "told at once, not when memory is measured"


@virtual_time
async def test_health_is_failed_when_nobody_can_talk_through_the_device() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch) as world:
            world.diagnostics.flag("noMicrophoneDevicesEnumerated", True)
            await asyncio.sleep(0.5)
            assert world.document("health")["status"] == "degraded", "somebody can still be heard here"
            world.diagnostics.flag("noSpeakerDevicesEnumerated", True)
            await asyncio.sleep(0.5)
            assert world.document("health")["status"] == "failed"
            world.diagnostics.flag("noMicrophoneDevicesEnumerated", False)
            await asyncio.sleep(0.5)
            assert world.document("health")["status"] == "degraded"
            world.bulletin.merge("device", safeMode=True)
            await asyncio.sleep(0.5)
            assert world.document("health") | {"status": "failed"} == world.document("health")
            assert "safeMode" in world.document("health")["causes"]


@virtual_time
async def test_media_and_providers_are_told_when_people_would_see_a_change() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch, providers={"direct": {"calls": 0}}) as world:
            await asyncio.sleep(0.5)
            assert world.document("provider") == {"providers": {"direct": {"calls": 0}}}
            media, revision = world.document("media"), world.bulletin.rev
            assert media["capturing"] is False
            assert "bitrate" not in media["video"]["actual"]
            assert "pictures" not in media["video"]
            world.media = {**MEDIA, "video": {**MEDIA["video"], "pictures": 99,
                                              "actual": {"open": False, "bitrate": 9}}}
            await asyncio.sleep(0.5)
            assert world.bulletin.rev == revision, "counters and rates are for the statistics"
            world.media = {**MEDIA, "audio": {**MEDIA["audio"], "actual": {"sending": True}}}
            world.providers = {"direct": {"calls": 1}}
            assert not world.diagnostics.raised("incomingVideoStalled")
            world.media["video"] = {**MEDIA["video"], "stalled": 1}
            await asyncio.sleep(0.5)
            assert world.diagnostics.raised("incomingVideoStalled")
            assert world.document("media")["capturing"] is True
            assert world.document("provider")["providers"]["direct"]["calls"] == 1


@virtual_time
async def test_a_file_of_the_system_that_is_gone_ends_no_look() -> None:
    with pytest.MonkeyPatch.context() as patch:
        async with watched(patch) as world:
            patch.setattr(module, "_pss", _gone)
            await asyncio.sleep(35)
            assert not world.document("health").get("uptimeSeconds", 0) > 10**9
            world.addresses = []
            await asyncio.sleep(3)
            assert world.diagnostics.raised("noNetwork"), "the other looks go on"


@virtual_time
async def test_a_card_that_hangs_ends_no_look_and_is_logged_once() -> None:
    with pytest.MonkeyPatch.context() as patch:
        warned: list[str] = []
        patch.setattr(module.log, "log", lambda level, text, *more: warned.append(text % more) if level > 10 else None)
        async with watched(patch, store_hangs=True) as world:
            await asyncio.sleep(95)
            assert len(warned) == 1, warned
            assert "does not answer" in warned[0]
            assert "uptimeSeconds" in world.document("health"), "what does not need the store is looked at all the same"
            world.store_hangs, world.backlog = False, 1001
            await asyncio.sleep(31)
            assert world.diagnostics.raised("eventQueueBacklog"), "the look goes on when the card does"
            world.store_hangs = True
            await asyncio.sleep(31)
            assert len(warned) == 2, "it works again in between: the next trouble is told"


def _gone() -> int | None:
    raise FileNotFoundError("/proc/self/smaps_rollup")
