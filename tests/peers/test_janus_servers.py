"""Several servers with the same rooms: which is chosen, and what happens when it is killed, with real Janus servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.providers import api
from appliance.vocabulary import END_REASONS
from tests.support.janus_between import between
from tests.support.room_device import Device, device, janus
from tests.support.waiting import until

pytestmark = pytest.mark.peer

LEAVE = END_REASONS["0/local"]


@asynccontextmanager
async def probing(one: Device) -> AsyncIterator[None]:
    task = asyncio.create_task(one.provider.probe.run(), name="test.probe")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def selected(one: Device) -> Any:
    return one.provider.state()["selectedEndpoint"]


async def test_a_server_is_killed_and_all_meet_again_at_the_next(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        janus(tmp_path / "a") as first, janus(tmp_path / "b") as second,
        device(first.url, "door", 440, other_urls=(second.url,)) as door,
        device(first.url, "gate", 880, other_urls=(second.url,)) as gate,
    ):
        await door.join()
        await gate.join()
        await door.sees("Gate")
        await gate.sees("Door")
        assert selected(door)["reason"] == "order"
        await first.kill()
        killed = asyncio.get_running_loop().time()
        await until(lambda: door.of(api.Recovered) and gate.of(api.Recovered), "both are at the other one", 5)
        await door.sees("Gate")
        await gate.sees("Door")
        await door.hears(880)
        assert door.when(api.Recovered) - killed < 5
        assert (selected(door)["url"], selected(door)["reason"]) == (second.url, "failover")
        assert door.leg is not None
        await door.leg.end(LEAVE)
        assert await door.ended() == "0/local"
        begun = asyncio.get_running_loop().time()
        await door.join()  # and a new call goes there at once
        await door.connected()
        assert door.when(api.Connected) - begun < 5
        assert selected(door)["url"] == second.url


async def test_one_that_says_nothing_is_passed_over(tmp_path: Path) -> None:
    """It takes connections, as a host does whose program hangs."""
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    hung = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = hung.sockets[0].getsockname()[1]
    async with hung, janus(tmp_path) as server, device(
            f"ws://127.0.0.1:{port}", "door", other_urls=(server.url,)) as door:
        begun = asyncio.get_running_loop().time()
        await door.join()
        await door.connected()
        assert door.when(api.Connected) - begun < 5
        assert selected(door)["url"] == server.url


async def test_the_nearest_is_used_and_nothing_is_probed_in_a_call(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, between(server.url, delay_s=0.15) as far,
        between(server.url, delay_s=0.005) as near, between(server.url, delay_s=0.06) as middle,
        device(far.url, "door", other_urls=(near.url, middle.url), choose="nearest") as door, probing(door),
    ):
        ways = (far, near, middle)
        await until(lambda: selected(door)["url"] == near.url and all(way.connections for way in ways), "the nearest")
        assert selected(door)["reason"] == "nearest"
        assert 0.01 <= selected(door)["roundTripTime"] < 0.12
        before = [way.connections for way in ways]
        await door.join()
        await door.connected()
        door.provider.probe.soon()
        await asyncio.sleep(0.5)
        assert [way.connections for way in ways] == [before[0], before[1] + 1, before[2]]
        await near.close()
        await until(lambda: door.of(api.Recovered), "at the next nearest", 5)
        assert selected(door)["url"] == middle.url
        assert not door.of(api.Ended)


async def test_a_pinned_server_is_kept_to_though_it_is_far(tmp_path: Path) -> None:
    async with (
        janus(tmp_path) as server, between(server.url, delay_s=0.075) as far, between(server.url) as near,
        device(far.url, "door", other_urls=(near.url,), choose="pinned") as door, probing(door),
    ):
        await until(lambda: selected(door)["roundTripTime"], "it is measured")
        await door.join()
        await door.connected()
        assert (selected(door)["url"], selected(door)["reason"]) == (far.url, "pinned")
        assert near.connections == 0
        assert door.leg is not None
        await door.leg.end(LEAVE)
        await door.ended()
        await far.close()
        await door.join()
        assert await door.ended() == "503/provider"
