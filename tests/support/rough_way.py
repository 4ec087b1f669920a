"""The way of one appliance to its Janus, signalling and media, with a bad network in it (``impair``).

    async with rough_way(server.url, seed=1) as way, device(way.url, "door") as door:
        way.change(Conditions(loss=0.05))       # both directions of all its media, from now on
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final

from tests.support.impair import Conditions, Link, Relay, relay
from tests.support.interface import ADDRESS
from tests.support.janus_between import Between

__all__ = ["RoughWay", "is_media", "rough_way"]

READY: Final = 8
"""Relays that are made beforehand: a connection of media needs one at once. Each time a room is joined takes two."""
SIGNALLING_S: Final = 0.02


def is_media(packet: bytes) -> bool:
    """RTP: neither STUN, nor DTLS, nor RTCP (RFC 7983, RFC 5761)."""
    return 127 < packet[0] < 192 and not 192 <= packet[1] <= 223


class RoughWay(Between):
    """Each handle has a relay of its own, through which its media go both ways. ``make`` makes one."""

    def __init__(self, url: str, make: Callable[[], Awaitable[Relay]]) -> None:
        super().__init__(url, delay_s=SIGNALLING_S)
        self._make = make
        self._unused: list[Relay] = []
        self._making: asyncio.Task[None] | None = None
        self._used: dict[int, Relay] = {}  # by handle, in their order
        self._conditions = Conditions()
        self.loses: Callable[[dict[str, Any]], bool] = lambda _: False
        """Which of the server's words never arrive."""
        self.on_handshake: Callable[[], None] = lambda: None
        """A packet of DTLS is about to pass."""

    async def open(self) -> None:
        await self._fill()
        await super().open()

    async def close(self) -> None:
        await super().close()
        if self._making is not None:
            await self._making

    async def _fill(self) -> None:
        while len(self._unused) < READY:
            self._unused.append(await self._make())

    def change(self, conditions: Conditions) -> None:
        """Of the media, in both directions, from now on; those of later connections too."""
        self._conditions = conditions
        for one in self._used.values():
            one.change(conditions)

    @property
    def used(self) -> Mapping[int, Relay]:
        """By handle, of the latest."""
        return self._used

    @property
    def subscriber(self) -> int:
        """The handle on which others are received now."""
        return next(one["handle_id"] for one in reversed(self.asked)
                    if one.get("body", {}).get("ptype") == "subscriber")

    @property
    def offered(self) -> dict[str, Any]:
        """What the server offered on it last."""
        return next(one for one in reversed(self.told) if one.get("sender") == self.subscriber and "jsep" in one)

    @property
    def publisher(self) -> int:
        """The handle on which the appliance sends now."""
        return next(one["handle_id"] for one in reversed(self.asked) if one.get("jsep", {}).get("type") == "offer")

    def drop(self, handle: int, which: Callable[[bytes], bool], *, sent: bool = False) -> None:
        """Of what comes by the connection of this handle, or is ``sent`` by it, for good."""
        link = self._used[handle].left_to_right if sent else self._used[handle].right_to_left
        send = link.send

        def some(now: float, packet: bytes) -> None:
            if not which(packet):
                send(now, packet)

        link.send = some  # type: ignore[method-assign]

    def _relay_of(self, handle: int) -> Relay:
        if handle not in self._used:
            self._used[handle] = self._unused.pop()
            self._used[handle].change(self._conditions)
            for link in (self._used[handle].left_to_right, self._used[handle].right_to_left):
                self._watch(link)
            if len(self._used) > READY:
                self._used.pop(next(iter(self._used))).close()  # of a stay in the room that is long over
            if self._making is None or self._making.done():
                self._making = asyncio.create_task(self._fill(), name="test.rough_way")
        return self._used[handle]

    def _watch(self, link: Link) -> None:
        send = link.send

        def look(now: float, packet: bytes) -> None:
            if 19 < packet[0] < 64:  # RFC 7983
                self.on_handshake()
            send(now, packet)

        link.send = look  # type: ignore[method-assign]

    def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        super()._asked(message)
        if "jsep" not in message:
            return message
        between = self._relay_of(message["handle_id"])
        return {**message, "jsep": {**message["jsep"], "sdp": between.from_left(message["jsep"]["sdp"])}}

    def _told(self, message: dict[str, Any]) -> dict[str, Any]:
        message = super()._told(message)
        if self.loses(message):
            return {"janus": "ack"}
        if "jsep" not in message:
            return message
        between = self._relay_of(message["sender"])
        return {**message, "jsep": {**message["jsep"], "sdp": between.from_right(message["jsep"]["sdp"])}}


@asynccontextmanager
async def rough_way(url: str, *, seed: int = 0) -> AsyncIterator[RoughWay]:
    async with AsyncExitStack() as stack:
        numbers = count(seed)

        async def make() -> Relay:
            return await stack.enter_async_context(relay(seed=next(numbers), host=ADDRESS))

        made = RoughWay(url, make)
        await made.open()
        try:
            yield made
        finally:
            await made.close()
