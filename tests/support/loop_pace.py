"""A panel on the event loop and by its clock: with virtual time it acts when it is due, and no time passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hw.api import Press

__all__ = ["LoopPace"]

LEAST_S: Final = 1e-6
"""A pause that is less than a clock of that size can tell would come to be due again and again."""


class LoopPace:
    """Implements ``hw.pace.Pace``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def now(self) -> float:
        return self._loop.time()

    def run(self, act: Callable[[], float | None], deliver: Callable[[Press], None]) -> None:
        self._act, self._deliver = act, deliver
        self.nudge()

    def nudge(self) -> None:
        self._loop.call_soon_threadsafe(self._turn)

    def tell(self, press: Press) -> bool:
        self._loop.call_soon_threadsafe(self._deliver, press)
        return True

    def stop(self) -> None:
        self._stopped = True
        self._loop.call_soon_threadsafe(self._rest)

    def _turn(self) -> None:
        self._rest()
        if not self._stopped and (pause := self._act()) is not None:
            self._timer = self._loop.call_later(max(pause, LEAST_S), self._turn)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
