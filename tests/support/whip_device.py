"""An appliance with nothing but media and media servers, that calls one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from appliance.media.api import IceServers
from appliance.media.studio import Studio
from appliance.providers import api
from appliance.providers.whip.provider import WhipProvider
from appliance.settings import VideoSettings, WhipSettings
from tests.support.direct_page import SeenBoard
from tests.support.media_board import HandDisplay
from tests.support.waiting import until

__all__ = ["Device", "device"]


@dataclass
class Device:
    """``dial`` makes its leg, whose facts are kept with the moment they came."""

    board: SeenBoard
    studio: Studio
    provider: WhipProvider
    leg: api.Leg | None = None
    told: list[tuple[float, api.LegEvent]] = field(default_factory=list)
    reader: asyncio.Task[None] | None = None

    async def dial(self, name: str = "studio") -> api.Leg:
        """And wait until it is connected."""
        me = api.Peer("door-1", "device:door-1", "Front door", "device", True)
        leg = await self.begin(name, me)
        await until(lambda: self.of(api.Connected) or self.of(api.Ended), "connected")
        assert not self.of(api.Ended), self.told
        return leg

    async def begin(self, name: str, me: api.Peer) -> api.Leg:
        leg = self.leg = await self.provider.dial(
            api.Target("whip", name), call_id="call-1", caller=me, media=api.MediaWanted())
        self.reader = asyncio.create_task(self._read(leg), name="test.whip")
        return leg

    async def _read(self, leg: api.Leg) -> None:
        async for event in leg.events():
            self.told.append((asyncio.get_running_loop().time(), event))

    def of(self, kind: type[api.LegEvent]) -> list[Any]:
        return [event for _, event in self.told if isinstance(event, kind)]

    def when(self, kind: type[api.LegEvent]) -> float:
        """Loop time of the first of its kind."""
        return next(at for at, event in self.told if isinstance(event, kind))

    @property
    def shows(self) -> bool:
        """There is a picture on the screen."""
        assert isinstance(self.board.display, HandDisplay)
        return any(tile.picture is not None for tile in self.board.display.tiles)

    async def sees(self) -> None:
        """Three other test pictures from now on."""
        seen: set[int] = set()

        def look() -> bool:
            if (mark := self.board.mark()) is not None:
                seen.add(mark.counter)
            return len(seen) >= 3

        await until(look, "moving pictures on the screen")

    async def hears(self, hertz: float) -> None:
        await until(lambda: abs(self.board.hears()[0] - hertz) < 6 and self.board.hears()[1] > -40,
                    f"{hertz} Hz from the loudspeaker")


@asynccontextmanager
async def device(settings: WhipSettings, hertz: float) -> AsyncIterator[Device]:
    """It hears ``hertz``, and knows the media servers of these settings."""
    loop = asyncio.get_running_loop()
    board = await loop.run_in_executor(None, SeenBoard, hertz)
    studio = Studio(board, VideoSettings(320, 180, 15, 300_000))
    await studio.open()
    provider = await asyncio.to_thread(WhipProvider, [settings], studio, ice=IceServers())
    made = Device(board, studio, provider)
    try:
        yield made
    finally:
        await provider.stop()
        if made.reader is not None:
            await asyncio.wait({made.reader}, timeout=2)
        await studio.close()
        await loop.run_in_executor(None, board.close)
