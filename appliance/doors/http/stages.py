"""Processor time by stage: each thread of the daemon by its name, each process that it started by what it does."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["stage_cpu_s"]

LOOP: Final = "loop"
LIBRARIES: Final = "libraries"

PROCESSES: Final = (
    ("hw.sim.camera_process", "camera process"),
    ("hw.pi.camera.process", "camera process"),
    ("hw.pi.sdl", "screen process"),
    ("relay_guard", "relay guard"),
    ("mosquitto", "broker"),
)
"""What stands in a command line, and the stage it is."""

OTHERS: Final = "other processes"


def stage_cpu_s(proc: Path = Path("/proc")) -> Mapping[str, float]:
    """Seconds of processor time so far, by stage. Blocking: some milliseconds.

    Threads are stages by their name (``hw.audio``), a pool of them by its own (``asyncio_0`` is ``asyncio``), the main
    one is ``loop``; those that are none of Python's, as of lgpio or FFmpeg, are together ``libraries``. What a thread
    took is gone with it. Where the kernel tells no nanoseconds (CONFIG_SCHED_INFO), it counts in 10 ms.
    """
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    names[threading.main_thread().native_id] = LOOP
    stages: defaultdict[str, float] = defaultdict(float)
    for folder in (proc / "self" / "task").iterdir():
        stages[_pool(names.get(int(folder.name), LIBRARIES))] += _seconds(folder)
    me = os.getpid()
    for folder in proc.iterdir():
        if folder.name.isdecimal() and (stage := _child(folder, me)):
            stages[stage] += sum(map(_seconds, _tasks(folder)))
    return stages


def _pool(name: str) -> str:
    head, _, number = name.rpartition("_")
    return head if head and number.isdecimal() else name


def _tasks(process: Path) -> list[Path]:
    try:
        return list((process / "task").iterdir())
    except OSError:  # it ended meanwhile
        return []


def _child(process: Path, parent: int) -> str:
    """The stage of a process that ``parent`` started; empty for others, and for those that we may not see."""
    try:
        if int((process / "stat").read_text().rpartition(") ")[2].split()[1]) != parent:
            return ""
        line = (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    return next((stage for words, stage in PROCESSES if words in line), OTHERS)


def _seconds(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):
        pass
    try:
        row = (task / "stat").read_text().rpartition(") ")[2].split()
    except OSError:  # it ended meanwhile
        return 0.0
    return (int(row[11]) + int(row[12])) / os.sysconf("SC_CLK_TCK")
