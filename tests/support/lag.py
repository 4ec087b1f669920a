"""How late an event loop is, against what the machine itself holds up."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Lag", "loop_lag"]

BEAT_S: Final = 0.005

_REFERENCE: Final = f"""
import select, sys, time
worst = 0.0
while True:
    due = time.monotonic() + {BEAT_S}
    if select.select([sys.stdin], [], [], {BEAT_S})[0]:
        break
    worst = max(worst, time.monotonic() - due)
print(worst)
"""


@dataclass
class Lag:
    """The latest that a beat of the loop came, and that of a process that does nothing else; known at the end."""

    loop_s: float = 0.0
    machine_s: float = 0.0


@contextlib.asynccontextmanager
async def loop_lag() -> AsyncIterator[Lag]:
    """Watch the running loop."""
    lag = Lag()
    reference = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-I", "-S", "-c", _REFERENCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    async def beat() -> None:
        while True:
            due = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            lag.loop_s = max(lag.loop_s, time.monotonic() - due)

    beating = asyncio.create_task(beat())
    try:
        yield lag
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        told, _ = await asyncio.to_thread(reference.communicate, b".")
        lag.machine_s = float(told or 0.0)
