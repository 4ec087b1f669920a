"""Statistics while somebody asks for them: ``stats.subscribe`` opens a stream that closes itself after a minute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from appliance.intake import Handler
from appliance.vocabulary import Command, Json

__all__ = ["Sampling"]

log = logging.getLogger(__name__)

SUBSCRIBED_S: Final = 60.0  # no forgotten firehose: who wants more asks again
IN_CALL_S: Final = 5  # seconds between samples in a call that nobody subscribed to


class Sampling:
    """Every ``publish`` gets one document ``{callId, interval, quality, stats}``. ``run`` serves until cancelled.

    ``stats`` gives the W3C dictionaries of the call, empty without one; ``quality`` the verdict of the watch.
    """

    def __init__(self, stats: Callable[[], Awaitable[Sequence[Json]]], quality: Callable[[], Json],
                 publish: Callable[[Json], Awaitable[None]]) -> None:
        self._stats = stats
        self._quality = quality
        self._publish = publish
        self._interval = IN_CALL_S
        self._until = float("-inf")
        self._renewed = asyncio.Event()

    def handlers(self) -> Mapping[str, Handler]:
        return {"stats.subscribe": self._subscribe}

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
                stats = list(await self._stats())
                if stats or subscribed:
                    await self._publish({"interval": interval, "quality": self._quality(), "stats": stats})

    async def _subscribe(self, command: Command) -> None:
        self._interval = command.args.get("interval", 1)
        self._until = asyncio.get_running_loop().time() + SUBSCRIBED_S
        self._renewed.set()
