"""Board to peer: what one session sends of a device that all sessions share."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import av

from appliance.media.rtp_send import EncodedTrack

__all__ = ["FedTrack"]


class FedTrack(EncodedTrack):
    """Encoded packets wait here until they are sent; of more than ``most`` the oldest is lost."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self._items: deque[av.Packet[Any]] = deque(maxlen=most)
        self._ready = asyncio.Event()
        self._sending = False
        self.dropped = 0

    @property
    def sending(self) -> bool:
        return self._sending

    def set_sending(self, sending: bool) -> None:
        """False: nothing at all leaves, and the device is let go; True: from now on something does."""
        if sending != self._sending:
            self._sending = sending
            self._items.clear()
            self._turned()

    def _turned(self) -> None:
        """``sending`` is another: tell whoever feeds this track."""
        raise NotImplementedError

    def _put(self, packet: av.Packet[Any]) -> None:
        self._items.append(packet)
        self._ready.set()

    async def recv(self) -> av.Packet[Any]:
        while not self._items:
            self._ready.clear()
            await self._ready.wait()
        return self._items.popleft()

    def stop(self) -> None:
        self.set_sending(False)
        super().stop()
