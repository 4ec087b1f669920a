"""Start to ready: from spawning the process to the printed address, which is printed when every door is open.

    python -m tests.bench.bench_start [--quick] [--json FILE]

The clock is the monotonic clock of this process: before the spawn, and when the line with the address is read from
the pipe. Bytecode is compiled beforehand, as it is on an installed system; the file cache is warm. With the embedded
broker, which is what ``scripts/run`` starts, and without. Two parts are measured on their own, each in a process of
its own: the bare interpreter, and the interpreter with everything imported that the daemon imports.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, table, write
from tests.support.appliance import ROOM, Appliance


async def ready(folder: Path, settings: dict[str, Any]) -> float:
    """Seconds of one start."""
    door = Appliance(folder, settings=settings)
    begun = time.monotonic()
    try:
        await door.start()
        return door.announced_at - begun
    finally:
        await door.stop(check=False)


def run_python(code: str) -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", code], cwd=ROOM, check=True)
    return time.monotonic() - begun


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    count = 3 if arguments.quick else 15
    samples: dict[str, list[float]] = {name: [] for name in ("bare", "imports", "plain", "broker")}
    run_python("import appliance.__main__")  # compiles what is not compiled yet
    for number in range(count):  # in turn, so that load of the machine hits all alike
        samples["bare"].append(run_python("pass"))
        samples["imports"].append(run_python("import appliance.__main__"))
        for name, settings in (("plain", {}), ("broker", {"mqtt.enabled": True})):
            with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as folder:
                taken = await ready(Path(folder), settings)
            samples[name].append(taken)
            print(f"start {number + 1} of {count}, {name}: {taken:.3f} s", file=sys.stderr)
    figures = [
        Figure("start to ready, embedded broker", "s", tuple(samples["broker"]), 1.5),
        Figure("start to ready, no broker", "s", tuple(samples["plain"]), 1.5),
        Figure("  of it: interpreter alone", "s", tuple(samples["bare"])),
        Figure("  of it: interpreter and imports", "s", tuple(samples["imports"])),
    ]
    print(table(figures))
    if arguments.json:
        write(arguments.json, figures, {"bytecode": "compiled", "fileCache": "warm"})


if __name__ == "__main__":
    asyncio.run(main())
