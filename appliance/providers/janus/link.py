"""The WebSocket to one of the Janus servers: JSON objects in order, both ways, and the word that it is up or gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Callable, Set
from typing import Any, Final

import aiohttp

from appliance.providers.janus.endpoints import Endpoints
from appliance.vocabulary import Json

__all__ = ["JanusLink", "connect", "open_http", "parsed"]

log = logging.getLogger(__name__)

SUBPROTOCOL: Final = "janus-protocol"
CONNECT_S: Final = 3.0
HURRY_S: Final = 1.5  # where there is another server to try
HEARTBEAT_S: Final = 5.0  # a ping after so much silence; without a pong the connection is gone after half of it more
MAX_MESSAGE: Final = 1024 * 1024  # bytes: a room of hundreds with the session descriptions of all that is shown
WAITING: Final = 256  # messages that wait to be sent
CLOSE_S: Final = 0.5


class JanusLink:
    """Connected as often as it is opened, to the server that ``endpoints`` selects; one connection at a time.

    Called on the loop, never for a connection that was shut: ``on_up`` (whether it is the server of the last time),
    ``on_message``, and ``on_down`` (with words for people, and whether another server has not been tried yet).
    """

    def __init__(
        self, http: aiohttp.ClientSession, endpoints: Endpoints, context: ssl.SSLContext | None, name: str, *,
        on_up: Callable[[bool], None], on_message: Callable[[Json], None], on_down: Callable[[str, bool], None],
    ) -> None:
        self._http = http
        self._endpoints = endpoints
        self._context = context
        self._name = name
        self._on_up = on_up
        self._on_message = on_message
        self._on_down = on_down
        self._outbox: asyncio.Queue[str | None] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None
        self._left: set[asyncio.Task[None]] = set()
        self._url = ""  # of the server that was connected to last
        self._tried: set[str] = set()  # in vain, since the last connection

    def open(self) -> None:
        """Connect; ``on_up`` or ``on_down`` follows."""
        self.shut()
        self._outbox = asyncio.Queue(WAITING)
        self._task = asyncio.create_task(self._serve(self._endpoints.selected, self._outbox),
                                         name=f"janus.link.{self._name}")

    def send(self, message: Json) -> None:
        """In order; to nobody when there is no connection."""
        try:
            self._outbox.put_nowait(json.dumps(message, separators=(",", ":")))
        except asyncio.QueueFull:  # a server that takes nothing for so long does not answer either, which is noticed
            log.warning("the room server takes no messages")

    def give_up(self, words: str) -> None:
        """The server that is connected says nothing."""
        self.shut()
        self._not_reached(self._url, words)

    def shut(self) -> None:
        """Leave the connection at once; its socket closes behind us."""
        if self._task is not None:
            self._task.cancel()
            self._left.add(self._task)
            self._task.add_done_callback(self._left.discard)
            self._task = None

    async def close(self) -> None:
        """Send what waits, then leave; within a second."""
        task = self._task
        if task is not None:
            with contextlib.suppress(asyncio.QueueFull):
                self._outbox.put_nowait(None)
            await asyncio.wait({task}, timeout=CLOSE_S)
        self.shut()
        if self._left:
            await asyncio.wait(tuple(self._left), timeout=CLOSE_S)

    async def _serve(self, url: str, outbox: asyncio.Queue[str | None]) -> None:
        try:
            await self._talk(url, outbox)
        except Exception:
            log.exception("the connection to the room server failed; this is a defect")
            if self._task is asyncio.current_task():
                self._task = None
                self._on_down("it was left because of a fault here", False)

    async def _talk(self, url: str, outbox: asyncio.Queue[str | None]) -> None:
        try:
            async with asyncio.timeout(HURRY_S if self._untried(url) else CONNECT_S):
                socket = await connect(self._http, url, self._context)
        except TimeoutError:
            self._not_reached(url, "no connection in time")
            return
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._not_reached(url, str(error))
            return
        async with contextlib.aclosing(_Closing(socket)):
            same, self._url = url == self._url, url
            self._tried.clear()
            self._endpoints.worked(url)
            writer = asyncio.create_task(self._write(socket, outbox), name=f"janus.link.write.{self._name}")
            try:
                self._on_up(same)
                await self._read(socket)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        self._task = None
        self._on_down("it closed the connection", False)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            told = parsed(message.data)
            if told is None:
                log.warning("a message of the room server is no JSON object; it is left out")
            else:
                self._on_message(told)

    async def _write(self, socket: aiohttp.ClientWebSocketResponse, outbox: asyncio.Queue[str | None]) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            while (text := await outbox.get()) is not None:
                await socket.send_str(text)
        await socket.close()

    def _untried(self, url: str) -> Set[str]:
        """The other servers."""
        return set(self._endpoints.urls) - self._tried - {url}

    def _not_reached(self, url: str, words: str) -> None:
        self._task = None
        self._endpoints.failed(url, words)
        elsewhere = bool(self._untried(url))
        self._tried = self._tried | {url} if elsewhere else set()
        self._on_down(words, elsewhere)


class _Closing:
    """A socket under the name that ``aclosing`` knows."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def aclose(self) -> None:
        await self._socket.close()


def open_http() -> aiohttp.ClientSession:
    """A client that follows no redirect: PIN, token and secrets are for the server of the settings alone."""
    watch = aiohttp.TraceConfig()
    watch.on_request_redirect.append(_no_redirect)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[watch])


async def _no_redirect(*_: Any) -> None:
    raise ValueError("it redirects; write the address that it redirects to into the settings")


async def connect(
    http: aiohttp.ClientSession, url: str, context: ssl.SSLContext | None,
) -> aiohttp.ClientWebSocketResponse:
    """Raises ClientError, OSError, and ValueError for what is no Janus server."""
    socket = await http.ws_connect(
        url, protocols=(SUBPROTOCOL,), heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE,
        ssl=context if context is not None else True, timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S))
    if socket.protocol != SUBPROTOCOL:
        await socket.close()
        raise ValueError(f"it speaks another protocol than {SUBPROTOCOL}")
    return socket


def parsed(text: Any) -> Json | None:
    """A JSON object; None for anything else."""
    try:
        message = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
