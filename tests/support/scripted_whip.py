"""A media server that answers by script, over real HTTP, and a call with it whose media are scripted too."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from appliance.errors import SignalingError
from appliance.media.api import Directions, IceFragment, IceServers, SessionClosed, SessionUp
from appliance.providers import api
from appliance.providers.whip.provider import WhipProvider
from appliance.settings import Secret, WhipSettings
from appliance.vocabulary import END_REASONS, Json
from tests.support.loopback import served
from tests.support.told_session import ToldSession

__all__ = [
    "ANSWER", "LEAVE", "ME", "OFFER", "OURS", "SDP", "THEIRS", "TOKEN", "Asked", "Caller", "Reply", "ScriptedServer",
    "ScriptedSession", "ScriptedStudio", "caller", "created", "playing", "publishing", "scripted", "status",
]

TOKEN = "t0p-secret-token"
ME = api.Peer("door-1", "device:door-1", "Front door", "device", True)
LEAVE = END_REASONS["0/local"]
OFFER = "v=0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=setup:actpass\r\n"
ANSWER = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=setup:passive\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
OURS = IceFragment("ours", "p" * 22, ("candidate:1 1 udp 1 192.0.2.7 9 typ host",))
THEIRS = f"a=ice-ufrag:theirs\r\na=ice-pwd:{'q' * 24}\r\n"
SDP = "application/sdp"


class ScriptedSession(ToldSession):
    """A ServerSession whose facts the test tells."""

    def __init__(self, wanted: Directions, ice: IceServers) -> None:
        super().__init__()
        self.wanted = wanted
        self.ice = ice
        self.closed = False
        self.took: list[str] = []
        self.restarted: list[IceFragment] = []
        self.finds_path = True
        self.description = OFFER

    @property
    def connected(self) -> bool:
        return self.up

    def heeded(self) -> bool:
        """Nothing that was told is still to be taken."""
        return self._events.empty()

    async def offer(self) -> str:
        return OFFER

    async def answer(self, offer: str) -> str:
        self.took.append(offer)
        return ANSWER

    async def accept_answer(self, answer: str) -> None:
        if not answer.startswith("v=0"):
            raise SignalingError("the peer's answer cannot be used", sub_code="badSdp")
        self.took.append(answer)

    async def add_candidate(self, candidate: str, mid: str | None, line: int | None) -> None:
        self.took.append(f"candidate {candidate!r}")

    async def gather_more(self, ice: IceServers) -> IceFragment | None:
        self.ice = ice
        return None if self.connected else OURS

    async def restart_ice(self) -> IceFragment:
        return OURS

    async def ice_restarted(self, theirs: IceFragment) -> bool:
        self.restarted.append(theirs)
        return self.finds_path

    def set_directions(self, wanted: Directions) -> None:
        self.wanted = wanted

    def negotiated(self, kind: str) -> tuple[bool, bool]:
        return self.wanted.send_video, self.wanted.receive_video

    async def stats(self) -> Sequence[Json]:
        return [{"id": f"session-{id(self)}"}]

    async def close(self) -> None:
        self.closed = True
        self.tell(SessionClosed("closed"))


class ScriptedStudio:
    """What the provider asks of a Studio."""

    def __init__(self) -> None:
        self.sends = True
        self.sessions: list[ScriptedSession] = []

    def publication(self, wanted: Directions, *, ice: IceServers, loopback: bool) -> ScriptedSession | None:
        return self.playback(wanted, ice=ice, loopback=loopback) if self.sends else None

    def playback(self, wanted: Directions, *, ice: IceServers, loopback: bool) -> ScriptedSession:
        self.sessions.append(ScriptedSession(wanted, ice))
        return self.sessions[-1]


Reply = Callable[[], web.Response]


@dataclass
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: str


class ScriptedServer:
    """Answers each request by the next reply for its method, the last one again and again."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: dict[str, deque[Reply]] = {
            "POST": deque([created()]), "PATCH": deque([status(204)]), "DELETE": deque([status(200)]),
            "OPTIONS": deque([status(204)])}
        self.open = asyncio.Event()  # answers wait for it
        self.open.set()
        self.url = ""

    def gives(self, method: str, *replies: Reply) -> None:
        self.replies[method] = deque(replies)

    def of(self, method: str) -> list[Asked]:
        return [one for one in self.asked if one.method == method]

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(Asked(request.method, request.path_qs, dict(request.headers), await request.text()))
        await self.open.wait()
        replies = self.replies[request.method]
        return replies.popleft()() if len(replies) > 1 else replies[0]()


def status(code: int, body: str = "", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: web.Response(status=code, headers=named, body=body.encode() or None)


def created(body: str = ANSWER, code: int = 201, **headers: str) -> Reply:
    return status(code, body, **{"Location": "/session/1", "ETag": '"one"', "Content_Type": SDP, **headers})


@asynccontextmanager
async def scripted(context: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    async with served(app, tls=context, shutdown_s=0.1) as port:
        server.url = f"http{'s' if context else ''}://127.0.0.1:{port}"
        try:
            yield server
        finally:
            server.open.set()


@dataclass
class Caller:
    studio: ScriptedStudio
    provider: WhipProvider
    leg: api.Leg | None = None
    told: list[api.LegEvent] = field(default_factory=list)
    reader: asyncio.Task[None] | None = None

    async def dial(self, name: str = "studio", media: api.MediaWanted | None = None) -> api.Leg:
        leg = self.leg = await self.provider.dial(
            api.Target("whip", name), call_id="call-1", caller=ME, media=media or api.MediaWanted())
        self.reader = asyncio.create_task(self._read(leg), name="test.reader")
        return leg

    async def _read(self, leg: api.Leg) -> None:
        async for event in leg.events():
            self.told.append(event)

    def of(self, kind: type[api.LegEvent]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    async def until(self, condition: Callable[[], object], within_s: float = 5.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - of what has no event
                await asyncio.sleep(0.005)

    async def ended(self, within_s: float = 5.0) -> Any:
        await self.until(lambda: self.of(api.Ended), within_s)
        return self.of(api.Ended)[0].reason

    async def connected(self) -> ScriptedSession:
        """Dial, and connect the media of the first way."""
        await self.dial()
        await self.until(lambda: self.of(api.Accepted) or self.of(api.Ended))
        assert not self.of(api.Ended), self.told
        session = self.studio.sessions[-1]
        session.tell(SessionUp({"dtls": "1.2"}))
        await self.until(lambda: self.of(api.Connected))
        return session


@asynccontextmanager
async def caller(*servers: WhipSettings, ice: IceServers | None = None) -> AsyncIterator[Caller]:
    studio: Any = ScriptedStudio()
    provider = await asyncio.to_thread(WhipProvider, servers, studio, ice=ice or IceServers())
    made = Caller(studio, provider)
    try:
        yield made
    finally:
        await provider.stop()
        if made.reader is not None:
            await asyncio.wait({made.reader}, timeout=2)


def publishing(server: ScriptedServer, **more: Any) -> WhipSettings:
    return WhipSettings("studio", publish=f"{server.url}/whip/door?key=1", token=Secret(TOKEN), **more)


def playing(server: ScriptedServer) -> WhipSettings:
    return WhipSettings("studio", play=f"{server.url}/whep/desk", token=Secret(TOKEN))
