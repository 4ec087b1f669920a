"""How late an event loop is, against what the machine itself holds up, and what its thread stood in meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Lag", "loop_lag"]

BEAT_S: Final = 0.005

TOLD_S: Final = 0.15
"""A loop that stands still for so long is told with the stacks of all threads, by one that needs no interpreter."""

ARMED_S: Final = 0.05
"""That thread is made anew this often, and may be early by as much."""

STACKS: Final = 12_000
"""Bytes of them that are kept, the last."""

_REFERENCE: Final = f"""
import asyncio, sys

async def main():
    loop, over, worst = asyncio.get_running_loop(), asyncio.Event(), 0.0
    loop.add_reader(sys.stdin, over.set)
    print("ready", flush=True)
    while not over.is_set():
        due = loop.time() + {BEAT_S}
        await asyncio.sleep({BEAT_S})
        worst = max(worst, loop.time() - due)
    print(worst)

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
    stacks: str = ""
    """What they stood in when the loop was late by TOLD_S; empty where it never was."""


@contextlib.asynccontextmanager
async def loop_lag() -> AsyncIterator[Lag]:
    """Watch the running loop."""
    lag = Lag()
    reference = await asyncio.to_thread(_beside)
    file = os.memfd_create("stacks")

    async def beat() -> None:
        armed = 0.0
        while True:
            due, mine, everybody = time.monotonic(), time.thread_time(), time.process_time()
            if due - armed > ARMED_S:
                faulthandler.dump_traceback_later(TOLD_S, file=file)
                armed = due
            due += BEAT_S
            await asyncio.sleep(BEAT_S)
            late = time.monotonic() - due
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
        faulthandler.cancel_dump_traceback_later()
        told, _ = await asyncio.to_thread(reference.communicate, b".")
        lag.machine_s = float(told or 0.0)
        lag.stacks = os.pread(file, STACKS, max(0, os.fstat(file).st_size - STACKS)).decode()
        os.close(file)


def _beside() -> subprocess.Popen[bytes]:
    """A loop that does nothing else, begun."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _REFERENCE], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process
