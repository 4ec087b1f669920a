"""The life of media where little or nothing is due, on virtual time: when silence is told, and when it is none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Set
from contextlib import asynccontextmanager
from typing import Any

import pytest

from appliance.media.api import SessionEvent, SessionSilent, SessionSound
from appliance.media.life import MediaLife
from tests.support.clock import VirtualLoop, virtual_time


class Path:
    """A transport with a path. What is asked on it is answered after ``round_trip_s``, unless ``lost`` says so."""

    state = "connecting"

    def __init__(self, round_trip_s: float, lost: Callable[[], bool] = lambda: False) -> None:
        self.round_trip_s = round_trip_s
        self.lost = lost
        self.asked = 0

    def failure(self) -> str:
        return ""

    def security(self) -> Mapping[str, str]:
        return {}

    def local_addresses(self) -> Set[str]:
        return frozenset()

    async def close(self) -> None: ...


class Watching(MediaLife):
    """Only receives, and of whom nothing is due."""

    def __init__(self, path: Path) -> None:
        super().__init__("test")
        self.path = path
        self._transport: Any = path
        self._known_s: float | None = None

    def _due(self) -> bool:
        return False

    def _ask(self) -> bool:
        self.path.asked += 1
        if not self.path.lost():
            self._loop.call_later(self.path.round_trip_s, self._answered)
        return True

    def _answered(self) -> None:
        if not self.path.lost():
            self._known_s = self.path.round_trip_s
            self.on_arrival()

    def _round_trip_s(self) -> float | None:
        return self._known_s

    def _maybe_up(self) -> None:
        self._be_up()

    def _on_connected(self) -> None: ...

    def _look(self, now: float) -> None: ...

    def _release(self) -> None: ...

    async def _end_streams(self, deadline_s: float) -> None: ...


@asynccontextmanager
async def watching(
    path: Path, *, connected: bool = True,
) -> AsyncIterator[tuple[Watching, list[tuple[float, SessionEvent]]]]:
    """And what it tells, with the moment. Else its handshake is under way."""
    loop, told = asyncio.get_running_loop(), list[tuple[float, SessionEvent]]()
    life = Watching(path)

    async def listen() -> None:
        async for event in life.events():
            if isinstance(event, SessionSilent | SessionSound):
                told.append((loop.time(), event))

    listening = asyncio.create_task(listen())
    life._described()
    if connected:
        path.state = "connected"
        life.on_state()
    try:
        yield life, told
    finally:
        await life.close()
        await listening


@virtual_time
async def test_a_cut_is_told_within_three_seconds_whenever_it_comes_and_its_end_at_once() -> None:
    for moment in range(20):
        path = Path(0.04)
        async with watching(path) as (_, told):
            await asyncio.sleep(10 + moment / 19)
            cut = asyncio.get_running_loop().time()
            path.lost = lambda: True
            await asyncio.sleep(20)
            [(at, event)] = told
            assert isinstance(event, SessionSilent)
            assert 1.5 < at - cut <= 3.0
            path.lost = lambda: False
            await asyncio.sleep(0.3)
            assert isinstance(told[1][1], SessionSound)


@pytest.mark.parametrize("round_trip_s", [0.02, 0.6, 1.5])
@virtual_time
async def test_who_answers_and_says_nothing_else_is_there(round_trip_s: float) -> None:
    path = Path(round_trip_s)
    async with watching(path) as (_, told):
        await asyncio.sleep(600)
        assert not told
        assert path.asked > 100


@virtual_time
async def test_a_bad_path_is_none_that_is_cut() -> None:
    """15 of 100 packets are lost each way, for ten minutes."""
    chance = random.Random(5)
    async with watching(Path(0.1, lambda: chance.random() < 0.15)) as (_, told):
        await asyncio.sleep(600)
        assert not told


@virtual_time
async def test_a_path_that_becomes_long_at_once_is_none_that_is_cut() -> None:
    path = Path(0.04)
    async with watching(path) as (_, told):
        await asyncio.sleep(10)
        path.round_trip_s = 1.5
        await asyncio.sleep(60)
        assert not told


@virtual_time
async def test_a_machine_that_stood_still_has_heard_nothing_and_says_so_of_nobody() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    path = Path(0.04)
    async with watching(path) as (_, told):
        for _ in range(20):
            await asyncio.sleep(5.1)
            loop._jumping.now += 4.0  # nothing ran, and what came meanwhile is to be read yet
        assert not told


@virtual_time
async def test_who_is_heard_is_not_asked() -> None:
    path = Path(0.04)
    async with watching(path) as (life, _):
        for _ in range(100):
            life.on_arrival()
            await asyncio.sleep(0.5)
        assert path.asked == 0


@virtual_time
async def test_an_outage_in_the_handshake_is_told_of_and_its_end_is_not() -> None:
    """A session that is not up has nothing that could go on."""
    path = Path(0.04)
    async with watching(path, connected=False) as (_, told):
        await asyncio.sleep(5)
        assert not told, "the peer is there, and takes its time"
        cut = asyncio.get_running_loop().time()
        path.lost = lambda: True
        await asyncio.sleep(4)
        [(at, event)] = told
        assert isinstance(event, SessionSilent)
        assert 1.5 < at - cut <= 3.0
        path.lost = lambda: False
        await asyncio.sleep(4)
        assert len(told) == 1


@virtual_time
async def test_a_handshake_on_a_long_path_is_not_silent() -> None:
    async with watching(Path(1.5), connected=False) as (_, told):
        await asyncio.sleep(25)
        assert not told
