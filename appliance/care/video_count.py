"""How many pictures of others the board is asked to carry: weighed once a second, and told to who arranges them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from hw.api import Health

__all__ = ["VideoCount"]

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0


class Weighs(Protocol):
    """What it asks of the studio."""

    def weigh_pictures(self, *, throttled: bool) -> int | None:
        """The count that is right from now on, where it is another one."""


class VideoCount:
    """``limit`` is told of every other count. ``run`` serves until cancelled."""

    def __init__(self, studio: Weighs, health: Callable[[], Health], limit: Callable[[int], None]) -> None:
        self._studio = studio
        self._health = health
        self._limit = limit

    async def run(self) -> None:
        while True:
            count = self._studio.weigh_pictures(throttled=self._health().throttled is True)
            if count is not None:
                log.info("pictures of others that this board carries: %d", count)
                self._limit(count)
            await asyncio.sleep(LOOK_S)
