"""How far the servers of a provider are, asked outside of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from appliance.providers.endpoints import Endpoints

__all__ = ["PINGS", "Probe"]

EVERY_S: Final = 6 * 3600.0
AGAIN_S: Final = 60.0  # where one of them was not reached
BUSY_S: Final = 5.0  # until it is looked again whether a call is over
PINGS: Final = 3  # the least counts: the others waited somewhere
PATIENCE_S: Final = 3.0


class Probe:
    """``run`` serves until cancelled. ``idle``: there is no call. ``round_trip``: seconds to a server and back, the
    least of PINGS; raises OSError, or ValueError for what is no such server."""

    def __init__(
        self, endpoints: Endpoints, round_trip: Callable[[str], Awaitable[float]], *, idle: Callable[[], bool],
    ) -> None:
        self._endpoints = endpoints
        self._round_trip = round_trip
        self._idle = idle
        self._wake = asyncio.Event()

    def soon(self) -> None:
        """What was measured is of another time: the network has changed, or a call could not use a server."""
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            done = await self._look()
            pause = BUSY_S if not done else AGAIN_S if self._endpoints.failing else EVERY_S
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self) -> bool:
        """False where a call came between."""
        for url in self._endpoints.urls:
            if not self._idle():
                return False
            try:
                async with asyncio.timeout(PATIENCE_S):
                    took_s = await self._round_trip(url)
            except (OSError, ValueError) as error:
                if self._idle():  # or the call has spoiled it
                    self._endpoints.failed(url, str(error) or "no answer in time")
            else:
                self._endpoints.measured(url, took_s)
        return True
