"""What a test leaves behind: threads, child processes, file descriptors, tasks of the loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Belongings", "tasks_left"]

GRACE_S = 2.0
"""A closed transport, a joined process and a thread past its last line need a moment to be gone."""

THREADS = {
    "asyncio-waitpid-": "asyncio's child watcher (3.11): ends by itself with the child it waits for",
}
DESCRIPTORS = {
    "/dev/null": "opened once by subprocess and kept",
    "/dev/urandom": "opened once by the random generators of libraries and kept",
    "anon_inode:[io_uring]": "of the C library's own",
}


@dataclass(frozen=True)
class Belongings:
    """What this process holds at one moment."""

    threads: frozenset[threading.Thread]
    children: frozenset[int]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def now(cls) -> Belongings:
        threads = frozenset(thread for thread in threading.enumerate() if not thread.name.startswith(tuple(THREADS)))
        return cls(threads, frozenset(_children()), frozenset(_descriptors()))

    def left(self) -> list[str]:
        """Names of what is here now and was not at that moment, once the time of grace is over."""
        deadline = time.monotonic() + GRACE_S
        collected = False
        while (left := Belongings.now()._beyond(self)) and time.monotonic() < deadline:
            if not collected:
                gc.collect()
                collected = True
            time.sleep(0.01)
        return left

    def _beyond(self, before: Belongings) -> list[str]:
        known = {number for number, _ in before.descriptors}
        return [
            *(f"thread {thread.name!r}" for thread in self.threads - before.threads),
            *(f"child process {pid} ({_command(pid)})" for pid in self.children - before.children),
            # a number that was open before and now means something else was handed on by whoever owns it
            *(f"descriptor {number} ({target})" for number, target in self.descriptors if number not in known),
        ]


def tasks_left(before: set[asyncio.Task[object]]) -> list[str]:
    """Tasks of the running loop that are neither done, nor this one, nor were there before."""
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    return sorted(f"task {task.get_name()!r} in {task.get_coro()}" for task in left)


def _children() -> list[int]:
    """Direct children, from every thread that may have started one (CONFIG_PROC_CHILDREN), else by parent."""
    try:
        lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    except OSError:
        lists = []
    if lists:
        return [int(pid) for text in lists for pid in text.split()]
    import psutil

    return [child.pid for child in psutil.Process().children()]


def _descriptors() -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - twice per test: no Path objects
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except OSError:  # the listing's own
            continue
        if not target.startswith(tuple(DESCRIPTORS)):
            found.append((int(name), target))
    return found


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        name, _, state = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(") ")
    except OSError:
        return "gone"
    return f"{name}: ended, and nobody waited for it" if state.startswith("Z") else words or name
