"""One to nine received pictures of a room, decoded and shown: the engine beside headless Chromium, in the same room.

    python -m tests.bench.bench_watching [--quick] [--json FILE]      (in a network namespace: scripts/netns)

A Janus server and nine senders that pass 640x360 at 15 pictures a second through. Both watch the same senders, one
after the other at each count, and receive nothing meanwhile. The engine draws by SDL on a desktop of 1280x720 without
a graphics processor (Xvfb, llvmpipe), Chromium composes a page of the same size in software. Processor time is utime +
stime of all processes of each, in per cent of one core; memory is PSS of the same processes. Neither sends anything,
there is no sound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from playwright.async_api import Page

from tests.bench.figures import Figure, percentile, write
from tests.bench.process import cpu_s, memory
from tests.support.browser import chromium, wait_for
from tests.support.janus import JanusServer
from tests.support.room_device import H264
from tests.support.room_page import room_page

ROOM: Final = 1234
SENDERS: Final = 9
DESKTOP: Final = (1280, 720)
SETTLE_S: Final = 3.0
WINDOW_S: Final = 5.0
START_S: Final = 120.0
STYLE: Final = ("body { margin: 0; display: grid; grid-template-columns: repeat(%d, 1fr); height: 100vh }"
                " video { width: 100%%; height: 100%%; min-height: 0 }")


@dataclass(frozen=True, slots=True)
class Sample:
    """Of one window."""

    cpu: float  # % of a core
    own: float  # of that the first process: the daemon, or the browser's
    pss: float  # MiB
    rate: float  # decoded pictures a second


@dataclass(slots=True)
class Watcher:
    """One of the two: how it is told to show so many, which processes it is, and what it has decoded."""

    name: str
    show: Callable[[int], Any]
    pids: Callable[[], Any]
    decoded: Callable[[], Any]
    samples: dict[int, list[Sample]] = field(default_factory=dict)

    async def measure(self, count: int, windows: int) -> None:
        await self.show(count)
        await asyncio.sleep(SETTLE_S)
        for _ in range(windows):
            pids = await self.pids()
            before, first, began = [cpu_s(pid) for pid in pids], await self.decoded(), time.monotonic()
            await asyncio.sleep(WINDOW_S)
            taken = time.monotonic() - began
            spent = [(cpu_s(pid) - was) / taken * 100 for pid, was in zip(pids, before, strict=True)]
            seen = await self.decoded() - first
            weight = sum([memory(pid).pss for pid in pids])
            self.samples.setdefault(count, []).append(Sample(sum(spent), spent[0], weight, seen / taken))
        await self.show(0)
        print(f"{self.name}, {count}: {self.samples[count]}", file=sys.stderr)


class Child:
    """A process of ``room_end``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, command: dict[str, Any] | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        if command is not None:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(START_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the room ended; its words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def child(*words: str, environment: dict[str, str] | None = None) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.room_end", *words, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, **(environment or {})})
    try:
        made = Child(process)
        await made.ask()
        yield made
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def desktop() -> AsyncIterator[str]:
    """An X server that nobody sees."""
    read, written = os.pipe()
    size = f"{DESKTOP[0]}x{DESKTOP[1]}x24"
    server = await asyncio.create_subprocess_exec(
        "Xvfb", "-displayfd", str(written), "-screen", "0", size, pass_fds=[written], stderr=subprocess.DEVNULL)
    os.close(written)
    try:
        with os.fdopen(read) as told:
            yield f":{(await asyncio.to_thread(told.readline)).strip()}"
    finally:
        server.terminate()
        await server.wait()


def engine(process: Child) -> Watcher:
    async def show(count: int) -> None:
        await process.ask({"do": "show", "count": count})

    async def pids() -> Sequence[int]:
        found: list[int] = (await process.ask({"do": "numbers"}))["pids"]
        return found

    async def decoded() -> int:
        return int((await process.ask({"do": "numbers"}))["decoded"])

    return Watcher("engine", show, pids, decoded)


def browser_of(page: Page, pid: int, url: str) -> Watcher:
    async def show(count: int) -> None:
        if not count:
            await page.evaluate("() => exit('Watcher')")
            await page.evaluate("() => document.querySelectorAll('video').forEach((one) => one.remove())")
            return
        columns = 1 if count == 1 else 2 if count <= 4 else 3
        await page.evaluate("(style) => { document.querySelector('style')?.remove(); const made = "
                            "document.createElement('style'); made.textContent = style; document.head.append(made); }",
                            STYLE % columns)
        await page.evaluate("([url, room, most]) => enter(url, room, 'Watcher', { nothing: true, most })",
                            [url, ROOM, count])
        await wait_for(page, "(count) => [...document.querySelectorAll('video')].filter((one) => one.videoWidth)"
                             ".length === count", 30, count)

    async def pids() -> Sequence[int]:
        process = psutil.Process(pid)
        return [pid, *(one.pid for one in process.children(recursive=True))]

    async def decoded() -> int:
        return int(await page.evaluate(
            "async () => [...(await people.Watcher.stats()).values()].reduce((sum, row) => sum + "
            "(row.type === 'inbound-rtp' && row.kind === 'video' ? row.framesDecoded ?? 0 : 0), 0)"))

    return Watcher("Chromium", show, pids, decoded)


async def measured(counts: Sequence[int], windows: int) -> tuple[Watcher, Watcher]:
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as folder:
        server = JanusServer(Path(folder), {ROOM: {**H264, "publishers": 20, "bitrate": 600_000}})
        await server.start()
        try:
            async with (
                desktop() as screen, child("senders", server.url, str(ROOM), str(SENDERS)),
                child("watcher", server.url, str(ROOM), environment={"DISPLAY": screen, "WAYLAND_DISPLAY": ""}) as ours,
                room_page() as url, chromium(camera=False) as browser,
            ):
                page = await browser.open(url)
                await page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
                both = engine(ours), browser_of(page, browser.pid, server.url)
                for count in counts:
                    for one in both:
                        await one.measure(count, windows)
                return both
        finally:
            await server.stop()


def cells(ours: Watcher, theirs: Watcher) -> str:
    """A Markdown table: medians, and what one more picture costs by the first and the last row."""
    def median(one: Watcher, count: int, name: str) -> float:
        return percentile([getattr(sample, name) for sample in one.samples[count]], 0.5)

    head = ("pictures", "engine, % of a core", "of it the screen's process", "Chromium, % of a core", "ratio",
            "engine, MiB", "Chromium, MiB", "engine, decoded 1/s", "Chromium, decoded 1/s")
    rows = [(str(count), f"{median(ours, count, 'cpu'):.1f}",
             f"{median(ours, count, 'cpu') - median(ours, count, 'own'):.1f}", f"{median(theirs, count, 'cpu'):.1f}",
             f"{median(ours, count, 'cpu') / max(0.1, median(theirs, count, 'cpu')):.2f}",
             *(f"{median(one, count, 'pss'):.0f}" for one in (ours, theirs)),
             *(f"{median(one, count, 'rate'):.0f}" for one in (ours, theirs))) for count in ours.samples]
    first, last = min(ours.samples), max(ours.samples)
    if last > first:
        steps = [[(median(one, last, name) - median(one, first, name)) / (last - first) for one in (ours, theirs)]
                 for name in ("cpu", "pss", "own")]
        rows.append(("each more", f"{steps[0][0]:.1f}", f"{steps[0][0] - steps[2][0]:.1f}", f"{steps[0][1]:.1f}",
                     f"{steps[0][0] / max(0.1, steps[0][1]):.2f}", *(f"{one:.1f}" for one in steps[1]), "", ""))
    lines = [head, ("---", *("--:" for _ in head[1:])), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def figures(*watchers: Watcher) -> list[Figure]:
    return [Figure(f"{one.name}, {count} received, {what}", unit, tuple(getattr(sample, name) for sample in samples))
            for one in watchers for count, samples in one.samples.items()
            for what, unit, name in (("CPU", "% of a core", "cpu"), ("PSS", "MiB", "pss"), ("decoded", "1/s", "rate"))]


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one and nine pictures, one window each")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # the browser and the server end with it
    both = await measured((1, SENDERS) if arguments.quick else range(1, SENDERS + 1), 1 if arguments.quick else 3)
    print(cells(*both))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures(*both), {"table": cells(*both)})


if __name__ == "__main__":
    asyncio.run(main())
