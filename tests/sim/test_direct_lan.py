"""Appliances on the LAN: the one that calls is a WebSocket client of the other, with a token and a pinned certificate.

Real sockets and TLS in real time, scripted media.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from appliance.doors.http.peer import SocketChannel
from appliance.doors.http.tls import server_context
from appliance.errors import Refused
from appliance.handover import PeerIdentity
from appliance.providers import api
from appliance.settings import HttpSettings, PeerSettings, Secret
from appliance.vocabulary import END_REASONS, CallKind, Scope
from tests.support.direct_parts import Device, ScriptedSession
from tests.support.lag import lateness
from tests.support.media_pair import until

TOKENS = {"token-of-lobby": "lobby", "token-of-annex": "annex"}


class Door:
    """The ``/v1/peer`` of a device: who presents which token is who."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.sockets: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def open(self, tls: ssl.SSLContext | None = None) -> Door:
        app = web.Application()
        app.router.add_get("/v1/peer", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def close(self) -> None:
        await asyncio.gather(*(socket.close() for socket in self.sockets))
        self.sockets.clear()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        name = TOKENS.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if name is None:
            raise web.HTTPUnauthorized
        socket = web.WebSocketResponse(timeout=0.5)
        await socket.prepare(request)
        self.sockets.add(socket)
        await self.device.provider.attach(
            SocketChannel(socket, PeerIdentity(name, Scope.DEVICE, "", loopback=True, session=name)))
        return socket


@asynccontextmanager
async def lan(*, presents: str = "lobby", tls: ssl.SSLContext | None = None,
              fingerprint: str = "") -> AsyncIterator[tuple[Device, Device, Door]]:
    """``lobby`` knows ``annex`` as a peer and presents the token of ``presents``."""
    world: dict[str, ScriptedSession] = {}
    annex = Device("annex", None, world)
    door = await Door(annex).open(tls)
    scheme = "http" if tls is None else "https"
    peer = PeerSettings("annex", f"{scheme}://127.0.0.1:{door.port}", Secret(f"token-of-{presents}"), fingerprint)
    lobby = Device("lobby", None, world, peers=[peer])
    await lobby.start()
    await annex.start()
    try:
        yield lobby, annex, door
    finally:
        await lobby.stop()
        await annex.stop()
        await door.close()
        assert lobby.studio.open == annex.studio.open == []


async def test_a_peer_is_called_by_its_name_and_knows_the_caller_by_the_token() -> None:
    async with lan() as (lobby, annex, _door):
        told = await lobby.dial("lan:annex")
        await until(lambda: "Connected" in told.kinds)
        call = annex.incoming[0]
        assert call.kind is CallKind.LAN
        assert call.leg.peer == api.Peer("lobby", "lan:lobby", "lobby", "device", verified=True)
        assert lobby.studio.open[0].loopback
        assert annex.studio.open[0].loopback
        assert lobby.provider.reachable(api.Target("lan", "annex"))
        await call.leg.end(END_REASONS["0/local"])
        await until(lambda: told.ended == "0/remote")


async def test_a_wrong_token_is_said_at_once() -> None:
    async with lan(presents="nobody") as (lobby, annex, _door):
        told = await lobby.dial("lan:annex")
        await until(lambda: told.ended != "", 2.0)
        assert told.ended == "401/token"
        assert annex.incoming == []


async def test_a_peer_that_does_not_listen_is_unreachable_after_4_s() -> None:
    async with lateness() as late, lan() as (lobby, _annex, door):
        await door.close()
        late_before = late()
        told = await lobby.dial("lan:annex")
        took = await until(lambda: told.ended != "", 10.0)
        assert told.ended == "480/unreachable"
        assert 3.9 < took < 4.5 + late() - late_before


async def test_an_unknown_peer_and_one_that_would_read_the_token_are_refused() -> None:
    peer = PeerSettings("far", "http://192.0.2.1:8080", Secret("token"), "")
    lobby = await Device("lobby", None, {}, peers=[peer]).start()
    for uri, key in (("lan:nobody", "404/notFound"), ("lan:far", "480/unreachable")):
        with pytest.raises(Refused) as refused:
            await lobby.dial(uri)
        assert refused.value.key == key
    await lobby.stop()


@pytest.mark.parametrize("right", [True, False])
async def test_a_self_signed_certificate_is_known_by_its_fingerprint(tmp_path: Path, right: bool) -> None:
    loop = asyncio.get_running_loop()
    context, fingerprint = await loop.run_in_executor(None, server_context, HttpSettings(listen="0.0.0.0"), tmp_path)
    pin = fingerprint.removeprefix("SHA256:").replace(":", "")
    async with lan(tls=context, fingerprint=pin if right else "00" * 32) as (lobby, annex, _door):
        told = await lobby.dial("lan:annex")
        if right:
            await until(lambda: "Connected" in told.kinds)
            await told.leg.end(END_REASONS["0/local"])
        else:
            await until(lambda: told.ended != "", 6.0)
            assert told.ended == "480/unreachable"
            assert annex.incoming == []


async def test_a_connection_that_breaks_comes_back_to_the_same_call() -> None:
    async with lan() as (lobby, annex, door):
        told = await lobby.dial("lan:annex")
        await until(lambda: "Connected" in told.kinds)
        await door.close()
        await asyncio.sleep(0.3)
        await door.open()
        await until(lambda: bool(door.sockets), 5.0, "connected again")
        await annex.incoming[0].leg.tell(muted=True, held=False, video=True)
        await until(lambda: api.PeerMedia(True, True) in told.events)
        assert "Lost" not in told.kinds
        await told.leg.end(END_REASONS["0/local"])
        await until(lambda: annex.told["call-0001"].ended == "0/remote")


async def test_both_dial_each_other_over_connections_of_their_own_and_one_call_lives() -> None:
    world: dict[str, ScriptedSession] = {}
    devices = {}
    doors = {}
    for name, other in (("annex", "lobby"), ("lobby", "annex")):
        door = Door(Device(name, None, world))
        await door.open()
        doors[name] = door
        devices[name] = other
    for name, other in tuple(devices.items()):
        peer = PeerSettings(other, f"http://127.0.0.1:{doors[other].port}", Secret(f"token-of-{name}"), "")
        doors[name].device = await Device(name, None, world, peers=[peer]).start()
    annex, lobby = doors["annex"].device, doors["lobby"].device
    first, second = await asyncio.gather(annex.dial("lan:lobby", "call-of-annex"),
                                         lobby.dial("lan:annex", "call-of-lobby"))
    await until(lambda: "Connected" in first.kinds and "Connected" in second.kinds)
    assert annex.incoming == lobby.incoming == []
    assert set(annex.provider.legs) == set(lobby.provider.legs) == {"call-of-annex"}
    await first.leg.end(END_REASONS["0/local"])
    await until(lambda: second.ended == "0/remote")
    for door in doors.values():
        await door.device.stop()
        await door.close()
