"""Connections that others make to us: a port over TCP or TLS, for trunks and exchanges that call in by it.

Over TLS a certificate that names one of those who are expected makes its connection trusted (RFC 5922); who shows none
may still be let in by the address it comes from.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Collection
from typing import Any, Final

from appliance.providers.sip.agent import Hop
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.message import MAX_MESSAGE, PING, PONG, Framer

__all__ = ["Listener", "read_messages"]

log = logging.getLogger(__name__)

CONNECTIONS: Final = 32
"""At a time. When another one comes the one that has been silent for longest goes: it can be made again."""
HANDSHAKE_S: Final = 4.0

Received = Callable[[bytes, Hop], None]


async def read_messages(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, take: Callable[[bytes], None],
    answered: Callable[[], None] = lambda: None,
) -> None:
    """Give each message to ``take`` and answer keep-alives, until the stream ends or cannot be cut; then it is
    closed. ``answered``: a keep-alive of ours was."""
    framer = Framer()
    try:
        while data := await reader.read(MAX_MESSAGE):
            for message in framer.feed(data):
                if message == PING:
                    writer.write(PONG)
                if message in (PING, PONG):  # two answers, one after the other, look like a PING
                    answered()
                else:
                    take(message)
            await writer.drain()  # who asks and does not listen is not read any further
    except (OSError, Malformed) as error:
        log.debug("the connection ends: %s", error)
    writer.close()


class Listener:
    """``names``: of certificates whose holders are trusted; the hop of what they send has theirs."""

    def __init__(
        self, transport: str, port: int, tls: ssl.SSLContext | None, names: Collection[str], received: Received,
    ) -> None:
        self._transport = transport
        self._port = port
        self._tls = tls
        self._names = frozenset(name.lower() for name in names)
        self._received = received
        self._server: asyncio.Server | None = None
        self._host = ""
        self._writers: dict[tuple[str, int], asyncio.StreamWriter] = {}  # who was heard last is the last

    @property
    def address(self) -> tuple[str, int]:
        return self._host, self._port

    async def open(self, host: str) -> None:
        """Listen at this address of ours; where that is done already nothing changes. Raises OSError with words for
        people."""
        if self._server is not None and host == self._host:
            return
        await self.close()
        try:
            self._server = await asyncio.start_server(
                self._accepted, host, self._port, ssl=self._tls, limit=MAX_MESSAGE, backlog=CONNECTIONS,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls is not None else None)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(f"calls cannot come in by port {self._port}: {why}") from error
        self._host = host

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if peer is None:  # gone already
            writer.close()
            return
        key = str(peer[0]).partition("%")[0], int(peer[1])
        while len(self._writers) >= CONNECTIONS:
            self._writers.pop(next(iter(self._writers))).close()
        self._writers[key] = writer
        hop = Hop(self._transport, *key, self._trusted_name(writer))

        def take(message: bytes) -> None:
            if key in self._writers:
                self._writers[key] = self._writers.pop(key)
            self._received(message, hop)

        try:
            await read_messages(reader, writer, take)
        finally:
            if self._writers.get(key) is writer:
                del self._writers[key]

    def _trusted_name(self, writer: asyncio.StreamWriter) -> str:
        """That of its certificate which is expected; empty where there is none."""
        certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
        told = (value.lower().removeprefix("sip:") for kind, value in certificate.get("subjectAltName", ())
                if kind in ("DNS", "URI", "IP Address"))
        return next((name for name in told if name in self._names), "")

    def writer_for(self, hop: Hop, *, any_port: bool = False) -> asyncio.StreamWriter | None:
        """The connection from there. ``any_port``: or from another port of that host, which is the same peer: what it
        calls from is not what it is called at."""
        exact = self._writers.get((hop.host, hop.port))
        if exact is not None or not any_port:
            return exact
        return next((one for (host, _), one in reversed(self._writers.items()) if host == hop.host), None)

    async def close(self) -> None:
        """May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for writer in tuple(self._writers.values()):
            writer.close()
        self._writers.clear()
