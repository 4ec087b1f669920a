"""Do-not-disturb: switched by hand, over restarts too, and by the weekly times of the settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from appliance.settings.schedule import Window

__all__ = ["DoNotDisturb", "Remembered"]


class Remembered(Protocol):
    """What outlives a restart."""

    async def get(self, name: str, default: str | None = None) -> str | None: ...

    async def set(self, name: str, value: str) -> None: ...


class DoNotDisturb:
    """``changed`` is called when what holds now is another than it was told last."""

    def __init__(
        self, times: Sequence[str], remembered: Remembered, local_time: Callable[[], datetime],
        changed: Callable[[], None],
    ) -> None:
        self.on = False  # by hand
        self._remembered = remembered
        self._local_time = local_time
        self._changed = changed
        self._told = False
        self._minute: asyncio.TimerHandle | None = None
        self.configure(times)

    def configure(self, times: Sequence[str]) -> None:
        self._windows = [Window.parse(line) for line in times]

    @property
    def now(self) -> bool:
        now = self._local_time()
        return self.on or any(w.covers(now.weekday(), now.hour * 60 + now.minute) for w in self._windows)

    async def load(self) -> None:
        """Raises StoreError; then it is off by hand."""
        self.on = await self._remembered.get("dnd") == "on"

    async def switch(self, on: bool) -> None:
        self.on = on
        await self._remembered.set("dnd", "on" if on else "off")

    def follow(self) -> None:
        """At every full minute: what screen and lamps say of do-not-disturb must not lag behind what it does."""
        if self._told != self.now:
            self._told = self.now
            self._changed()
        wait = 60.0 - self._local_time().second
        self._minute = asyncio.get_running_loop().call_later(wait, self.follow)

    def stop(self) -> None:
        if self._minute is not None:
            self._minute.cancel()
