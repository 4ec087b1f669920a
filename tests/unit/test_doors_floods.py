"""What strangers cause: how much of it is kept for the broker, and what is told of the rest."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from appliance.bulletin import Bulletin
from appliance.doors.floods import LIMITS, QUIET_S
from appliance.doors.mqtt import MqttDoor
from appliance.intake import Intake
from appliance.link.api import Link
from appliance.vocabulary import EVENTS
from tests.support.clock import virtual_time
from tests.support.direct_parts import LoopClock


class Keeps:
    """A link that remembers what it was given to keep."""

    connected = True

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def receive(self, topic_filter: str, handler: Any) -> None: ...

    def on_connection(self, tell: Any) -> None: ...

    async def publish(self, topic: str, payload: bytes, **_: Any) -> bool:
        return True

    async def enqueue(self, topic: str, payload: bytes) -> None:
        self.kept.append(json.loads(payload))

    def of(self, event_type: str) -> list[dict[str, Any]]:
        return [one["data"] for one in self.kept if one["type"] == f"edgecall.{event_type}"]


class Scene:
    def __init__(self) -> None:
        self.bulletin, self.link = Bulletin("boot-1"), Keeps()
        self.door = MqttDoor(cast(Link, self.link), cast(Intake, None), self.bulletin, LoopClock(), device_id="door-1")

    async def __aenter__(self) -> Scene:
        self.door.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.door.stop()

    async def post(self, event_type: str, times: int, over_s: float = 0.0) -> None:
        for number in range(times):
            self.bulletin.post(event_type, number=number)
            await asyncio.sleep(over_s / times)
        await self.door.keep_events()


@virtual_time
@pytest.mark.parametrize("kind", sorted(LIMITS))
async def test_a_flood_is_cut_told_once_and_silences_nothing_else(kind: str) -> None:
    limit = LIMITS[kind]
    flood = min(limit.types)
    async with Scene() as scene:
        await scene.post(flood, round(limit.burst) * 3, over_s=60.0)
        kept = len(scene.link.of(flood))
        assert limit.burst <= kept <= limit.burst + 60 * limit.per_s + 1
        told = [{"kind": kind, "perSecond": limit.per_s, "burst": limit.burst}]
        assert scene.link.of("security.flood") == told
        for other, one in LIMITS.items():
            if other != kind:
                await scene.post(min(one.types), 1)
                assert len(scene.link.of(min(one.types))) == 1
        await scene.post("io.relay", 50)
        assert len(scene.link.of("io.relay")) == 50
        assert scene.link.of("security.flood") == told


@virtual_time
async def test_after_it_events_are_kept_again_and_the_next_flood_is_told() -> None:
    limit = LIMITS["refusals"]
    async with Scene() as scene:
        await scene.post("security.refused", round(limit.burst) + 50)
        before = len(scene.link.of("security.refused"))
        await asyncio.sleep(QUIET_S + 1)
        await scene.post("security.refused", 5)
        assert len(scene.link.of("security.refused")) == before + 5
        assert len(scene.link.of("security.flood")) == 1
        await scene.post("security.refused", round(limit.burst) + 50)
        assert len(scene.link.of("security.flood")) == 2


@virtual_time
async def test_a_day_of_knocking_keeps_to_its_rate() -> None:
    """With what the doors let through themselves: three of them, one a second each."""
    limit = LIMITS["refusals"]
    async with Scene() as scene:
        await scene.post("security.refused", 3 * 3600, over_s=3600.0)
        assert len(scene.link.of("security.refused")) <= limit.burst + 3600 * limit.per_s + 1
        assert len(scene.link.of("security.flood")) == 1


def test_limits_name_events_that_there_are() -> None:
    types = [one for limit in LIMITS.values() for one in limit.types]
    assert set(types) <= set(EVENTS)
    assert len(types) == len(set(types))
