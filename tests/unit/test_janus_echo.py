"""The test before a call with a server in the test's hand: how far it comes, and what is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from appliance.errors import Refused
from appliance.media.api import AccessUnit, Session, SessionClosed, SessionEvent, SessionUp
from appliance.media.taps import Tap, TapPoint
from appliance.providers import api
from appliance.providers.janus.echo import echoed
from appliance.providers.janus.transport import Channel
from appliance.vocabulary import Json
from tests.support.clock import virtual_time

SOUND = "v=0\r\nm=audio 9 X 1\r\na=sendrecv\r\nm=video 9 X 2\r\na=recvonly\r\n"
MADE: Json = {"janus": "success", "data": {"id": 7}}
ANSWERED: Json = {"janus": "event", "plugindata": {"data": {"result": "ok"}}, "jsep": {"type": "answer", "sdp": "x"}}
STATS: list[Json] = [
    {"type": "candidate-pair", "currentRoundTripTime": 0.04},
    {"type": "outbound-rtp", "kind": "audio", "packetsSent": 100},
    {"type": "inbound-rtp", "kind": "audio", "packetsReceived": 90, "packetsLost": 5, "jitter": 0.003}]


class Media:
    """A Session that connects as it is told to."""

    def __init__(self, *events: SessionEvent) -> None:
        self._events = events
        self._point: TapPoint[AccessUnit] = TapPoint(lambda unit: len(unit.data))
        self.awaited: dict[str, bool] = {}
        self.closed = False

    def tap_encoded(self) -> Tap[AccessUnit]:
        return self._point.open(1000)

    async def offer(self) -> str:
        return SOUND

    def peer_sends(self, **kinds: bool) -> None:
        self.awaited = kinds

    async def accept_answer(self, answer: str) -> None: ...

    async def events(self) -> AsyncIterator[SessionEvent]:
        for event in self._events:
            yield event
        await asyncio.Event().wait()

    async def stats(self) -> list[Json]:
        return STATS

    async def close(self) -> None:
        self.closed = True


class Server:
    """A Channel that answers each kind of request by what is given for it; nothing for what is not."""

    def __init__(self, **answers: Json) -> None:
        self._answers = answers
        self.asked: list[Json] = []
        self._told: asyncio.Queue[Json | None] = asyncio.Queue()
        self.closed = False

    async def send(self, message: Json) -> None:
        self.asked.append(message)
        self._told.put_nowait({"janus": "ack", "transaction": message["transaction"]})
        self._told.put_nowait({"janus": "event", "sender": 9})
        if message["janus"] in self._answers:
            self._told.put_nowait({**self._answers[message["janus"]], "transaction": message["transaction"]})

    async def receive(self) -> Json:
        told = await self._told.get()
        if told is None:
            raise ConnectionError("it closed the connection")
        return told

    def tell(self, message: Json | None) -> None:
        self._told.put_nowait(message)

    async def close(self) -> None:
        self.closed = True


async def run(server: Server | Exception, media: Media, seconds: float = 5.0) -> api.Echo:
    async def connect(_: str) -> Channel:
        if isinstance(server, Exception):
            raise server
        return server

    def make() -> Session:
        return media  # type: ignore[return-value]

    return await echoed(connect, "wss://a.example", make, seconds, keys={"token": "t"})


def well(**others: Json) -> Server:
    return Server(**{"create": MADE, "attach": MADE, "message": ANSWERED, **others})


@virtual_time
async def test_it_lasts_its_time_and_leaves_nothing() -> None:
    server, media = well(), Media(SessionUp({}))
    begun = asyncio.get_running_loop().time()
    echo = await run(server, media)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(5, abs=0.1)
    assert echo.failure is None
    assert echo.kinds == {"audio": api.Returned(100, 90, 5, 0.003, 0.04)}
    assert media.awaited == {"audio": True, "video": False}, "there is no camera: no picture is awaited"
    assert [one["janus"] for one in server.asked] == ["create", "attach", "message", "destroy"]
    assert all(one["token"] == "t" for one in server.asked)
    assert "handle_id" not in server.asked[-1]
    assert media.closed
    assert server.closed


@virtual_time
async def test_a_server_without_the_plugin_is_refused() -> None:
    server, media = well(attach={"janus": "error", "error": {"code": 460, "reason": "no such plugin"}}), Media()
    with pytest.raises(Refused, match="no EchoTest plug-in"):
        await run(server, media)
    assert media.closed
    assert server.closed


ERROR: Json = {"janus": "error", "error": {"code": 403, "reason": "Unauthorized"}}


@virtual_time
async def test_how_far_it_came_and_why_not_further() -> None:
    cases: list[tuple[Server | Exception, Media, str, Mapping[str, bool]]] = [
        (OSError("refused"), Media(), "503/provider", {"reached_s": False}),
        (TimeoutError(), Media(), "503/provider", {"reached_s": False}),
        (well(create=ERROR), Media(), "401/token", {"reached_s": True, "admitted_s": False}),
        (well(create={"janus": "error", "error": 7}), Media(), "503/provider", {"admitted_s": False}),
        (Server(create=MADE), Media(), "503/provider", {"reached_s": True, "admitted_s": False}),
        (well(message={"janus": "event"}), Media(), "503/provider", {"admitted_s": True, "connected_s": False}),
        (well(), Media(SessionClosed("dtls")), "488/dtls", {"admitted_s": True, "connected_s": False}),
        (well(), Media(), "410/iceFailed", {"admitted_s": True, "connected_s": False}),
    ]
    for server, media, key, came in cases:
        echo = await run(server, media)
        assert echo.failure is not None
        assert echo.failure.key == key
        assert {name: getattr(echo, name) is not None for name in came} == came
        assert not echo.kinds
        assert isinstance(server, Exception) or (media.closed and server.closed)


@virtual_time
@pytest.mark.parametrize("last", [None, {"janus": "hangup", "sender": 7}, {"janus": "timeout"}])
async def test_what_ends_meanwhile_has_failed(last: Any) -> None:
    server, media = well(), Media(SessionUp({}))
    test = asyncio.create_task(run(server, media))
    await asyncio.sleep(2)
    server.tell(last)
    echo = await test
    assert echo.failure is not None
    assert echo.connected_s is not None
    assert not echo.kinds
    assert media.closed


@virtual_time
async def test_whoever_gives_it_up_leaves_nothing() -> None:
    server, media = well(), Media(SessionUp({}))
    test = asyncio.create_task(run(server, media))
    await asyncio.sleep(1)
    test.cancel()
    await asyncio.gather(test, return_exceptions=True)
    assert media.closed
    assert server.closed
    assert server.asked[-1]["janus"] == "destroy"
