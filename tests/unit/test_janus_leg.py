"""One call in a room between its membership and its media: who comes late, and what fails, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence, Set
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiortc.exceptions import InvalidStateError

from appliance.errors import Refused, SignalingError
from appliance.media.api import DataLine, Directions, Gallery, Session, SessionClosed, SessionEvent, SessionUp
from appliance.providers import api
from appliance.providers.endpoints import Endpoints
from appliance.providers.janus.effects import Effect, Timer
from appliance.providers.janus.leg import JanusLeg
from appliance.providers.janus.link import JanusLink
from appliance.providers.janus.room_leg import JOB_S
from appliance.providers.janus.stay import KEEPALIVE_S, Room
from appliance.providers.janus.transport import Channel
from appliance.providers.janus.websocket import WebSockets
from appliance.vocabulary import END_REASONS, Json
from tests.support.clock import virtual_time
from tests.support.janus_desk import ME, OFFER, PUBLISHER, person
from tests.support.loopback import served
from tests.support.told_session import ToldSession
from tests.support.waiting import until


class Publication(ToldSession):
    """A Session that offers when the test lets it, and as aiortc does not once it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.may_offer = asyncio.Event()
        self.asked = asyncio.Event()
        self.closed = False

    async def offer(self) -> str:
        if self.closed:
            raise InvalidStateError("RTCPeerConnection is closed")
        self.asked.set()
        await self.may_offer.wait()
        return OFFER

    async def accept_answer(self, answer: str) -> None: ...

    def set_directions(self, wanted: Directions) -> None: ...

    async def stats(self) -> Sequence[Json]:
        return []

    async def close(self) -> None:
        self.closed = True
        self.tell(SessionClosed("closed"))


class Link:
    """A JanusLink whose server is in the test's hand."""

    def __init__(self, on_up: Any, on_message: Any, on_down: Any, alone: Any) -> None:
        self.on_up, self.on_message, self.on_down, self.alone = on_up, on_message, on_down, alone
        self.opened = asyncio.Event()
        self.asked: list[Json] = []

    def open(self) -> None:
        self.opened.set()

    def shut(self) -> None: ...

    def give_up(self, words: str) -> None: ...

    def send(self, message: Json) -> None:
        self.asked.append(message)

    async def close(self) -> None: ...

    def answer(self, **message: Any) -> None:
        self.on_message({"janus": "success", "transaction": self.asked.pop(0)["transaction"], **message})


class Line:
    """A DataLine that can use no offer."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def answer(self, offer: str) -> str:
        raise SignalingError("the offer cannot be used", sub_code="badSdp")

    async def events(self) -> AsyncIterator[SessionEvent]:
        await self.closed.wait()
        yield SessionClosed("closed")

    async def close(self) -> None:
        self.closed.set()


class Watching(Publication):
    """A Gallery that answers when the test lets it."""

    absent, still, levels = frozenset[str](), frozenset[str](), dict[str, int]()

    def set_wanted(self, *, audio: bool, video: bool) -> None: ...

    async def answer(self, offer: str, lines: Json) -> str:
        return await self.offer()


class Hall:
    """A Channel to a server with one person in its room, until it is ``cut``."""

    def __init__(self) -> None:
        self.cut = False
        self.pings = 0
        self._handles = itertools.count(PUBLISHER)
        self._said: asyncio.Queue[Json] = asyncio.Queue()

    async def send(self, message: Json) -> None:
        self.pings += message["janus"] == "ping"
        if not self.cut:
            self._said.put_nowait({"transaction": message["transaction"], **self._answer(message)})

    def _answer(self, message: Json) -> Json:
        lines = [{"type": "audio", "mid": "0", "feed_id": 2, "feed_mid": "0"}]
        match message["janus"], message.get("body", {}).get("ptype"):
            case "create", _:
                return {"janus": "success", "data": {"id": 5}}
            case "attach", _:
                return {"janus": "success", "data": {"id": next(self._handles)}}
            case _, "publisher":
                return {"janus": "event", "plugindata": {"data": {
                    "videoroom": "joined", "id": 1, "publishers": [person(2)]}}}
            case _, "subscriber":
                return {"janus": "event", "plugindata": {"data": {"videoroom": "attached", "streams": lines}},
                        "jsep": {"type": "offer", "sdp": "offer"}}
            case _:
                return {"janus": "success"}

    async def receive(self) -> Json:
        return await self._said.get()

    def is_cut_off(self, addresses: Set[str]) -> bool:
        return False

    async def close(self) -> None: ...


class Ground:
    """What the provider gives."""

    def __init__(self) -> None:
        self.galleries: list[Watching] = []
        self.lines: list[Line] = []
        self.publications: list[Publication] = []
        self.shares: list[Publication] = []
        self.links: list[Link] = []

    def publication(self, wanted: Directions, *, data: bool) -> Session | None:
        self.publications.append(Publication())
        return self.publications[-1]  # type: ignore[return-value]

    def shared(self) -> Session | None:
        self.shares.append(Publication())
        return self.shares[-1]  # type: ignore[return-value]

    def data_line(self) -> DataLine:
        self.lines.append(Line())
        return self.lines[-1]  # type: ignore[return-value]

    def gallery(self) -> Gallery:
        self.galleries.append(Watching())
        return self.galleries[-1]  # type: ignore[return-value]

    def link(self, name: str, **hooks: Callable[..., None]) -> JanusLink:
        self.links.append(Link(**hooks))
        return self.links[-1]  # type: ignore[return-value]

    def token_judged(self, refused: str) -> None: ...

    def taken_over(self, identity: str) -> None: ...

    def leg_over(self, leg: JanusLeg) -> None: ...


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """The address of a server that says one thing; ``elsewhere`` below it redirects there."""
    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("janus-protocol",))
        await socket.prepare(request)
        await socket.send_str(json.dumps({"janus": "x"}))
        await socket.receive()
        return socket

    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/"})

    app = web.Application()
    app.router.add_get("/", serve)
    app.router.add_get("/elsewhere", redirect)
    async with served(app) as port:
        yield f"ws://127.0.0.1:{port}/"


async def enter(link: Link) -> None:
    """The connection is there, and the room is joined."""
    await link.opened.wait()
    link.opened.clear()
    link.asked.clear()
    link.on_up(False)
    link.answer(data={"id": 5})
    link.answer(data={"id": PUBLISHER})
    link.answer(janus="event", sender=PUBLISHER, plugindata={"data": {"videoroom": "joined", "id": 1}})


async def connected() -> tuple[JanusLeg, Ground, Link]:
    ground = Ground()
    leg = JanusLeg("leg-1", Room(1234, "lobby"), ground, me=ME, media=api.MediaWanted(), shows=True)
    leg.join()
    link = ground.links[0]
    await enter(link)
    first = ground.publications[0]
    first.may_offer.set()
    await first.asked.wait()
    await asyncio.sleep(0)
    link.answer(janus="event", sender=PUBLISHER, plugindata={"data": {}}, jsep={"type": "answer", "sdp": "answer"})
    first.tell(SessionUp({}))
    async for event in leg.events():
        if isinstance(event, api.Connected):
            break
    return leg, ground, link


@virtual_time
async def test_the_link_is_alone_where_the_room_is_joined_and_there_is_no_media() -> None:
    ground = Ground()
    leg = JanusLeg("leg-1", Room(1234, "lobby"), ground, me=ME, media=api.MediaWanted(listens_only=True), shows=True)
    leg.join()
    link = ground.links[0]
    assert not link.alone(), "a request that is not answered tells"
    await enter(link)
    assert link.alone()
    link.on_down("gone", False)
    assert not link.alone()
    await leg.end(END_REASONS["0/local"])
    leg, _, link = await connected()
    assert not link.alone(), "what is published tells"
    await leg.end(END_REASONS["0/local"])


@virtual_time
async def test_a_watchers_way_that_is_cut_is_noticed_within_three_seconds_also_while_a_path_for_media_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, halls, ground = asyncio.get_running_loop(), list[Hall](), Ground()

    async def connect(_: str) -> Channel:
        halls.append(Hall())
        return halls[-1]

    def link(name: str, **hooks: Any) -> JanusLink:
        return JanusLink(connect, Endpoints(["wss://rooms.example.org"], "order", monotonic=loop.time), name, **hooks)

    monkeypatch.setattr(ground, "link", link)
    leg = JanusLeg("leg-1", Room(1234, "lobby"), ground, me=ME, media=api.MediaWanted(listens_only=True), shows=True)
    lost = asyncio.Event()

    async def listen() -> None:
        async for event in leg.events():
            if isinstance(event, api.Lost):
                lost.set()

    listening = asyncio.create_task(listen())
    leg.join()
    for number, search_s in enumerate((5.0, 12.3)):
        await until(lambda: len(ground.galleries) > number, "somebody is to be seen")  # noqa: B023
        ground.galleries[-1].may_offer.set()
        await asyncio.sleep(search_s)
        assert not lost.is_set(), "the server is there"
        cut, halls[-1].cut = loop.time(), True
        await lost.wait()
        lost.clear()
        assert loop.time() - cut <= 3.0
    await until(lambda: len(ground.galleries) == 3, "the room is joined again")
    ground.galleries[-1].may_offer.set()
    ground.galleries[-1].tell(SessionUp({}))
    await asyncio.sleep(5)
    asked, halls[-1].cut = halls[-1].pings, True
    await asyncio.sleep(10)
    assert (halls[-1].pings, lost.is_set()) == (asked, False), "media that are up tell of it"
    await leg.end(END_REASONS["0/local"])
    await listening


@virtual_time
async def test_a_room_that_was_never_reached_is_given_time() -> None:
    ground = Ground()
    leg = JanusLeg("leg-1", Room(1234, "lobby"), ground, me=ME, media=api.MediaWanted(), shows=True)
    leg.join()
    link = ground.links[0]
    await enter(link)
    await ground.publications[0].asked.wait()
    assert not link.alone()
    await leg.end(END_REASONS["0/local"])


@virtual_time
async def test_what_was_let_go_before_its_turn_came_is_not_offered() -> None:
    """The network flaps while an offer gathers: the next ones wait behind it, and are given up meanwhile."""
    leg, ground, link = await connected()
    for _ in range(3):
        link.on_down("gone", False)
        await enter(link)
    _, busy, given_up, last = ground.publications
    assert busy.closed and given_up.closed and not last.closed
    busy.may_offer.set()
    await last.asked.wait()
    assert not given_up.asked.is_set()
    last.may_offer.set()
    await asyncio.sleep(0)
    assert not leg._stay.over
    await leg.end(END_REASONS["0/local"])


@virtual_time
async def test_media_that_hang_over_a_description_do_not_hold_up_the_next_one() -> None:
    leg, ground, link = await connected()
    link.on_down("gone", False)
    await enter(link)
    begun = asyncio.get_running_loop().time()
    await ground.publications[1].asked.wait()  # and never let go
    await link.opened.wait()
    assert asyncio.get_running_loop().time() - begun == pytest.approx(JOB_S + 0.5)
    await enter(link)
    await ground.publications[2].asked.wait()
    assert not leg._stay.over
    await leg.end(END_REASONS["0/local"])


@virtual_time
async def test_a_timer_that_fails_leaves_nothing_unwatched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    leg, ground, link = await connected()

    def broken(_: Timer) -> Sequence[Effect]:
        raise KeyError("x")

    with monkeypatch.context() as patch:
        patch.setattr(leg._stay, "timeout", broken)
        await until(lambda: "this is a defect" in caplog.text, "the keep-alive fails", KEEPALIVE_S + 1)
    await until(link.opened.is_set, "the room is joined again")
    await enter(link)
    await ground.publications[1].asked.wait()
    await leg.end(END_REASONS["0/local"])


@virtual_time
async def test_a_connection_that_is_made_anew_is_no_loss_and_one_that_is_lost_is() -> None:
    leg, ground, link = await connected()

    async def watch(handle: int) -> Watching:
        before = len(ground.galleries)
        link.asked[:] = [one for one in link.asked if one["janus"] == "attach"]
        link.answer(data={"id": handle})
        lines = [{"type": "audio", "mid": "0", "feed_id": 2, "feed_mid": "0"}]
        link.answer(janus="event", sender=handle, plugindata={"data": {"videoroom": "attached", "streams": lines}},
                    jsep={"type": "offer", "sdp": "offer"})
        await until(lambda: len(ground.galleries) > before, "another connection")
        await ground.galleries[-1].asked.wait()
        ground.galleries[-1].may_offer.set()
        await until(lambda: any("jsep" in one for one in link.asked), "the answer is given")
        return ground.galleries[-1]

    link.on_message({"janus": "event", "sender": PUBLISHER, "plugindata": {"data": {
        "videoroom": "event", "publishers": [person(2)]}}})
    first = await watch(12)
    link.on_message({"janus": "event", "sender": 12, "transaction": link.asked.pop()["transaction"],
                     "plugindata": {"data": {"videoroom": "event", "started": "ok"}}})
    leg._carry_out(leg._stay._subscription.hung_up())
    assert [one["janus"] for one in link.asked[-2:]] == ["detach", "attach"]
    second = await watch(22)
    assert first.closed and second is not first
    assert not link.opened.is_set(), "the call goes on"
    second.tell(SessionClosed("lost"))
    await link.opened.wait()
    await leg.end(END_REASONS["0/local"])


@virtual_time
async def test_what_is_shared_and_stopped_at_once_does_not_end_the_call() -> None:
    leg, ground, link = await connected()
    link.on_down("gone", False)
    await enter(link)
    await ground.publications[1].asked.wait()  # the worker is busy
    await leg.set_media(api.MediaWanted(content=True))
    link.asked[:] = [one for one in link.asked if one["janus"] == "attach"]
    link.answer(data={"id": 13})
    link.answer(janus="event", sender=13, plugindata={"data": {"videoroom": "joined", "id": 2}})
    await leg.set_media(api.MediaWanted())
    await asyncio.sleep(0)
    assert ground.shares[0].closed
    ground.publications[1].may_offer.set()
    await asyncio.sleep(0.01)
    assert not ground.shares[0].asked.is_set()
    assert not leg._stay.over
    await leg.end(END_REASONS["0/local"])


@virtual_time
async def test_a_text_rooms_offer_that_cannot_be_used_is_asked_for_again_and_the_call_goes_on() -> None:
    ground = Ground()
    leg = JanusLeg("leg-1", Room(1234, "lobby", text=7), ground, me=ME, media=api.MediaWanted(), shows=True)
    leg.join()
    link = ground.links[0]
    await enter(link)
    for number in range(3):
        ground.publications[0].may_offer.set()
        await ground.publications[0].asked.wait()
        link.asked[:] = [one for one in link.asked if one["janus"] == "attach"]
        link.answer(data={"id": 31 + number})
        link.answer(janus="event", sender=31 + number, plugindata={"data": {"textroom": "event"}},
                    jsep={"type": "offer", "sdp": "rubbish"})
        await ground.lines[number].closed.wait()
        assert [one["handle_id"] for one in link.asked if one["janus"] == "detach"] == [31 + number]
        with pytest.raises(Refused) as refused:
            await leg.send("chat", "hello")
        assert refused.value.sub_code == "noDataChannel"
        await until(lambda: any(one["janus"] == "attach" for one in link.asked), "it is tried again")
    assert not leg._stay.over
    await leg.end(END_REASONS["0/local"])
    assert len(ground.lines) == 3


async def test_a_fault_of_ours_leaves_the_connection_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    down: asyncio.Queue[str] = asyncio.Queue()

    def broken(_: Json) -> None:
        raise KeyError("x")

    sockets = WebSockets(None)
    async with serving() as url:
        link = JanusLink(sockets.connect, Endpoints([url], "order", monotonic=lambda: 0.0), "test",
                         on_up=lambda _: None, on_message=broken, on_down=lambda words, _: down.put_nowait(words),
                         alone=lambda: False)
        link.open()
        async with asyncio.timeout(5):
            assert "fault here" in await down.get()
        await link.close()
        await sockets.close()
    assert "this is a defect" in caplog.text


async def test_no_redirect_is_followed() -> None:
    """From an encrypted server to one in clear the token would go along."""
    sockets = WebSockets(None)
    async with serving() as url:
        await (await sockets.connect(url)).close()
        with pytest.raises(ValueError, match="it redirects"):
            await sockets.connect(f"{url}elsewhere")
        await sockets.close()
        with pytest.raises(ConnectionError, match="shutting down"):
            await sockets.connect(url)
