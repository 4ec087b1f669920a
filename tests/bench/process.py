"""Memory and processor time of processes, as the kernel tells them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Memory", "cpu_of_threads", "cpu_s", "memory"]

TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """In MiB. ``pss`` counts a page that k processes share as 1/k of a page; ``uss`` only pages that nobody shares."""

    pss: float
    uss: float
    rss: float


def memory(pid: int) -> Memory:
    rows = {key: int(rest.split()[0]) / 1024
            for key, _, rest in (line.partition(":") for line in
                                 Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])}
    return Memory(rows["Pss"], rows["Private_Clean"] + rows["Private_Dirty"], rows["Rss"])


def cpu_s(pid: int) -> float:
    """User and system time of all its threads so far, in seconds; the kernel counts in 10 ms."""
    after = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(after[11]) + int(after[12])) / TICKS


def cpu_of_threads(pid: int) -> tuple[float, float]:
    """Seconds on a processor so far of the main thread, and of all others that are still there; by the scheduler's own
    nanoseconds."""
    used = {int(thread.name): int((thread / "schedstat").read_text().split()[0]) / 1e9
            for thread in Path(f"/proc/{pid}/task").iterdir()}
    main = used.pop(pid)
    return main, sum(used.values())
