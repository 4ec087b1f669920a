"""What a leg tells, on its way to the one who reads it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from appliance.providers import api

__all__ = ["Facts"]

FACTS: Final = 256
"""Facts waiting for the controller before data messages are thrown away. Facts of the call never are: of the others'
own state only the latest waits, and the rest come one by one with the phases of the call."""


_STATES: Final = (api.PeerMedia, api.Pictures, api.Held, api.Members, api.Moderated, api.Voices)


class Facts:
    """Facts for one consumer, in order, until Ended."""

    def __init__(self) -> None:
        self.dropped = 0
        self._items: deque[api.LegEvent] = deque()
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, event: api.LegEvent) -> None:
        if self._closed:
            return
        if isinstance(event, _STATES):  # the latest is the truth
            self._items = deque(item for item in self._items if type(item) is not type(event))
        elif len(self._items) >= FACTS and isinstance(event, api.DataReceived | api.DataSent):
            self.dropped += 1
            return
        self._closed = isinstance(event, api.Ended)
        self._items.append(event)
        self._ready.set()

    async def read(self) -> AsyncIterator[api.LegEvent]:
        while True:
            while self._items:
                event = self._items.popleft()
                yield event
                if isinstance(event, api.Ended):
                    return
            if self._closed:
                return
            self._ready.clear()
            await self._ready.wait()
