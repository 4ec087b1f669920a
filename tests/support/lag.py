"""How late an event loop is, against what the machine itself holds up, and what its process did meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Lag", "loop_lag"]

BEAT_S: Final = 0.005

TOLD_S: Final = 0.15
"""A loop that stands still for so long is told with what its thread stands in, and who has the processor."""

LOOK_S: Final = 0.05

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
    told: list[str] = field(default_factory=list)
    """Of each time that it stood still for TOLD_S."""

    def __str__(self) -> str:
        late, beside, own, every = (
            round(seconds * 1000) for seconds in (self.loop_s, self.machine_s, self.loop_cpu_s, self.all_cpu_s))
        latest = (f"loop late by {late} ms at most, that beside it by {beside} ms; in that beat its thread {own} ms "
                  f"of processor time, its process {every} ms")
        return "\n".join([latest, *self.told])


@contextlib.asynccontextmanager
async def loop_lag() -> AsyncIterator[Lag]:
    """Watch the running loop."""
    lag = Lag()
    reference = await asyncio.to_thread(_beside)
    witness = _Witness(lag)

    async def beat() -> None:
        while True:
            witness.beaten = begun = time.monotonic()
            mine, everybody = time.thread_time(), time.process_time()
            await asyncio.sleep(BEAT_S)
            late = time.monotonic() - begun - BEAT_S
            if late > lag.loop_s:
                lag.loop_s = late
                lag.loop_cpu_s, lag.all_cpu_s = time.thread_time() - mine, time.process_time() - everybody

    beating = asyncio.create_task(beat())
    witness.start()
    try:
        yield lag
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        told, _ = await asyncio.to_thread(reference.communicate, b".")
        lag.machine_s = float(told or 0.0)
        await asyncio.to_thread(witness.stop)


def _beside() -> subprocess.Popen[bytes]:
    """A loop that does nothing else, begun."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _REFERENCE], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


class _Witness(threading.Thread):
    """Looks at the thread that makes it, from beside."""

    def __init__(self, lag: Lag) -> None:
        super().__init__(name="test.witness")
        self._lag = lag
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self.beaten = time.monotonic()

    def run(self) -> None:
        before, told = _processor_times(), 0.0
        while not self._over.wait(LOOK_S):
            beaten = self.beaten
            if time.monotonic() - beaten < TOLD_S:
                before = _processor_times()
            elif beaten != told:
                told = beaten
                self._lag.told.append(self._words(before))

    def _words(self, before: Mapping[int, float]) -> str:
        """Who had how much of the processor, and where the watched thread stands, and the busiest of the others."""
        busy = {task: (used - before.get(task, 0.0)) * 1000 for task, used in _processor_times().items()}
        threads = sorted(threading.enumerate(), key=lambda one: -busy.get(one.native_id or 0, 0.0))
        words = ", ".join(f"{one.name} {busy.get(one.native_id or 0, 0.0):.0f} ms" for one in threads[:5])
        others = [one for one in threads if one.ident != self._watched and one is not self]
        return "\n".join([words, _stack(self._watched), *(f"{one.name}:\n{_stack(one.ident)}" for one in others[:1])])

    def stop(self) -> None:
        self._over.set()
        self.join()


def _stack(thread: int | None) -> str:
    frame = sys._current_frames().get(thread or 0)
    return "".join(traceback.format_stack(frame)[-5:]) if frame is not None else ""


def _processor_times() -> dict[int, float]:
    """Seconds that each thread of this process has had."""
    found = {}
    for folder in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            found[int(folder.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found
