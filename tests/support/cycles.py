"""Many short calls, one after the other, and what is left of them: sockets, threads, tasks and memory of the daemon."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.support.appliance import Appliance, Counts
from tests.support.broker import Broker
from tests.support.browser import chromium
from tests.support.operator_page import Operator
from tests.support.pair import connect, online

__all__ = ["device_calls", "operator_calls"]

VIDEO: Final = {"video.width": 640, "video.height": 360, "video.fps": 15, "board.screen": "640x360"}
BOOK: Final = '[[book]]\nname = "{}"\nuris = ["device:{}"]\n'
WARM_UP: Final = 20
"""Calls before anything is counted: first use fills caches, pools and arenas."""
POOL: Final = 4
"""Threads by which asyncio's own pool may still fill up (it makes one when all others are busy); each call leaking one
would be many more."""
FEW: Final = 100
GROWTH_KIB: Final = {False: 6 * 1024, True: 12 * 1024}
"""Between the first and the last third of the calls; the higher one for few of them. Measured: the allocator goes up
in steps of megabytes for some fifty calls and then stays (250 calls: +2.2 MB)."""


async def settled(door: Appliance, within_s: float = 30.0) -> Counts:
    """Its counts once two looks see the same: what a call leaves to be closed goes within seconds."""
    async with asyncio.timeout(within_s):
        counts = await door.counts()
        while True:
            await asyncio.sleep(1.0)
            now = await door.counts()
            if (now.fds, now.threads, now.tasks) == (counts.fds, counts.threads, counts.tasks):
                return now
            counts = now


async def turn_around(
        count: int, cycle: Callable[[int], Awaitable[None]], *doors: Appliance, warm_up: int = WARM_UP,
        tasks: int = 0) -> str:
    """``count`` calls after the warm-up. Nothing may be left, but for so many ``tasks`` of a call that goes on, and
    memory may not grow. Returns figures."""
    for number in range(warm_up):
        await cycle(number)
    before = [await settled(door) for door in doors]
    memory: list[list[int]] = [[] for _ in doors]
    for number in range(warm_up, warm_up + count):
        await cycle(number)
        for door, samples in zip(doors, memory, strict=True):
            samples.append(door.own_kib())
    after = [await settled(door) for door in doors]
    third = max(1, count // 3)
    words = []
    for door, old, new, samples in zip(doors, before, after, memory, strict=True):
        grown = statistics.median(samples[-third:]) - statistics.median(samples[:third])
        words.append(f"{door.device}: fds {old.fds} -> {new.fds}, threads {old.threads} -> {new.threads}, tasks "
                     f"{old.tasks} -> {new.tasks}, memory {samples[0]} -> {samples[-1]} KiB, thirds {grown:+.0f}")
        assert new.fds <= old.fds and new.tasks <= old.tasks + tasks, words
        assert new.threads <= old.threads + POOL, words
        assert grown < GROWTH_KIB[count < FEW], words
        log = (door.folder / "log").read_text()
        assert "Traceback" not in log and "defect" not in log, door.log()
    return "; ".join(words)


async def operator_calls(folder: Path, count: int) -> str:
    """Calls between the appliance and the page in a real browser. Now this side hangs up, now that; the page calls as
    often as an appliance lets a caller ring, ten times a minute."""
    page_called = -math.inf
    async with Appliance(folder / "door", settings=VIDEO) as door, chromium() as browser:
        operator = await Operator.on_duty(browser, door)

        async def cycle(number: int) -> None:
            nonlocal page_called
            if time.monotonic() - page_called > 7:
                page_called = time.monotonic()
                await operator.click("call-device")
                await door.call_is("Incoming")
                await door.give("call.answer", wait=20)
            else:
                assert (await door.give("call.dial", to="operator:*", wait=0))["result"] == "accepted"
                await operator.rings()
                await operator.answer()
            await door.call_is("Connected", within_s=20)
            await operator.connected(20)
            if number % 2:
                await operator.click("hangup")
                await door.ended("0/remote")
            else:
                await door.give("call.hangup")
                await door.ended("0/local")
            await operator.view("idle")
            await asyncio.sleep(0.3)  # ten commands a second are taken

        return await turn_around(count, cycle, door)


async def device_calls(folder: Path, count: int, *, warm_up: int, pause_s: float = 0.0) -> str:
    """Calls between two appliances over a real broker; both call, both hang up, in turn. More than twenty in all need
    a pause (ten rings a minute)."""
    broker = Broker(folder / "broker", devices=["door-1", "lobby-2"])
    await broker.start()
    door = Appliance(folder / "door", broker=broker, settings=VIDEO, tables=BOOK.format("Lobby", "lobby-2"))
    lobby = Appliance(folder / "lobby", device="lobby-2", broker=broker, settings=VIDEO,
                      tables=BOOK.format("Door", "door-1"))
    try:
        async with door, lobby:
            await asyncio.gather(online(door), online(lobby))

            async def cycle(number: int) -> None:
                caller, called, name = (door, lobby, "Lobby") if number % 2 else (lobby, door, "Door")
                await connect(caller, called, name)
                first, second = (caller, called) if number % 4 < 2 else (called, caller)
                await first.give("call.hangup")
                await asyncio.gather(first.ended("0/local"), second.ended("0/remote"))
                await asyncio.sleep(pause_s)

            return await turn_around(count, cycle, door, lobby, warm_up=warm_up)
    finally:
        await broker.stop()
