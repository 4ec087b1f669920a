"""What sessions of media have in common whose facts the test tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from appliance.media.api import SessionClosed, SessionEvent, SessionUp

__all__ = ["ToldSession"]


class ToldSession:
    """``up`` by what was told."""

    def __init__(self) -> None:
        self.up = False
        self._events: asyncio.Queue[SessionEvent] = asyncio.Queue()

    def tell(self, event: SessionEvent) -> None:
        self.up = isinstance(event, SessionUp) or (self.up and not isinstance(event, SessionClosed))
        self._events.put_nowait(event)

    async def events(self) -> AsyncIterator[SessionEvent]:
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, SessionClosed):
                return
