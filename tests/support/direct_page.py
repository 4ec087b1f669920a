"""An appliance with nothing but media and direct calls, and a bare page: for tests of the page's half of a call."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from aiohttp import web

from appliance.clock import SystemClock
from appliance.doors.http.peer import SocketChannel
from appliance.handover import PeerIdentity
from appliance.link.api import Link
from appliance.media.api import IceServers
from appliance.media.studio import Studio
from appliance.providers import api
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.dialog import Timings
from appliance.providers.direct.provider import DirectProvider
from appliance.settings import PeerSettings, VideoSettings
from appliance.vocabulary import Scope
from hw.api import (
    Audio,
    BoardOptions,
    Camera,
    DeviceFact,
    Display,
    Health,
    Kind,
    Panel,
    Picture,
    SharedSource,
    Simulation,
)
from hw.sim import pattern
from hw.sim.board import SimBoard
from tests.support.media_board import HandDisplay
from tests.support.spectrum import SILENCE, share_of, strongest

CONSOLE = Path(__file__).parents[2] / "appliance" / "console"

PAGE = """<!doctype html><meta charset="utf-8"><title>peer</title>
<video id="remote" autoplay playsinline></video>
<script type="module">
import { Peer } from "/console/peer.js";
const peer = window.peer = new Peer("/v1/peer");
window.states = [];
peer.addEventListener("change", () => {
  const state = peer.state.call?.state ?? "None";
  if (window.states.at(-1) !== state) window.states.push(state);
});
peer.addEventListener("remotestream", ({ detail }) => {
  window.remoteStream = detail;
  document.querySelector("#remote").srcObject = detail;
});
window.data = [];
peer.addEventListener("data", ({ detail }) => window.data.push(detail));
peer.connect();
</script>"""


class SeenBoard:
    """The simulated board with a screen whose pictures the test reads, and a tap on the loudspeaker."""

    def __init__(self, hertz: float, camera: str = "pattern") -> None:
        self._board = SimBoard(BoardOptions(microphone=f"tone:{hertz:g}", camera=camera))
        self.display: Display | None = HandDisplay()
        self.played = bytearray()
        self._board.simulation.tap_speaker(self._tap)

    def _tap(self, pcm: bytes) -> None:
        self.played += pcm
        del self.played[:-96_000]  # the last second

    @property
    def audio(self) -> Audio | None:
        return self._board.audio

    @property
    def camera(self) -> Camera | None:
        return self._board.camera

    @property
    def panel(self) -> Panel | None:
        return self._board.panel

    @property
    def simulation(self) -> Simulation | None:
        return self._board.simulation

    def share(self, path: str) -> SharedSource:
        return self._board.share(path)

    def capture(self, device: str) -> SharedSource:
        return self._board.capture(device)

    def facts(self) -> dict[str, str]:
        return dict(self._board.facts())

    def devices(self) -> Sequence[DeviceFact]:
        return self._board.devices()

    @property
    def choices(self) -> frozenset[Kind]:
        return self._board.choices

    def select(self, kind: Kind, device: str) -> None:
        self._board.select(kind, device)

    def health(self) -> Health:
        return self._board.health()

    def on_fault(self, sink: object) -> None:
        """Faults of devices are not what these tests are about."""

    def on_devices(self, sink: object) -> None:
        """Nor are plugs."""

    def close(self) -> None:
        self._board.close()

    # --- eyes and ears

    def hears(self) -> tuple[float, float]:
        """Strongest frequency of the last 200 ms of the loudspeaker, and its level in dB of full scale."""
        samples = self._heard()
        return strongest(samples, 48_000) if len(samples) >= 9_600 else SILENCE

    def hears_tone(self, hertz: float) -> float:
        """The share of this tone in the power of the last 200 ms, 0..1."""
        samples = self._heard()
        return share_of(hertz, samples, 48_000) if len(samples) >= 9_600 else 0.0

    def _heard(self) -> npt.NDArray[np.float64]:
        return np.array(array("h", bytes(self.played[-19_200:])), dtype=float) / 32768

    @property
    def pictures(self) -> list[Picture]:
        assert isinstance(self.display, HandDisplay)
        return self.display.pictures

    def mark(self) -> pattern.Mark | None:
        """The counter of the last picture shown."""
        if not self.pictures:
            return None
        last = self.pictures[-1]
        return pattern.read(last.i420, last.width, last.height)


@dataclass
class Appliance:
    """The provider on a board, its page's address, and what the provider told."""

    board: SeenBoard
    studio: Studio
    provider: DirectProvider
    url: str
    incoming: asyncio.Queue[api.IncomingCall]
    refused: list[tuple[str, str]] = field(default_factory=list)
    duty: list[Sequence[str]] = field(default_factory=list)

    async def dial(self, call_id: str = "call-0001", uri: str = "operator:*") -> api.Leg:
        scheme, _, address = uri.partition(":")
        return await self.provider.dial(api.Target(scheme, address), call_id=call_id, caller=api.Peer(
            "door-1", "device:door-1", "Front door", "device", True), media=api.MediaWanted())


class Told:
    """Facts of one leg, read as they come."""

    def __init__(self, leg: api.Leg) -> None:
        self.leg = leg
        self.events: list[api.LegEvent] = []
        self.at: list[float] = []
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._read(), name="test.told")

    async def _read(self) -> None:
        async for event in self.leg.events():
            async with self._changed:
                self.events.append(event)
                self.at.append(asyncio.get_running_loop().time())
                self._changed.notify_all()

    async def until(self, *kinds: type[api.LegEvent], within_s: float = 10.0) -> api.LegEvent:
        """Wait for the next event of one of these kinds, counted from those not asked for yet."""
        async with self._changed:
            try:
                async with asyncio.timeout(within_s):
                    while True:
                        while self.events:
                            event = self.events.pop(0)
                            if isinstance(event, kinds):
                                return event
                        await self._changed.wait()
            except TimeoutError as error:
                raise AssertionError(f"none of {[k.__name__ for k in kinds]} within {within_s} s") from error

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def appliance(*, hertz: float = 440.0, identity: PeerIdentity | None = None, link: Link | None = None,
                    peers: Sequence[PeerSettings] = (), timings: Timings | None = None) -> AsyncIterator[Appliance]:
    """One appliance with a web server on a free port of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    board = await loop.run_in_executor(None, SeenBoard, hertz)  # as __main__ does, before and after the loop's work
    studio = Studio(board, VideoSettings(640, 360, 15, 500_000))
    await studio.open()
    who = identity or PeerIdentity("olga", Scope.OPERATOR, "Olga", loopback=True, session="s1")
    refused: list[tuple[str, str]] = []
    duty: list[Sequence[str]] = []
    provider = DirectProvider(
        wire.Party("door-1", "Front door"), studio, SystemClock(), ice=IceServers(), link=link, peers=peers,
        accept_from=lambda device: True, refused=lambda why, sender: refused.append((why, sender)),
        on_duty=duty.append, timings=timings)
    sockets: set[web.WebSocketResponse] = set()

    async def peer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=64 * 1024 + 1, heartbeat=10.0, timeout=1.0)
        await socket.prepare(request)
        sockets.add(socket)
        await provider.attach(SocketChannel(socket, who))
        return socket

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/v1/peer", peer)
    app.router.add_static("/console/", CONSOLE)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    incoming: asyncio.Queue[api.IncomingCall] = asyncio.Queue()
    await provider.start(incoming.put_nowait)
    made = Appliance(board, studio, provider, f"http://127.0.0.1:{port}/", incoming, refused, duty)
    try:
        yield made
    finally:
        await provider.stop()
        await asyncio.gather(*(socket.close() for socket in sockets))
        await runner.cleanup()
        await studio.close()
        await loop.run_in_executor(None, board.close)


