"""Statistics of the call and of the device, and their stream on ``state/quality``.

The stream flows in a call, slowly; ``stats.subscribe`` opens one, in a call or not, that closes itself after a minute.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.bulletin import Bulletin
from appliance.intake import Handler
from appliance.vocabulary import Command, Json
from hw.api import Health

__all__ = ["Sampling"]

SUBSCRIBED_S: Final = 60.0  # no forgotten firehose: who wants more asks again
IN_CALL_S: Final = 5  # seconds between samples in a call that nobody subscribed to
MEMORY: Final = Path("/proc/meminfo")


class Sampling:
    """Every ``publish`` gets one document ``{callId, interval, quality, stats}``. ``run`` serves until cancelled.

    ``stats`` gives the W3C dictionaries of the call, empty without one; ``quality`` the verdict of the watch;
    ``health`` is the board's.
    """

    def __init__(self, bulletin: Bulletin, stats: Callable[[], Awaitable[Sequence[Json]]], quality: Callable[[], Json],
                 health: Callable[[], Health], publish: Callable[[Json], Awaitable[None]]) -> None:
        self._bulletin = bulletin
        self._stats = stats
        self._quality = quality
        self._health = health
        self._publish = publish
        self._interval = IN_CALL_S
        self._until = float("-inf")
        self._renewed = asyncio.Event()

    def handlers(self) -> Mapping[str, Handler]:
        return {"stats.subscribe": self._subscribe}

    async def report(self) -> list[Json]:
        """Now: what W3C knows of the call, if there is one, and ``x-device``."""
        return [*await self._stats(), await self._device()]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            subscribed = loop.time() < self._until
            interval = self._interval if subscribed else IN_CALL_S
            self._renewed.clear()
            try:
                async with asyncio.timeout(interval):
                    await self._renewed.wait()
            except TimeoutError:
                report = await self.report()
                if len(report) > 1 or subscribed:
                    await self._publish({"callId": self._bulletin.document("call").get("callId"), "interval": interval,
                                         "quality": self._quality(), "stats": report})

    async def _subscribe(self, command: Command) -> None:
        self._interval = command.args.get("interval", 1)
        self._until = asyncio.get_running_loop().time() + SUBSCRIBED_S
        self._renewed.set()

    async def _device(self) -> Json:
        health = self._health()
        row: Json = {"type": "x-device", "id": "device", "timestamp": time.time() * 1000,
                     "cpuLoad": round(os.getloadavg()[0] / (os.cpu_count() or 1), 3),
                     "memFree": await asyncio.to_thread(_memory_free)}
        known = {"socTemperature": health.temperature_c, "throttled": health.throttled}
        return row | {name: value for name, value in known.items() if value is not None}


def _memory_free() -> int | None:
    """Bytes that programs may still take (proc_meminfo(5), MemAvailable). Blocking."""
    try:
        lines = MEMORY.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
