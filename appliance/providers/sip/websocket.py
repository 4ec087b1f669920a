"""SIP over a WebSocket (RFC 7118): one connection to the server, one message in each frame. Calls come in by it too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from appliance.providers.sip.agent import Hop, Seen
from appliance.providers.sip.message import MAX_MESSAGE
from appliance.providers.sip.transport import CLOSE_S, CONNECT_S, WAITING, Flow, Received

__all__ = ["WebSocketFlow"]

log = logging.getLogger(__name__)

SUBPROTOCOL: Final = "sip"
HEARTBEAT_S: Final = 20.0
"""Between two pings; without a pong within half of it the connection is broken."""


class WebSocketFlow(Flow):
    """``path``: of the server's URL. ``tls``: None for ws: in the clear."""

    def __init__(
        self, server: Hop, path: str, tls: ssl.SSLContext | None, received: Received, on_broken: Callable[[], None],
    ) -> None:
        super().__init__(server, received, on_broken)
        self._path = path
        self._tls = tls
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._out: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        await self.close()
        self._http = _client()
        try:
            async with asyncio.timeout(CONNECT_S):
                socket = await self._http.ws_connect(
                    self._url(), protocols=(SUBPROTOCOL,), heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE, compress=0,
                    ssl=self._tls if self._tls is not None else True, timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S))
        except TimeoutError as error:
            raise OSError(f"no connection within {CONNECT_S:.0f} s") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise error.certificate_error from error
        except aiohttp.WSServerHandshakeError as error:
            raise OSError(f"it is no WebSocket server at {self._path} (HTTP {error.status})") from error
        except OSError:
            raise
        except (aiohttp.ClientError, ValueError) as error:
            raise OSError(str(error)) from error
        own, peer = socket.get_extra_info("sockname"), socket.get_extra_info("peername")
        if socket.protocol != SUBPROTOCOL or own is None or peer is None:
            await socket.close()
            raise OSError("the WebSocket server speaks another protocol than SIP")
        self._address = str(own[0]).partition("%")[0], int(own[1])
        self._socket = socket
        hop = Hop(self.server.transport, str(peer[0]).partition("%")[0], int(peer[1]))
        self._out = asyncio.Queue(WAITING)
        self._tasks = [asyncio.create_task(self._read(socket, hop), name="sip.websocket.read"),
                       asyncio.create_task(self._write(socket, self._out), name="sip.websocket.write")]

    def _url(self) -> str:
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return f"{self.server.transport}://{host}:{self.server.port}{self._path}"

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, hop: Hop) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._received(message.data.encode("utf-8", "surrogateescape"), hop)
            elif message.type is aiohttp.WSMsgType.BINARY:
                self._received(message.data, hop)
        if self._socket is socket:
            self._socket = None
            self._on_broken()

    async def _write(self, socket: aiohttp.ClientWebSocketResponse, out: asyncio.Queue[bytes]) -> None:
        while True:
            data = await out.get()
            try:
                await socket.send_bytes(data)
            except (aiohttp.ClientError, OSError) as error:
                log.debug("the connection ends: %s", error)
            finally:
                out.task_done()

    def send(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None:
        if self._socket is None or self._socket.closed or self._out.full():
            asyncio.get_running_loop().call_soon(failed)
        else:
            self._out.put_nowait(data)

    def probe(self, heard: Callable[[Seen | None], None]) -> None:
        """Nothing: pings of the WebSocket's own, every HEARTBEAT_S, do it (RFC 7118 6)."""

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        tasks, self._tasks = self._tasks, []
        http, self._http = self._http, None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                if socket is not None and not socket.closed:
                    await self._out.join()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if socket is not None:
            await socket.close()
        if http is not None:
            await http.close()


def _client() -> aiohttp.ClientSession:
    """Follows no redirect: login and calls are for the server of the settings alone."""
    watch = aiohttp.TraceConfig()
    watch.on_request_redirect.append(_no_redirect)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[watch])


async def _no_redirect(*_: Any) -> None:
    raise ValueError("it redirects; write the address that it redirects to into the settings")
