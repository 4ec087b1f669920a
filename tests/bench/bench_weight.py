"""Memory and processor time of the daemon and of its camera process, idle and in a call with a browser.

    python -m tests.bench.bench_weight [--quick] [--json FILE]      (in a network namespace: scripts/netns)

Memory is PSS (smaps_rollup), read once a second. A page that k processes share counts 1/k, and this bench shares the
interpreter and some libraries with the daemon, as a second program in Python would. RSS, in which nothing is shared
out, bounds it from above; USS, from below, is in the JSON.
Processor time is utime + stime from /proc over windows of 10 s, in per cent of one core. The call: 1280x720 at 30
pictures a second and sound both ways; the daemon decodes the browser's picture, the camera process encodes in
software (x264), which a board with an encoder does not.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import asdict
from typing import Any

from tests.bench.figures import Figure, table, write
from tests.bench.process import cpu_s, memory
from tests.bench.scene import scene
from tests.support.appliance import Appliance

PARTS = ("daemon", "camera")


class Window:
    """Some windows of one state."""

    def __init__(self, door: Appliance) -> None:
        self._pids = dict(zip(PARTS, [door.process.pid, *door.children()], strict=True))
        self.pss: dict[str, list[float]] = {part: [] for part in self._pids}
        self.rss: dict[str, list[float]] = {part: [] for part in self._pids}
        self.cpu: dict[str, list[float]] = {part: [] for part in self._pids}
        self.last: dict[str, Any] = {}

    async def measure(self, count: int, seconds: int, label: str) -> Window:
        for number in range(count):
            begun, before = time.monotonic(), {part: cpu_s(pid) for part, pid in self._pids.items()}
            for _ in range(seconds):
                await asyncio.sleep(1)
                for part, pid in self._pids.items():
                    found = await asyncio.to_thread(memory, pid)
                    self.pss[part].append(found.pss)
                    self.rss[part].append(found.rss)
                    self.last[part] = {name: round(value, 1) for name, value in asdict(found).items()}
            taken = time.monotonic() - begun
            for part, pid in self._pids.items():
                self.cpu[part].append((cpu_s(pid) - before[part]) / taken * 100)
            print(f"{label} {number + 1} of {count}: {self.last}, CPU "
                  f"{ {part: round(values[-1], 2) for part, values in self.cpu.items()} }", file=sys.stderr)
        return self


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    count = 1 if arguments.quick else 5
    settle = 2 if arguments.quick else 10
    async with scene(hertz=880, microphone="speech", probed=False) as stage:
        await asyncio.sleep(settle)
        idle = await Window(stage.door).measure(count, 10, "idle")
        await stage.call()
        await asyncio.sleep(settle)
        busy = await Window(stage.door).measure(count, 10, "in a call")
        await stage.hang_up()
        await asyncio.sleep(settle)
        after = await Window(stage.door).measure(1, 10, "after it")
    figures = [
        Figure("daemon idle, PSS", "MiB", tuple(idle.pss["daemon"]), 100),
        Figure("daemon in a call, PSS", "MiB", tuple(busy.pss["daemon"]), 140),
        Figure("daemon idle, RSS (PSS is never above it)", "MiB", tuple(idle.rss["daemon"])),
        Figure("daemon in a call, RSS", "MiB", tuple(busy.rss["daemon"])),
        Figure("daemon after a call, PSS", "MiB", tuple(after.pss["daemon"])),
        Figure("daemon idle, CPU", "% of a core", tuple(idle.cpu["daemon"])),
        Figure("daemon in a call, CPU", "% of a core", tuple(busy.cpu["daemon"])),
        Figure("camera process idle, PSS", "MiB", tuple(idle.pss["camera"])),
        Figure("camera process in a call, PSS", "MiB", tuple(busy.pss["camera"])),
        Figure("camera process idle, CPU", "% of a core", tuple(idle.cpu["camera"])),
        Figure("camera process in a call, CPU", "% of a core", tuple(busy.cpu["camera"])),
    ]
    print(table(figures))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {
            "windowS": 10, "memoryMiB": {"idle": idle.last, "inCall": busy.last, "after": after.last}})


if __name__ == "__main__":
    asyncio.run(main())
