"""Playing from a real WHEP server, that of Meetecho over a real Janus, which offers itself (406)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.providers import api
from appliance.settings import Secret, WhipSettings
from appliance.vocabulary import END_REASONS
from tests.support.room_device import ROOM, janus
from tests.support.room_device import device as in_room
from tests.support.waiting import until
from tests.support.whep_server import WhepServer
from tests.support.whip_device import Device, device

pytestmark = pytest.mark.peer

PUBLISHER_HERTZ = 880.0
TOKEN = "t0p-secret-token"
ME = api.Peer("door-1", "device:door-1", "Front door", "device", True)


@asynccontextmanager
async def played(folder: Path, token: str = TOKEN) -> AsyncIterator[tuple[WhepServer, dict[str, object], Device]]:
    """The server, its endpoint for what somebody publishes in a room, and a device that may play it."""
    async with janus(folder) as server, in_room(server.url, "gate", PUBLISHER_HERTZ) as gate:
        await gate.join()
        await gate.connected()
        async with server.control() as control:
            feed, = (one["id"] for one in await control.participants(ROOM))
        whep = WhepServer(server.url)
        endpoint: dict[str, object] = {"id": "desk", "plugin": "videoroom", "room": ROOM, "feed": feed, "token": TOKEN}
        try:
            await whep.start()
            async with device(WhipSettings("studio", play=whep.url("desk"), token=Secret(token)), 440) as one:
                yield whep, endpoint, one
        finally:
            await whep.kill()


async def test_what_is_published_in_a_room_is_played(tmp_path: Path) -> None:
    async with played(tmp_path) as (whep, endpoint, one):
        await whep.create(**endpoint)
        leg = await one.dial()
        await one.hears(PUBLISHER_HERTZ)
        await one.sees()
        assert await whep.subscribers() == 1
        await leg.end(END_REASONS["0/local"])
        assert await whep.subscribers() == 0


async def test_what_is_not_there_and_a_wrong_token(tmp_path: Path) -> None:
    async with played(tmp_path, "wrong") as (whep, endpoint, one):
        for key in ("404/noSuchEndpoint", "403/notPermitted"):
            await one.begin("studio", ME)
            await until(lambda: one.of(api.Ended), "the end")
            assert one.of(api.Ended)[-1].reason.key == key
            one.told.clear()
            if key.startswith("404"):
                await whep.create(**endpoint)
        assert await whep.subscribers() == 0


async def test_the_server_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with played(tmp_path) as (whep, endpoint, one):
        await whep.create(**endpoint)
        await one.dial()
        await one.sees()
        await whep.kill()  # and Janus lets go of what it asked for
        await until(lambda: one.of(api.Lost), "the call is lost", 8)
        await whep.start()
        await whep.create(**endpoint)  # after a while: 404 until then
        await until(lambda: one.of(api.Recovered), "the call is back", 15)
        await one.sees()
        await one.hears(PUBLISHER_HERTZ)
        assert not one.of(api.Ended)
