"""What of a time the machine could not help with: for limits that hold however slow or busy the machine is.

A guest has one slow processor, and the machine under it has other work. What is late there either computed (a board is
faster, or has hardware for it), or was kept from running, or waited: for a timer of ours that is too long, a device, or
for nothing. The last is what a limit is about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

__all__ = ["Machine", "Stopwatch", "again_where", "free_s"]

BEAT_S: Final = 0.005
LATE_S: Final = 0.005
STILL_S: Final = 0.05
"""Who waits a second for a timer is woken late once: shorter pauses do not add up."""

PRIORITY: Final = 20
"""Above that of ``hw.audio``, so that only the machine keeps it from running."""

_BESIDE: Final = f"""
import json, os, select, time

os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param({PRIORITY}))
holes, ready = [], None
print(flush=True)
while True:
    due = time.monotonic() + {BEAT_S}
    ready = select.select([0], [], [], {BEAT_S})[0]
    now = time.monotonic()
    if now > due + {LATE_S}:
        holes.append((due, now))
    if ready:
        if not os.read(0, 1):
            break
        print(json.dumps(holes), flush=True)
        holes = []
"""


def free_s(stat: str | None = None) -> float:
    """Seconds that processors were free since the start, in steps of 10 ms; of ``stat``, the text of /proc/stat, or of
    this machine."""
    if stat is None:
        with Path("/proc/stat").open(encoding="ascii") as file:
            stat = file.readline()
    return int(stat.split(None, 5)[4]) / os.sysconf("SC_CLK_TCK")


def again_where(excused: Callable[[], bool], check: Callable[[], object]) -> None:
    """``check``, and up to four times again where it failed and that is ``excused``."""
    for attempt in range(5):
        try:
            check()
        except AssertionError:
            if attempt == 4 or not excused():
                raise
        else:
            return


class Machine:
    """Watches, from a process that does nothing else and goes before all others, when the machine stood still."""

    def __init__(self) -> None:
        self._holes: list[tuple[float, float]] = []
        self._beside = subprocess.Popen([sys.executable, "-I", "-S", "-c", _BESIDE], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=0)
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._beside.communicate(timeout=10)  # which closes its input, and so ends it

    def _answer(self) -> bytes:
        assert self._beside.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            part = self._beside.stdout.read(65_536)
            assert part, "the process beside has ended"
            line += part
        return line

    def stood_s(self, begin: float, end: float, least_s: float = LATE_S) -> float:
        """Seconds of those from ``begin`` to ``end`` (CLOCK_MONOTONIC) in which nothing ran that was due, for
        ``least_s`` on end."""
        assert self._beside.stdin is not None
        self._beside.stdin.write(b".")
        self._holes += [(due, woke) for due, woke in json.loads(self._answer())]
        return sum(max(0.0, min(woke, end) - max(due, begin)) for due, woke in self._holes if woke - due > least_s)

    def stopwatch(self) -> Stopwatch:
        """Started now."""
        return Stopwatch(self)

    def while_it_runs(self, check: Callable[[], object]) -> None:
        """``check``, and up to four times again where it failed and the machine stood still in it."""
        begins: list[float] = []

        def begun() -> None:
            begins.append(time.monotonic())
            check()

        again_where(lambda: self.stood_s(begins[-1], time.monotonic()) >= STILL_S, begun)


class Stopwatch:
    """From when it is made. What is judged is how long the processor was free, and the machine did not stand still:
    what happens later waited for so long at least."""

    def __init__(self, machine: Machine, clock: Callable[[], float] = time.monotonic) -> None:
        self._machine, self._clock = machine, clock
        self.begin = clock()
        """CLOCK_MONOTONIC."""
        self._free_s = free_s()

    @property
    def waited_s(self) -> float:
        """Until now."""
        free = free_s() - self._free_s
        return max(0.0, free - self._machine.stood_s(self.begin, self._clock(), STILL_S))

    def within(self, seconds: float, what: str) -> None:
        """Fails where ``what``, which has happened now, waited longer."""
        lasted, waited = self._clock() - self.begin, self.waited_s
        words = f"{what}: after {lasted:.2f} s, of which {waited:.2f} s with nothing to do"
        print(words)
        assert waited < seconds, f"{words}; {seconds:g} s are allowed"
