"""Servers are asked outside of calls: when, how often, and what is told of those that cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from appliance.media.api import IceServers
from appliance.media.server_watch import AGAIN_S, CONFIRM_S, EVERY_S, PATIENCE_S, ServerWatch
from appliance.media.servers import DOWN_S, KNOWN_S, TURN_S, Server, ServerPool
from appliance.network import Network
from tests.support.clock import virtual_time

HERE = Network(frozenset({"10.0.0.1"}))
NOWHERE = Network()


class World:
    """Servers that answer after some seconds, never (None), or refuse (an exception)."""

    def __init__(self, **answers: float | Exception | None) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.told: list[dict[str, str]] = []
        loop = asyncio.get_running_loop()
        self.pool = ServerPool(IceServers((), tuple(f"turn:{name}" for name in answers), "u", "p"), loop.time)
        self.watch = ServerWatch(self.pool, self.ask, lambda failing: self.told.append(dict(failing)))

    async def ask(self, server: Server) -> None:
        self.asked.append(server.host)
        after = self.answers[server.host]
        if isinstance(after, Exception):
            raise after
        await asyncio.sleep(1e6 if after is None else after)


@asynccontextmanager
async def watched(**answers: float | Exception | None) -> AsyncIterator[World]:
    world = World(**answers)
    task = asyncio.create_task(world.watch.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.wait([task])


@virtual_time
async def test_before_the_first_call_is_known_which_servers_live() -> None:
    async with watched(a=0.1, b=None, c=ConnectionError("it refuses the login")) as world:
        await asyncio.sleep(2 * PATIENCE_S + CONFIRM_S + 0.1)
        assert sorted(world.asked) == ["a", "b", "b", "c", "c"]
        refuses = {"turn:c:3478 (udp)": "it refuses the login"}
        assert world.told == [refuses, {"turn:b:3478 (udp)": "no answer in time", **refuses}], "told when it is known"
        assert [server.host for server in world.pool.turn] == ["a", "b", "c"]
        assert world.pool.patience(world.pool.turn) == KNOWN_S, "the dead are not waited for"


@virtual_time
async def test_where_all_are_dead_a_call_waits_for_none() -> None:
    async with watched(a=None) as world:
        assert world.pool.patience(world.pool.turn) == TURN_S
        await asyncio.sleep(2 * PATIENCE_S + CONFIRM_S + 0.1)
        for _ in range(10):
            await asyncio.sleep(60)
            assert world.pool.patience(world.pool.turn) == DOWN_S


@virtual_time
async def test_one_lost_answer_is_not_told() -> None:
    async with watched(a=TimeoutError()) as world:
        await asyncio.sleep(CONFIRM_S / 2)
        world.answers["a"] = 0.1
        await asyncio.sleep(CONFIRM_S)
        assert world.told == [{}]
        assert world.asked == ["a", "a"]


@virtual_time
async def test_a_server_that_comes_back_is_told_within_half_a_minute_and_a_living_one_is_left_in_peace() -> None:
    async with watched(a=0.1, b=OSError("unreachable")) as world:
        await asyncio.sleep(CONFIRM_S + 1)
        assert world.told == [{"turn:b:3478 (udp)": "unreachable"}]
        world.answers["b"] = 0.1
        await asyncio.sleep(AGAIN_S)
        assert world.told[-1] == {}
        world.asked.clear()
        await asyncio.sleep(EVERY_S + 1)
        assert sorted(world.asked) == ["a", "b"]


@virtual_time
async def test_a_server_that_failed_a_call_is_looked_at_at_once() -> None:
    async with watched(a=0.1) as world:
        await asyncio.sleep(1)
        world.answers["a"] = ConnectionError("refused")
        world.pool.failed(world.pool.all[0], TimeoutError())
        await asyncio.sleep(CONFIRM_S + 0.1)
        assert world.told[-1] == {"turn:a:3478 (udp)": "refused"}


@virtual_time
async def test_another_network_is_looked_at_anew_and_none_is_no_fault_of_a_server() -> None:
    async with watched(a=OSError("no route")) as world:
        await asyncio.sleep(CONFIRM_S + 1)
        world.watch.network_changed(HERE, NOWHERE)
        world.asked.clear()
        await asyncio.sleep(10 * EVERY_S)
        assert world.asked == []
        world.answers["a"] = 0.1
        world.watch.network_changed(NOWHERE, HERE)
        await asyncio.sleep(1)
        assert (world.asked, world.told[-1]) == (["a"], {})
