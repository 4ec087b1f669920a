"""A fault in the MQTT door's own tasks is raised to whoever watches it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from appliance.bulletin import Bulletin
from appliance.doors.mqtt import MqttDoor
from appliance.intake import Intake
from appliance.link.api import Link
from tests.support.direct_parts import LoopClock


class Breaks:
    """A link on which publishing meets a fault of ours."""

    connected = True

    def receive(self, topic_filter: str, handler: Any) -> None: ...

    def on_connection(self, tell: Any) -> None: ...

    async def publish(self, topic: str, payload: bytes, **_: Any) -> bool:
        raise ZeroDivisionError("a fault")

    async def enqueue(self, topic: str, payload: bytes) -> None: ...


def door(bulletin: Bulletin) -> MqttDoor:
    return MqttDoor(cast(Link, Breaks()), cast(Intake, None), bulletin, LoopClock(), device_id="door-1")


async def test_a_fault_in_publishing_is_raised_to_who_watches() -> None:
    bulletin = Bulletin("boot-1")
    mqtt = door(bulletin)
    mqtt.start()
    watching = asyncio.create_task(mqtt.watch())
    bulletin.merge("call", state="None")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(watching, 2)
    await mqtt.stop()


async def test_stopping_is_no_fault() -> None:
    mqtt = door(Bulletin("boot-1"))
    mqtt.start()
    watching = asyncio.create_task(mqtt.watch())
    await asyncio.sleep(0)
    await mqtt.stop()
    await asyncio.wait_for(watching, 2)
