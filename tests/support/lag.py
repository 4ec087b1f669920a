"""How late an event loop is, whether it was busy or waited, and what the machine itself holds up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Lag", "lateness", "loop_lag"]

BEAT_S: Final = 0.005

_REFERENCE: Final = f"""
import asyncio, os, sys

stat = os.open("/proc/stat", os.O_RDONLY)

def idle_s():
    return int(os.pread(stat, 200, 0).split(None, 5)[4]) / os.sysconf("SC_CLK_TCK")

async def main():
    loop, over, worst, free = asyncio.get_running_loop(), asyncio.Event(), 0.0, 0.0
    loop.add_reader(sys.stdin, over.set)
    print("ready", flush=True)
    while not over.is_set():
        due, idle = loop.time() + {BEAT_S}, idle_s()
        await asyncio.sleep({BEAT_S})
        late = loop.time() - due
        worst, free = max(worst, late), max(free, min(late, idle_s() - idle - {BEAT_S}))
    print(worst, free)

asyncio.run(main())
"""


@dataclass
class Lag:
    """The latest that a beat of the loop came, and that of the loop of a process that does nothing else; known at the
    end."""

    loop_s: float = 0.0
    machine_s: float = 0.0
    loop_cpu_s: float = 0.0
    """Processor time of the loop's own thread in that beat: near ``loop_s`` it computed, near 0 it waited."""
    all_cpu_s: float = 0.0
    """And of all threads of its process."""
    free_s: float = 0.0
    """The most that a processor was free while the loop was late: it waited then, and was not kept from running. Says
    nothing where there are several processors."""
    machine_free_s: float = 0.0
    """That of the process that does nothing else, which the machine under a guest wakes late."""

    def __str__(self) -> str:
        late, beside, own, every, free, free_beside = (round(seconds * 1000) for seconds in (
            self.loop_s, self.machine_s, self.loop_cpu_s, self.all_cpu_s, self.free_s, self.machine_free_s))
        return (f"loop late by {late} ms at most, that beside it by {beside} ms; in that beat its thread {own} ms "
                f"of processor time, its process {every} ms; late while a processor was free by {free} ms at most, "
                f"that beside it by {free_beside} ms")


@contextlib.asynccontextmanager
async def loop_lag() -> AsyncIterator[Lag]:
    """Watch the running loop."""
    lag = Lag()
    reference = await asyncio.to_thread(_beside)
    stat = os.open("/proc/stat", os.O_RDONLY)

    async def beat() -> None:
        while True:
            begun = time.monotonic()
            mine, everybody, idle = time.thread_time(), time.process_time(), _idle_s(stat)
            await asyncio.sleep(BEAT_S)
            late = time.monotonic() - begun - BEAT_S
            lag.free_s = max(lag.free_s, min(late, _idle_s(stat) - idle - BEAT_S))
            if late > lag.loop_s:
                lag.loop_s = late
                lag.loop_cpu_s, lag.all_cpu_s = time.thread_time() - mine, time.process_time() - everybody

    beating = asyncio.create_task(beat())
    try:
        yield lag
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        told, _ = await asyncio.to_thread(reference.communicate, b".")
        lag.machine_s, lag.machine_free_s = map(float, told.split())
        os.close(stat)


def _idle_s(stat: int) -> float:
    """Seconds that processors have been free since the start, in steps of 10 ms."""
    return int(os.pread(stat, 200, 0).split(None, 5)[4]) / os.sysconf("SC_CLK_TCK")


def _beside() -> subprocess.Popen[bytes]:
    """A loop that does nothing else, begun."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _REFERENCE], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@contextlib.asynccontextmanager
async def lateness() -> AsyncIterator[Callable[[], float]]:
    """Tells for how many seconds in all the loop was late so far: what a busy machine adds to every deadline."""
    loop, step, late = asyncio.get_running_loop(), 0.02, 0.0

    async def watch() -> None:
        nonlocal late
        while True:
            due = loop.time() + step
            await asyncio.sleep(step)
            late += max(0.0, loop.time() - due - step)

    watching = asyncio.create_task(watch())
    try:
        yield lambda: late
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
