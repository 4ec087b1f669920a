"""Appliances on the LAN that we call: a WebSocket client to their ``/v1/peer``, with the token they gave us.

The connection is made for a call, comes back by itself while a call lives or its end is not told yet, and is closed
10 s after the last one. The other appliance proves itself by its certificate (a known CA, or the fingerprint in
``direct.peers``); plain ``http`` is refused except to this machine, because the token would be readable.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Sequence, Set
from typing import Final

import aiohttp
from yarl import URL

from appliance.backoff import Backoff, doubling
from appliance.clock import Clock
from appliance.errors import Refused
from appliance.network import is_cut_off
from appliance.providers.api import Peer
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.endpoint import Endpoint, Switchboard
from appliance.settings import PeerSettings
from appliance.vocabulary import END_REASONS

__all__ = ["LanPeers"]

log = logging.getLogger(__name__)

CONNECT_S: Final = 4.0
SEND_S: Final = 5.0
CLOSE_S: Final = 1.0  # for the other side's word at the end
IDLE_S: Final = 10.0
HEARTBEAT_S: Final = 5.0
BACK_OFF_S: Final = doubling(0.5, 4.0)
"""Between attempts while a call lives."""


class _Client:
    """A Wire over aiohttp's client WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, text: str, expiry_s: int) -> bool:
        try:
            async with asyncio.timeout(SEND_S):
                await self._socket.send_str(text)
        except (ConnectionError, TimeoutError, aiohttp.ClientError):
            return False
        return True

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode()[:123])


class _LanPeer:
    """One configured peer: its endpoint and the task that keeps the connection."""

    def __init__(self, settings: PeerSettings, me: wire.Party, switchboard: Switchboard, clock: Clock) -> None:
        self._settings = settings
        self._me = me
        self._clock = clock
        self._token = ""
        self._task: asyncio.Task[None] | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._try_now = asyncio.Event()
        peer = Peer(settings.name, f"lan:{settings.name}", settings.name, "device", verified=True)
        self.endpoint = Endpoint(f"lan:{settings.name}", peer, switchboard, clock, loopback=_is_loopback(self._url),
                                 on_signal=self._on_signal)

    @property
    def _url(self) -> URL:
        return URL(self._settings.url)

    def wake(self) -> None:
        """Connect, if not connected."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"direct.lan.{self._settings.name}")

    def network_changed(self, addresses: Set[str]) -> None:
        """Leave a connection that begins at none of these addresses any more, and try again without a pause."""
        self._try_now.set()
        if self._socket is None or (name := self._socket.get_extra_info("sockname")) is None:
            return
        if is_cut_off(name[0], addresses) and self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(self._socket), name=f"direct.lan.leave.{self.endpoint.key}")

    async def _leave(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Its reader returns at once; the word of the other side, which cannot come, is waited for here."""
        try:
            await socket.close()
        finally:
            self._leaving = None

    async def close(self) -> None:
        task, self._task = self._task, None
        ending = [one for one in (task, self._leaving) if one is not None]
        for one in ending:
            one.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await self.endpoint.close()

    async def _run(self) -> None:
        backoff = Backoff(BACK_OFF_S)
        async with aiohttp.ClientSession() as http:
            while True:
                try:
                    await self._talk(http)
                    backoff.succeeded()
                except aiohttp.WSServerHandshakeError as error:
                    log.warning("the appliance %s refuses the connection: status %d", self._settings.name, error.status)
                    if error.status in (401, 403):
                        self.endpoint.gone(left=False, reason=END_REASONS["401/token"])
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    if not backoff.failures:
                        log.warning("the appliance %s is not reached: %s", self._settings.name, error)
                if not self.endpoint.calls and not self.endpoint.waiting:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.failed()):
                        await self._try_now.wait()
                self._try_now.clear()

    async def _talk(self, http: aiohttp.ClientSession) -> None:
        """One connection, until it breaks or has been idle for long."""
        pin = self._settings.fingerprint.replace(":", "")
        tls: aiohttp.Fingerprint | bool = aiohttp.Fingerprint(bytes.fromhex(pin)) if pin else True
        async with asyncio.timeout(CONNECT_S):
            socket = await http.ws_connect(
                self._url / "v1" / "peer", ssl=tls, heartbeat=HEARTBEAT_S, max_msg_size=wire.MAX_SIGNAL + 1,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                headers={"Authorization": f"Bearer {self._settings.token.reveal()}"})
        async with socket:
            client = _Client(socket)
            hello = wire.Hello("appliance", self._token, self._me.identity, self._me.display_name)
            await client.send(wire.pack(hello, ts=self._clock.wall()), 0)
            self.endpoint.attach(client)
            self._socket = socket
            try:
                await self._read(socket)
            finally:
                self._socket = None
                self.endpoint.detach(client)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            try:
                message = await socket.receive(timeout=IDLE_S)
            except TimeoutError:
                if not self.endpoint.calls:
                    return
                continue
            if message.type is not aiohttp.WSMsgType.TEXT or not self.endpoint.receive(message.data):
                return

    def _on_signal(self, endpoint: Endpoint, signal: wire.Signal) -> None:
        if isinstance(signal, wire.Welcome):
            self._token = signal.token
            endpoint.device = signal.device


class LanPeers:
    """The peers of ``direct.peers`` by name."""

    def __init__(self, me: wire.Party, switchboard: Switchboard, clock: Clock,
                 peers: Sequence[PeerSettings]) -> None:
        self._settings = {peer.name: peer for peer in peers}
        self._me = me
        self._switchboard = switchboard
        self._clock = clock
        self._peers: dict[str, _LanPeer] = {}

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._settings)

    def connected(self, name: str) -> bool:
        return name in self._peers and self._peers[name].endpoint.up

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of a peer, being connected. Raises Refused for an unknown one, or an address that would give
        the token away."""
        settings = self._settings.get(name)
        if settings is None:
            raise Refused(f"There is no peer {name!r} in direct.peers.", code=404, sub_code="notFound")
        url = URL(settings.url)
        if url.scheme not in ("http", "https") or (url.scheme == "http" and not _is_loopback(url)):
            raise Refused(f"The address of peer {name!r} must begin with https://.", code=480, sub_code="unreachable")
        if name not in self._peers:
            self._peers[name] = _LanPeer(settings, self._me, self._switchboard, self._clock)
        self._peers[name].wake()
        return self._peers[name].endpoint

    def network_changed(self, addresses: Set[str]) -> None:
        for peer in self._peers.values():
            peer.network_changed(addresses)

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        peers, self._peers = list(self._peers.values()), {}
        await asyncio.gather(*(peer.close() for peer in peers))


def _is_loopback(url: URL) -> bool:
    if url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.host or "").is_loopback
    except ValueError:
        return False
