"""Data messages between the appliances of a room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.providers import api
from tests.support.janus import JanusServer
from tests.support.room_device import Device
from tests.support.waiting import until

__all__ = ["heard", "listening", "lose_and_find_the_server", "says"]


async def says(one: Device, channel: str, payload: str, **how: Any) -> None:
    """As soon as its data channel is open."""
    assert one.leg is not None
    deadline = asyncio.get_running_loop().time() + 5
    while True:
        try:
            await one.leg.send(channel, payload, **how)
        except Refused as refused:
            assert refused.sub_code == "noDataChannel"
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        else:
            return


def heard(one: Device, channel: str) -> list[api.DataReceived]:
    return [event for event in one.of(api.DataReceived) if event.channel == channel]


async def listening(*devices: Device) -> None:
    """Each hears each."""
    for number in range(100):
        for one in devices:
            await says(one, "here", f"{one.name} {number}")
        await asyncio.sleep(0.1)
        if all({message.payload.split()[0] for message in heard(one, "here")} >= {
                other.name for other in devices if other is not one} for one in devices):
            return
    raise AssertionError([heard(one, "here") for one in devices])


async def lose_and_find_the_server(server: JanusServer, *devices: Device) -> None:
    """It is killed and comes back: messages are refused meanwhile, and then each hears each again."""
    await server.kill()
    await until(lambda: all(one.of(api.Lost) for one in devices), "all reconnect", 3)
    for one in devices:
        assert one.leg is not None
        with pytest.raises(Refused) as refused:
            await one.leg.send("chat", "nobody hears it")
        assert refused.value.sub_code == "noDataChannel"
    await server.start()
    await until(lambda: all(one.of(api.Recovered) for one in devices), "all are back", 8)
    for one in devices:
        one.told[:] = [(at, event) for at, event in one.told if isinstance(event, api.Members)]
    await listening(*devices)
