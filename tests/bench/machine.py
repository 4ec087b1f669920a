"""What a figure stands on: the machine, its software, and whether it had anything else to do."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Final

__all__ = ["described", "facts", "noise"]

ROOM: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("aiortc", "aioice", "av", "aiohttp", "paho-mqtt", "cryptography", "playwright", "numpy")
BUSY_LIMIT: Final = 0.10
"""Share of all cores that others may use before a run: above it the figures say more about them than about us."""


def facts(look_s: float = 3.0) -> dict[str, Any]:
    """Names no host and no user: a report may be published. Looks for ``look_s`` seconds how busy the machine is."""
    busy = _busy(look_s)
    return {
        "cpu": _from(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "architecture": platform.machine(),
        "virtual": " hypervisor" in _from(Path("/proc/cpuinfo"), "flags"),
        "cores": len(os.sched_getaffinity(0)),
        "memoryMiB": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES} | _programs(),
        "commit": _output("git", "rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "scheduler": {os.SCHED_OTHER: "SCHED_OTHER", os.SCHED_FIFO: "SCHED_FIFO", os.SCHED_RR: "SCHED_RR"}.get(
            os.sched_getscheduler(0), "other") + f", nice {os.getpriority(os.PRIO_PROCESS, 0)}",
        "loadBefore": [round(value, 2) for value in os.getloadavg()],
        "busyBefore": round(busy, 3),
        "quiet": busy < BUSY_LIMIT and not os.getpriority(os.PRIO_PROCESS, 0),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def described(machine: dict[str, Any]) -> str:
    """One paragraph for readers of a table."""
    kind = "virtual machine" if machine["virtual"] else "machine"
    versions, state = machine["versions"], machine["commit"] + (" with local changes" if machine["dirty"] else "")
    kernel = ".".join(machine["kernel"].split("-")[0].split(".")[:2])
    chromium = versions.get("chromium", "no Chromium")
    memory, busy = machine["memoryMiB"] / 1024, machine["busyBefore"]
    return (f"{machine['cores']}-core {machine['architecture']} {kind} ({machine['cpu']}), {memory:.0f} GiB; "
            f"{machine['system']}, Linux {kernel}, {machine['scheduler']}, {busy:.0%} of the cores in use before the "
            f"start. Python {machine['python']}, aiortc {versions['aiortc']}, PyAV {versions['av']}, "
            f"{chromium.split(' built')[0]}. Commit {state}, {machine['started'][:10]}.")


def noise(machine: dict[str, Any]) -> str:
    """What to warn of before a run; empty on a quiet machine."""
    if machine["quiet"]:
        return ""
    return (f"this machine is not quiet: {machine['busyBefore']:.0%} of its cores are in use, load "
            f"{machine['loadBefore'][0]}, {machine['scheduler']}. Absolute figures of this run are worth little; "
            "the ratios suffer less.")


def _busy(seconds: float) -> float:
    def now() -> tuple[int, int]:
        values = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(values), values[3] + values[4]  # idle and iowait

    (total, idle), _ = now(), time.sleep(seconds)
    total_later, idle_later = now()
    return 1 - (idle_later - idle) / max(1, total_later - total)


def _from(path: Path, key: str) -> str:
    for line in path.read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return ""


def _programs() -> dict[str, str]:
    found = {}
    for name, arguments in (("chromium", ["--version"]), ("mosquitto", ["-h"])):
        if program := shutil.which(name):
            found[name] = next(iter(_output(program, *arguments).splitlines()), "").strip()
    return found


def _output(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOM, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip()
