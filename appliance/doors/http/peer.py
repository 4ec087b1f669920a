"""The signalling WebSocket: made here, with its identity proven, and spoken by the provider."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from appliance.doors.http.auth import Caller
from appliance.errors import Refused
from appliance.handover import PeerAttach, PeerIdentity
from appliance.vocabulary import MAX_PAYLOAD

__all__ = ["PeerSockets", "SocketChannel"]

log = logging.getLogger(__name__)

PEERS_LIMIT: Final = 32
SEND_S: Final = 5.0
HEARTBEAT_S: Final = 10.0
"""Ping period; a peer whose pong is missing for half of it is gone."""

_PAGE: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


class SocketChannel:
    """A PeerChannel over one WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, identity: PeerIdentity) -> None:
        self._socket = socket
        self._identity = identity

    @property
    def identity(self) -> PeerIdentity:
        return self._identity

    async def send(self, text: str) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await self._socket.send_str(text)
        except TimeoutError as error:
            # What was half sent cannot be taken back: the connection is of no use any more.
            await self.close(WSCloseCode.GOING_AWAY, "too slow")
            raise ConnectionError("the peer does not take what is sent to it") from error

    async def __aiter__(self) -> AsyncIterator[str]:
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                yield message.data
            else:
                await self.close(WSCloseCode.UNSUPPORTED_DATA, "text only")
                return

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close; a peer that does not answer is dropped after 1 s (the socket's own close time-out)."""
        await self._socket.close(code=code, message=reason.encode()[:123])


class PeerSockets:
    """All peers of ``/v1/peer``."""

    def __init__(self, attach: PeerAttach | None) -> None:
        self._attach = attach
        self._open: set[SocketChannel] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request, caller: Caller) -> web.WebSocketResponse:
        """Speak with one peer until it leaves. ``?page=`` tells two tabs of one browser apart."""
        if self._attach is None:
            raise Refused("Direct calls are not available on this appliance.", code=501, sub_code="noProvider")
        if len(self._open) >= PEERS_LIMIT:
            raise Refused(f"There are {PEERS_LIMIT} peers connected already.", code=503, sub_code="peers")
        page = request.query.get("page", "")
        if page and not _PAGE.fullmatch(page):
            raise Refused("page has 1 to 64 letters, digits or hyphens.", code=400, sub_code="badRequest")
        socket = web.WebSocketResponse(max_msg_size=MAX_PAYLOAD + 1, heartbeat=HEARTBEAT_S, timeout=1.0)
        await socket.prepare(request)
        identity = PeerIdentity(caller.grant.name, caller.grant.scope, caller.grant.display_name, caller.loopback,
                                f"{caller.session}:{page}" if page else caller.session)
        channel = SocketChannel(socket, identity)
        self._open.add(channel)
        try:
            await self._attach(channel)
        except ConnectionError:
            log.debug("a peer left while it was being sent to")
        finally:
            self._open.discard(channel)
            await channel.close()
        return socket

    async def close(self, session: str | None = None, reason: str = "shutdown") -> None:
        """Close all peers, or those of one session."""
        channels = [c for c in self._open if session is None or c.identity.session.partition(":")[0] == session]
        await asyncio.gather(*(c.close(WSCloseCode.GOING_AWAY, reason) for c in channels))
