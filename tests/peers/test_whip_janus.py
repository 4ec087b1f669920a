"""Publishing to a real WHIP server, that of Meetecho over a real Janus, with a browser that watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page

from appliance.providers import api
from appliance.settings import Secret, WhipSettings
from appliance.vocabulary import END_REASONS
from tests.support.browser import Chromium, chromium, wait_for
from tests.support.interface import changed_network, ip
from tests.support.janus import JanusServer
from tests.support.lag import lateness
from tests.support.room_device import ROOM, janus
from tests.support.room_page import room_page
from tests.support.simple_whip import SimpleWhip
from tests.support.waiting import until
from tests.support.whip_device import Device, device

pytestmark = pytest.mark.peer

DEVICE_HERTZ = 440.0
TOKEN = "t0p-secret-token"
ME = api.Peer("door-1", "device:door-1", "Front door", "device", True)
LEAVE = END_REASONS["0/local"]
ENDPOINT = {"id": "desk", "room": ROOM, "label": "Studio", "token": TOKEN}


@asynccontextmanager
async def whip(folder: Path, *, strict: bool = False) -> AsyncIterator[tuple[JanusServer, SimpleWhip]]:
    """A Janus, and the WHIP server with one endpoint for a room of it."""
    for name in ("janus", "whip"):
        (folder / name).mkdir()
    async with janus(folder / "janus") as server:
        made = SimpleWhip(folder / "whip", server.url, strict=strict)
        try:
            await made.start()
            await made.create(**ENDPOINT)
            yield server, made
        finally:
            await made.kill()


@asynccontextmanager
async def watched(server: JanusServer) -> AsyncIterator[Page]:
    """A browser in that room."""
    async with room_page() as url, chromium(880) as browser:
        page = await browser.open(url)
        await page.evaluate("([url, room]) => enter(url, room, 'Olga', { nothing: true })", [server.url, ROOM])
        yield page


def door(
    made: SimpleWhip, token: str = TOKEN, endpoint: str = "desk",
) -> AbstractAsyncContextManager[Device]:
    return device(WhipSettings("studio", publish=made.url(endpoint), token=Secret(token)), DEVICE_HERTZ)


async def published(page: Page) -> None:
    """The browser hears the device's tone and decodes its picture, from now on."""
    await wait_for(page, "() => people.Olga.streams.Studio?.getTracks().length === 2")
    await Chromium.listen(page, "people.Olga.streams.Studio")
    await Chromium.hears(page, DEVICE_HERTZ)
    await Chromium.sees_moving(page, "video#Studio")


async def test_what_is_published_is_seen_and_heard_in_the_room_until_it_is_deleted(tmp_path: Path) -> None:
    async with whip(tmp_path) as (server, made), watched(server) as page, door(made) as one:
        leg = await one.dial()
        await published(page)
        assert await made.publishing() == ["desk"]
        await leg.end(LEAVE)
        await until(lambda: one.of(api.Ended) == [api.Ended(LEAVE)], "the end")
        assert not await made.publishing(), "deleted"
        await wait_for(page, "() => !Object.values(people.Olga.others).length")
        one.told.clear()
        await one.dial()
        await published(page)


async def test_each_refusal_has_its_own_reason(tmp_path: Path) -> None:
    async with whip(tmp_path) as (server, made):
        for token, endpoint, key in ((TOKEN, "nowhere", "404/noSuchEndpoint"), ("wrong", "desk", "403/notPermitted")):
            async with door(made, token, endpoint) as one:
                assert await refused(one) == key
        async with door(made) as first, door(made) as second:
            await first.dial()
            assert await refused(second) == "403/notPermitted"  # RFC 9725 has 409 for one that is taken
            assert await made.publishing() == ["desk"]
        await server.kill()
        async with door(made) as one:
            assert await refused(one) == "503/serverBusy"
        await server.start()


async def refused(one: Device) -> str:
    await one.begin("studio", ME)
    await until(lambda: one.of(api.Ended), "the end")
    return str(one.of(api.Ended)[0].reason.key)


@pytest.mark.parametrize("strict", [False, True])
async def test_a_cut_is_repaired_in_the_same_session(tmp_path: Path, strict: bool) -> None:
    """By a restart of ICE. Where it is ``strict`` this server wants ``"*"`` for it, and answers 412 to that of RFC 9110
    without quotes."""
    async with changed_network(), whip(tmp_path, strict=strict) as (server, made), watched(server) as page, door(
        made,
    ) as one:
        await one.dial()
        await published(page)
        async with server.control() as control:
            before = await control.participants(ROOM)
        await asyncio.sleep(2.0)
        await ip("link set lo down")
        cut = asyncio.get_running_loop().time()
        async with lateness() as late:
            await until(lambda: one.of(api.Lost), "the call is lost", 15)
        assert one.when(api.Lost) - cut < 3.5 + late()
        await asyncio.sleep(1.0)
        await ip("link set lo up")
        await until(lambda: one.of(api.Recovered), "the call is back", 15)
        await published(page)
        assert not one.of(api.Ended)
        assert await made.publishing() == ["desk"]
        async with server.control() as control:
            after = await control.participants(ROOM)
        assert {one["id"] for one in before} == {one["id"] for one in after}


async def test_the_server_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with whip(tmp_path) as (server, made), watched(server) as page, door(made) as one:
        await one.dial()
        await published(page)
        await made.kill()  # and Janus lets go of what it asked for
        await until(lambda: one.of(api.Lost), "the call is lost", 8)
        await made.start()
        await made.create(**ENDPOINT)  # after a while: 404 until then
        await until(lambda: one.of(api.Recovered), "the call is back", 15)
        await published(page)
        assert not one.of(api.Ended)
