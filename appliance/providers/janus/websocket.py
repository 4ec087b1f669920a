"""A Janus server by its WebSocket transport."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Set
from typing import Any, Final

import aiohttp

from appliance.network import is_cut_off
from appliance.providers.janus.transport import CLOSE_S, HEARTBEAT_S, MAX_MESSAGE, Channel, parsed
from appliance.vocabulary import Json

__all__ = ["WebSockets"]

log = logging.getLogger(__name__)

SUBPROTOCOL: Final = "janus-protocol"


class WebSockets:
    """``context``: authorities of the servers' certificates; None: those of the system."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._http: aiohttp.ClientSession | None = None
        self._closed = False

    async def connect(self, url: str) -> Channel:
        """As ``transport.Connect``."""
        if self._closed:
            raise ConnectionError("the appliance is shutting down")
        if self._http is None:
            self._http = _open_http()
        try:
            socket = await self._http.ws_connect(
                url, protocols=(SUBPROTOCOL,), heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE,
                ssl=self._context if self._context is not None else True,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S))
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error
        if socket.protocol != SUBPROTOCOL:
            await socket.close()
            raise ValueError(f"it speaks another protocol than {SUBPROTOCOL}")
        return _WebSocket(socket)

    async def close(self) -> None:
        """No connection is made from here on. May be called twice."""
        self._closed = True
        http, self._http = self._http, None
        if http is not None:
            await http.close()


class _WebSocket:
    """A Channel. Without a pong within half of HEARTBEAT_S it is over."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, message: Json) -> None:
        try:
            await self._socket.send_str(json.dumps(message, separators=(",", ":")))
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error

    async def receive(self) -> Json:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            told = parsed(message.data)
            if told is not None:
                return told
            log.warning("a message of the room server is no JSON object; it is left out")
        raise ConnectionError("it closed the connection")

    def is_cut_off(self, addresses: Set[str]) -> bool:
        name = self._socket.get_extra_info("sockname")
        return name is not None and is_cut_off(name[0], addresses)

    async def close(self) -> None:
        await self._socket.close()


def _open_http() -> aiohttp.ClientSession:
    """A client that follows no redirect: PIN, token and secrets are for the server of the settings alone."""
    watch = aiohttp.TraceConfig()
    watch.on_request_redirect.append(_no_redirect)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[watch])


async def _no_redirect(*_: Any) -> None:
    raise ValueError("it redirects; write the address that it redirects to into the settings")
