"""A running HTTP door on a free port, with a small real Submit and a real Bulletin behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from appliance.bulletin import Bulletin
from appliance.doors.http import HttpDoor, Ports
from appliance.settings import DeviceSettings, HttpSettings, Secret, Settings, TokenSettings
from appliance.vocabulary import Answer, Command, Result
from hw.api import Kind

OPERATOR = "operator-token-0123456789"
DEVICE = "device-token-0123456789"
ADMIN = "admin-token-0123456789"

TOKENS = tuple(TokenSettings(scope, scope, Secret(token))
               for scope, token in (("operator", OPERATOR), ("device", DEVICE), ("admin", ADMIN)))


@dataclass
class Desk:
    """A Submit that carries out nothing and keeps what it was given; long verbs finish when told."""

    commands: list[Command] = field(default_factory=list)
    answer: Callable[[Command], Answer] | None = None
    finals: dict[str, asyncio.Future[Answer]] = field(default_factory=dict)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def given(self, count: int, within_s: float = 5.0) -> list[Command]:
        """The commands, as soon as there are ``count``."""
        async with asyncio.timeout(within_s):
            while len(self.commands) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.commands

    async def submit(self, command: Command) -> Answer:
        self.commands.append(command)
        self.arrived.set()
        if self.answer is not None:
            return self.answer(command)
        return Answer(command.id, Result.ACCEPTED if command.verb.long else Result.DONE)

    async def final(self, command_id: str, deadline_s: float) -> Answer | None:
        future = self.finals.setdefault(command_id, asyncio.get_running_loop().create_future())
        self.waiting.set()
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(future)
        except TimeoutError:
            return None

    def on_answer(self, tell: Callable[[Command, Answer], None]) -> None:
        raise AssertionError("the HTTP door does not ask for later answers")


@dataclass
class Clock:
    """Monotonic seconds that move when told."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Hands:
    """The hands of a board, kept still: what is lent is remembered, the loudspeaker plays when told."""

    def __init__(self) -> None:
        self.lent: list[tuple[str, bytes]] = []
        self.sink: Callable[[bytes], None] | None = None
        self.painted = 0

    faults: Sequence[str] = ()

    def press(self, button: str, held_s: float) -> None: ...
    def set_input(self, name: str, closed: bool) -> None: ...
    def fault(self, name: str, active: bool, value: float | None = None) -> None: ...
    def source(self, kind: Kind, spec: str) -> None: ...
    def plug(self, kind: Kind, plugged: bool, spec: str = "") -> None: ...

    def lend_audio(self, pcm: bytes) -> None:
        self.lent.append(("audio", pcm))

    def lend_picture(self, jpeg: bytes) -> None:
        self.lent.append(("picture", jpeg))

    def tap_speaker(self, sink: Callable[[bytes], None] | None) -> None:
        self.sink = sink

    def screen(self, width: int) -> bytes:
        self.painted += 1
        return b"\xff\xd8\xff" + bytes([width % 256, self.painted % 256])


@dataclass
class Running:
    door: HttpDoor
    bulletin: Bulletin
    desk: Desk
    clock: Clock
    http: aiohttp.ClientSession
    data_dir: Path

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.door.port}"

    def bearer(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    @asynccontextmanager
    async def browser(self, address: str | None = None) -> AsyncIterator[aiohttp.ClientSession]:
        """A client with a cookie jar that has opened a printed address."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(address or self.door.address()) as page:
                assert page.status == 200, await page.text()
            yield browser


@asynccontextmanager
async def running_door(tmp_path: Path, ports: Ports | None = None, *, wall_s: float = 1.7e9,
                       **http: object) -> AsyncIterator[Running]:
    """``wall_s``: seconds since the epoch at the start of this run."""
    wanted: dict[str, object] = {"port": 0, "tokens": TOKENS, **http}
    settings = Settings(device=DeviceSettings("lobby", "Lobby"), data_dir=tmp_path,
                        http=HttpSettings(**wanted))  # type: ignore[arg-type]
    bulletin, desk, clock = Bulletin("boot-1"), Desk(), Clock()
    door = HttpDoor(settings, desk, bulletin, ports=ports or Ports(), socket_path=tmp_path / "s", now=clock,
                    wall=lambda: wall_s + clock.seconds)
    await door.start()
    try:
        async with aiohttp.ClientSession() as client:
            yield Running(door, bulletin, desk, clock, client, tmp_path)
    finally:
        await door.stop()
