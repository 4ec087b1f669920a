"""Whether a server is there of which nothing but its connection tells, on virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager

import pytest

from appliance.providers.endpoints import Endpoints
from appliance.providers.janus.link import JanusLink
from appliance.providers.janus.pulse import Pulse
from appliance.providers.janus.transport import Channel
from appliance.vocabulary import Json
from tests.support.clock import VirtualLoop, virtual_time


class Stream:
    """The way to a server that answers, in order; what is lost of it is sent again after a round trip and 0.2 s, and
    then after twice that (RFC 6298)."""

    def __init__(self, round_trip_s: float, loss: float = 0.0) -> None:
        self.round_trip_s, self.loss = round_trip_s, loss
        self.cut = False
        self.needed = True
        self.asked: list[Json] = []
        self._chance = random.Random(7)
        self._free_at = 0.0
        self.pulse = Pulse(self._send, lambda: self.needed)

    def _send(self, message: Json) -> None:
        self.asked.append(message)
        loop = asyncio.get_running_loop()
        again, arrives = self.round_trip_s + 0.2, loop.time() + self.round_trip_s
        while self._chance.random() < 1 - (1 - self.loss) ** 2:
            arrives, again = arrives + again, 2 * again
        self._free_at = max(self._free_at, arrives)
        loop.call_at(self._free_at, self._answer, {"janus": "pong", "transaction": message["transaction"]})

    def _answer(self, message: Json) -> None:
        if not self.cut:
            assert self.pulse.heard(message), "nobody else waits for it"


@asynccontextmanager
async def feeling(stream: Stream) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(stream.pulse.stopped())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@virtual_time
async def test_a_cut_is_known_within_three_seconds() -> None:
    for moment in range(20):
        stream = Stream(0.04)
        async with feeling(stream) as stopped:
            await asyncio.sleep(10 + moment / 19)
            assert not stopped.done()
            cut = asyncio.get_running_loop().time()
            stream.cut = True
            await stopped
            assert 1.5 < asyncio.get_running_loop().time() - cut <= 3.0


@pytest.mark.parametrize(("round_trip_s", "loss"), [(0.02, 0.0), (0.6, 0.0), (1.5, 0.0), (0.1, 0.05), (0.6, 0.02)])
@virtual_time
async def test_a_slow_or_bad_way_is_none_that_is_cut(round_trip_s: float, loss: float) -> None:
    stream = Stream(round_trip_s, loss)
    async with feeling(stream) as stopped:
        await asyncio.sleep(600)
        assert not stopped.done()


@virtual_time
async def test_where_media_tell_nothing_is_asked_and_nothing_missed() -> None:
    stream = Stream(0.04)
    stream.needed, stream.cut = False, True
    async with feeling(stream) as stopped:
        await asyncio.sleep(60)
        assert not stopped.done()
        assert not stream.asked
        stream.needed = True
        began = asyncio.get_running_loop().time()
        await stopped
        assert 2.25 < asyncio.get_running_loop().time() - began <= 3.0, "what was not needed is not missed from before"


@virtual_time
async def test_words_of_the_server_are_signs_of_life_and_those_of_others() -> None:
    stream = Stream(0.04)
    async with feeling(stream):
        for transaction in ("of-another", 5, None, ["x"], {}):
            assert not stream.pulse.heard({"janus": "event", "transaction": transaction})
            await asyncio.sleep(0.5)
        assert not stream.asked


@virtual_time
async def test_a_machine_that_stood_still_blames_nobody() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    stream = Stream(0.04)
    async with feeling(stream) as stopped:
        for _ in range(20):
            await asyncio.sleep(5.1)
            loop._jumping.now += 4.0
        assert not stopped.done()


class Server:
    """A Channel to one that answers what it is asked by, until it is ``cut``."""

    def __init__(self) -> None:
        self.cut = False
        self._said: asyncio.Queue[Json] = asyncio.Queue()

    async def send(self, message: Json) -> None:
        if not self.cut:
            self._said.put_nowait({"janus": "pong", "transaction": message["transaction"]})

    async def receive(self) -> Json:
        return await self._said.get()

    def is_cut_off(self, addresses: Set[str]) -> bool:
        return False

    async def close(self) -> None:
        await asyncio.sleep(0.5)  # of a way that is cut nobody hears that we leave


@virtual_time
async def test_a_connection_that_is_alone_and_cut_is_told_of_once_and_made_again() -> None:
    loop, servers = asyncio.get_running_loop(), list[Server]()
    up, down, said = asyncio.Event(), list[tuple[float, str, bool]](), list[Json]()

    async def connect(_: str) -> Channel:
        servers.append(Server())
        return servers[-1]

    link = JanusLink(
        connect, Endpoints(["wss://rooms.example.org"], "order", monotonic=loop.time), "test", on_up=lambda _: up.set(),
        on_message=said.append, on_down=lambda words, elsewhere: down.append((loop.time(), words, elsewhere)),
        alone=lambda: True)
    for number in range(2):
        link.open()
        await up.wait()
        up.clear()
        await asyncio.sleep(60)
        assert len(down) == number
        cut, servers[-1].cut = loop.time(), True
        await asyncio.sleep(10)
        at, words, elsewhere = down[-1]
        assert len(down) == number + 1
        assert at - cut <= 3.0
        assert (words, elsewhere) == ("it does not answer", False)
    assert not said, "answers to its own questions are no messages"
    await link.close()
