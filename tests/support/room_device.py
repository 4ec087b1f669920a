"""Appliances with nothing but media and rooms, in the rooms of a real Janus."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from appliance.calls.stage import Stage
from appliance.clock import SystemClock
from appliance.media.api import IceServers
from appliance.media.layout import Face
from appliance.media.studio import Studio
from appliance.providers import api
from appliance.providers.janus.provider import JanusProvider
from appliance.providers.janus.token import Token
from appliance.settings import JanusSettings, VideoSettings
from hw.api import Display, Picture, Tile
from hw.sim import pattern
from hw.sim.display import SimDisplay
from tests.support.direct_page import SeenBoard
from tests.support.janus import JanusServer, Rooms
from tests.support.media_board import HandDisplay
from tests.support.waiting import until

__all__ = ["ANEW_S", "H264", "ROOM", "Device", "device", "janus", "same_as_server"]

ROOM = 1234
ANEW_S = 15.0
"""For a picture that stands: silence is noticed after 2 s and looked at every 5; then come two negotiations and a key
frame."""
H264: Mapping[str, Any] = {
    "description": "Lobby", "publishers": 12, "bitrate": 1_000_000, "audiocodec": "opus", "videocodec": "h264",
    "notify_joining": True,
}


@asynccontextmanager
async def janus(
    folder: Path, rooms: Rooms | None = None, *, secret: str = "", general: Mapping[str, Any] | None = None,
    broker: int = 0, plugins: Collection[str] = (), audio: Rooms | None = None, texts: Rooms | None = None,
) -> AsyncIterator[JanusServer]:
    server = JanusServer(folder, rooms or {ROOM: H264}, secret=secret, general=general, broker=broker, plugins=plugins,
                         audio=audio, texts=texts)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def same_as_server(
    server: JanusServer, one: Device, within_s: float = 2.0, *, room: int | str = ROOM, shares: Collection[str] = (),
) -> None:
    """The roster is the server's own list, names and all, without us, what the server sends itself, and the feeds of
    these names, which are what others share."""
    async with server.control() as control:
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            listed = {str(entry["id"]): entry.get("display", "") for entry in await control.participants(room)
                      if not entry.get("dummy")}
            told = set(listed.values())
            listed = {feed: name for feed, name in listed.items() if name not in shares}
            if told.issuperset(shares) and len(listed) == len(one.names) + 1 and (
                    one.names.items() < listed.items()):
                return
            assert asyncio.get_running_loop().time() < deadline, (listed, one.names)
            await asyncio.sleep(0.05)


@dataclass
class Device:
    """One appliance; ``join`` makes its leg, whose facts are kept with the moment they came. ``flags``: diagnostics by
    name; ``refused``: security events."""

    name: str
    board: SeenBoard
    studio: Studio
    provider: JanusProvider
    stage: Stage
    token: Token
    flags: dict[str, bool]
    refused: list[tuple[str, str]]
    media: api.MediaWanted = field(default_factory=api.MediaWanted)
    leg: api.Leg | None = None
    told: list[tuple[float, api.LegEvent]] = field(default_factory=list)
    reader: asyncio.Task[None] | None = None
    looking: asyncio.Task[None] | None = None
    read: dict[str, tuple[Picture, int | None]] = field(default_factory=dict)

    async def join(
        self, room: str = str(ROOM), *, pin: str = "", media: api.MediaWanted | None = None, identity: str = "",
        scheme: str = "room",
    ) -> api.Leg:
        me = api.Peer(identity or self.name, f"device:{self.name}", self.name.title(), "device", True)
        self.told.clear()
        self.media = replace(media or api.MediaWanted(), view={})
        leg = self.leg = await self.provider.dial(
            api.Target(scheme, room, pin), call_id=self.name, caller=me, media=self.media)
        self.stage.on_view = self._look
        self.reader = asyncio.create_task(self._read(leg), name=f"test.{self.name}")
        return leg

    async def _read(self, leg: api.Leg) -> None:
        async for event in leg.events():
            self.told.append((asyncio.get_running_loop().time(), event))
            if isinstance(event, api.Members):
                self.stage.cast([Face(one.id, one.display_name, video=one.video, content=one.content,
                                      speaking=one.speaking,
                                      muted=one.muted, away=one.away) for one in event.members])
            elif isinstance(event, api.Ended):
                self.stage.clear()

    def _look(self) -> None:
        """What the call controller does of it."""
        assert self.leg is not None
        wanted = replace(self.media, view=self.stage.view)
        self.looking = asyncio.create_task(self.leg.set_media(wanted), name=f"test.view.{self.name}")

    def of(self, kind: type[api.LegEvent]) -> list[Any]:
        return [event for _, event in self.told if isinstance(event, kind)]

    def when(self, kind: type[api.LegEvent]) -> float:
        """Loop time of the first of its kind."""
        return next(at for at, event in self.told if isinstance(event, kind))

    async def share(self, source: Path | str | None, *, device: bool = False) -> None:
        """A file, a capture device, or nothing more, as the call controller does."""
        assert self.leg is not None
        await (self.studio.unshare() if source is None else self.studio.share(str(source), device=device))
        self.media = replace(self.media, content=source is not None)
        await self.leg.set_media(replace(self.media, view=self.stage.view))

    async def stats(self) -> Sequence[dict[str, Any]]:
        return await self.leg.stats() if self.leg is not None else ()

    async def connected(self, within_s: float = 10.0) -> None:
        await until(lambda: self.of(api.Connected) or self.of(api.Ended), f"{self.name} connected", within_s)
        assert not self.of(api.Ended), self.told

    async def ended(self, within_s: float = 10.0) -> str:
        """The key of the reason it ends with."""
        await until(lambda: self.of(api.Ended), f"the end for {self.name}", within_s)
        return str(self.of(api.Ended)[0].reason.key)

    @property
    def members(self) -> dict[str, api.Member]:
        """By name, as told last."""
        lists = self.of(api.Members)
        return {one.display_name: one for one in lists[-1].members} if lists else {}

    @property
    def names(self) -> dict[str, str]:
        """By id, as told last."""
        lists = self.of(api.Members)
        return {one.id: one.display_name for one in lists[-1].members} if lists else {}

    @property
    def tiles(self) -> dict[str, Tile]:
        """What the screen shows, by label."""
        assert isinstance(self.board.display, HandDisplay)
        return {tile.label: tile for tile in self.board.display.tiles}

    def counter(self, label: str) -> int | None:
        """Of the test picture in this tile."""
        tile = self.tiles.get(label)
        if tile is None or tile.picture is None:
            return None
        picture, found = self.read.get(label, (None, None))
        if picture is not tile.picture:  # who waits looks a hundred times a second
            mark = pattern.read(tile.picture.i420, tile.picture.width, tile.picture.height)
            found = None if mark is None else mark.counter
            self.read[label] = tile.picture, found
        return found

    async def sees(self, *labels: str, within_s: float = 10.0) -> None:
        """Of each of them three other pictures from now on."""
        seen: dict[str, set[int]] = {label: set() for label in labels}

        def look() -> bool:
            for label in labels:
                if (counter := self.counter(label)) is not None:
                    seen[label].add(counter)
            return all(len(one) >= 3 for one in seen.values())

        try:
            await until(look, f"moving pictures at {self.name}", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; of {seen} in {sorted(self.tiles)}; {self.members}") from None

    async def shown(self) -> Image.Image:
        """The simulated screen, as it would be photographed."""
        assert isinstance(self.board.display, SimDisplay)
        png = await asyncio.get_running_loop().run_in_executor(None, self.board.display.screenshot)
        return Image.open(io.BytesIO(png)).convert("L")

    async def hears(self, hertz: float, within_s: float = 10.0) -> None:
        await until(lambda: abs(self.board.hears()[0] - hertz) < 6 and self.board.hears()[1] > -40,
                    f"{hertz} Hz at {self.name}", within_s)


class Known(SystemClock):
    """The computer's clock, which somebody vouches for."""

    def synchronised(self) -> bool:
        return True


@asynccontextmanager
async def device(
    url: str, name: str, hertz: float = 440.0, *, height: int = 180, screen: Callable[[], Display | None] = HandDisplay,
    camera: str = "pattern", **settings: Any,
) -> AsyncIterator[Device]:
    """``screen`` makes the screen of the board, where it is not one in the test's hand; ``camera`` is its source."""
    loop = asyncio.get_running_loop()
    board = await loop.run_in_executor(None, SeenBoard, hertz, camera)
    board.display = screen()
    studio = Studio(board, VideoSettings(height * 16 // 9, height, 15, 300_000))
    await studio.open()
    asked = JanusSettings(url=url, **settings)
    flags: dict[str, bool] = {}

    def flag(name: str, active: bool, **_: object) -> None:
        flags[name] = active

    token = Token(asked.token, Known(), kept=None, flag=flag)
    refused: list[tuple[str, str]] = []
    provider = JanusProvider(asked, studio, token, ice=IceServers(),
                             refused=lambda why, sender: refused.append((why, sender)))
    await provider.start(lambda _: None)
    made = Device(name, board, studio, provider, Stage(studio), token, flags, refused)
    try:
        yield made
    finally:
        await provider.stop()
        if made.reader is not None:
            await asyncio.wait({made.reader}, timeout=2)
        await studio.close()
        await loop.run_in_executor(None, board.close)
