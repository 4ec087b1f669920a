"""Somebody between an appliance and its Janus: who makes the way longer, cuts it, says more or less than this Janus, or
has a word of its own in the appliance's session."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.ports import free_port

__all__ = ["Between", "between"]

PROTOCOL = "janus-protocol"


class Between:
    """A WebSocket relay to ``url``, at ``host``. ``delay_s`` each way. ``identities``: what a person says to be is
    handed on to the others, as Janus does from 1.2 on; shared by those who are to know of one another. ``nameless``: it
    is kept back, as earlier ones do. ``tls``: spoken to the appliance."""

    def __init__(
        self, url: str, *, delay_s: float = 0.0, identities: dict[int, Any] | None = None, nameless: bool = False,
        host: str = "127.0.0.1", tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target = url
        self._host = host
        self._tls = tls
        self._delay_s = delay_s
        self._identities = identities
        self._nameless = nameless
        self._claims: dict[str, Any] = {}  # transaction -> metadata
        self._upstream: aiohttp.ClientWebSocketResponse | None = None
        self._runner: web.AppRunner | None = None
        self.port = free_port()
        self.asked: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"{'ws' if self._tls is None else 'wss'}://{self._host}:{self.port}"

    async def open(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port, ssl_context=self._tls).start()

    async def close(self) -> None:
        """As a server that is killed."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def say(self, message: Mapping[str, Any]) -> None:
        """In the name of who is connected."""
        assert self._upstream is not None
        session = next(one["session_id"] for one in reversed(self.asked) if "session_id" in one)
        await self._upstream.send_json({"session_id": session, "transaction": "of-the-test", **message})

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        self.connections += 1
        client = web.WebSocketResponse(protocols=(PROTOCOL,))
        await client.prepare(request)
        async with aiohttp.ClientSession() as http, http.ws_connect(self._target, protocols=(PROTOCOL,)) as server:
            self._upstream = server
            ways = [asyncio.create_task(self._relay(client, server, self._asked)),
                    asyncio.create_task(self._relay(server, client, self._told))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        return client

    async def _relay(self, source: Any, sink: Any, look: Any) -> None:
        line: asyncio.Queue[tuple[float, str]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                due, text = await line.get()
                await asyncio.sleep(due - loop.time())
                await sink.send_str(text)

        delivering = asyncio.create_task(deliver())
        try:
            async for message in source:
                if message.type is aiohttp.WSMsgType.TEXT:
                    line.put_nowait((loop.time() + self._delay_s, json.dumps(look(json.loads(message.data)))))
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(message)
        body = message.get("body", {})
        if body.get("request") == "join" and "metadata" in body:
            self._claims[message["transaction"]] = body["metadata"]
        return message

    def _told(self, message: dict[str, Any]) -> dict[str, Any]:
        self.told.append(message)
        data = message.get("plugindata", {}).get("data", {})
        known = self._identities
        if known is not None and data.get("videoroom") == "joined" and message.get("transaction") in self._claims:
            known[data["id"]] = self._claims.pop(message["transaction"])
        for entry in (*data.get("publishers", ()), *data.get("attendees", ()), *(
                [data["joining"]] if "joining" in data else [])):
            if self._nameless:
                entry.pop("metadata", None)
            elif known is not None and entry["id"] in known:
                entry.setdefault("metadata", known[entry["id"]])  # of Janus 1.2 it is the server's own word
        return message


@asynccontextmanager
async def between(
    url: str, *, delay_s: float = 0.0, identities: dict[int, Any] | None = None, nameless: bool = False,
    host: str = "127.0.0.1", tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Between]:
    made = Between(url, delay_s=delay_s, identities=identities, nameless=nameless, host=host, tls=tls)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
