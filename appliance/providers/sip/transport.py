"""The network of one account: a UDP socket, or one connection over TCP or TLS, which calls come in by too (RFC 5626).

Beside the UDP socket there are connections for what is too large for a datagram (RFC 3261 18.1.1).
Over a connection everything goes to the server at its other end, which knows the way on; a device behind a translator
could not be reached otherwise. Only who has made a connection to us (``listener``) is answered by that. TLS checks the
server's certificate and its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from appliance.providers.sip.agent import Hop, Seen
from appliance.providers.sip.description import is_address
from appliance.providers.sip.listener import Listener, read_messages
from appliance.providers.sip.message import PING
from appliance.providers.sip.stun import TRANSACTION, binding_request, is_stun, seen_address

__all__ = ["CLOSE_S", "CONNECT_S", "WAITING", "Flow", "Received", "StreamFlow", "UdpFlow"]

log = logging.getLogger(__name__)

CONNECT_S: Final = 4.0
"""TCP and the TLS handshake; as long as a server may take to say anything at all (decisions K5)."""
RESOLVE_S: Final = 4.0
CLOSE_S: Final = 0.5
NAME_KEPT_S: Final = 60.0
NAMES: Final = 64
WAITING: Final = 256  # messages that wait for a name, or for a connection that does not take them
PROBES_S: Final = (0.0, 0.5, 1.5, 3.5, 7.5)
"""When a STUN request is sent, and again (RFC 8489 6.2.1)."""
LARGE_S: Final = 2.0
"""For a connection beside a UDP socket. Many servers that listen to UDP alone do not say so, and the call waits."""
LARGE_WAYS: Final = 8
BACKLOG: Final = 256 * 1024  # bytes that a connection has not taken: the server hangs

Received = Callable[[bytes, Hop], None]
Address = tuple[str, int]


class Flow(ABC):
    """A ``Wire`` with a life. ``on_broken``: it carries nothing any more, and must be opened anew."""

    def __init__(self, server: Hop, received: Received, on_broken: Callable[[], None]) -> None:
        self.server = server
        self._received = received
        self._on_broken = on_broken
        self._address: Address = ("0.0.0.0", 0)  # noqa: S104 - of a flow that is not open

    def local(self, hop: Hop) -> Address:
        return self._address

    @abstractmethod
    async def open(self) -> None:
        """Reach for the server. Raises OSError with words for people."""

    @abstractmethod
    def send(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None: ...

    @abstractmethod
    def probe(self, heard: Callable[[Seen | None], None]) -> None:
        """Ask what is next on the way for a sign of life; ``heard`` is told where it saw us, None where it does not
        say. The latest one counts."""

    @abstractmethod
    async def close(self) -> None:
        """What was sent still leaves; may be called twice."""


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Received, probed: Callable[[bytes], None]) -> None:
        self._received = received
        self._probed = probed
        self.gone = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if is_stun(data):
            self._probed(data)
        else:
            self._received(data, Hop("udp", str(addr[0]).partition("%")[0], int(addr[1])))

    def error_received(self, exc: Exception) -> None:
        log.debug("the network refuses a message: %s", exc)  # what is not answered is sent again, and then given up


class UdpFlow(Flow):
    """``port``: of ours, 0 for any. It is bound to the address that leads to the server."""

    def __init__(self, server: Hop, port: int, received: Received, on_broken: Callable[[], None]) -> None:
        super().__init__(server, received, on_broken)
        self._port = port
        self._transport: asyncio.DatagramTransport | None = None
        self._datagrams = _Datagrams(received, self._probed)
        self._large = _Connections(received)
        self._names: dict[str, tuple[str, float]] = {}
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._probe: tuple[bytes, Callable[[Seen | None], None]] = b"", _nobody  # the latest: its id, who wants to know
        self._probes: list[asyncio.TimerHandle] = []

    async def open(self) -> None:
        await self.close()
        loop = asyncio.get_running_loop()
        own = await _own_address(self.server)
        self._transport, self._datagrams = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._received, self._probed), local_addr=(own, self._port))
        self._address = own, int(self._transport.get_extra_info("sockname")[1])

    def send(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        if hop.transport == "tcp" and self._transport is not None:
            self._large.send(data, hop, failed)
            return
        known = hop.host if is_address(hop.host) else self._known(hop.host, loop.time())
        if hop.transport != "udp" or self._waiting >= WAITING:
            loop.call_soon(failed)
        elif known is None:
            self._waiting += 1
            task = loop.create_task(self._send_to_name(data, hop, failed), name="sip.resolve")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._send(data, (known, hop.port), failed)

    def _send(self, data: bytes, to: Address, failed: Callable[[], None]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or (":" in to[0]) != (":" in self._address[0]):
            asyncio.get_running_loop().call_soon(failed)
        else:
            transport.sendto(data, to)

    def _known(self, name: str, now: float) -> str | None:
        found = self._names.get(name)
        return found[0] if found is not None and now - found[1] < NAME_KEPT_S else None

    async def _send_to_name(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None:
        try:
            address = await _resolve(hop.host)
        except OSError as error:
            log.debug("an address is not found: %s", error)
            failed()
            return
        finally:
            self._waiting -= 1
        if len(self._names) >= NAMES:
            self._names.clear()
        self._names[hop.host] = address, asyncio.get_running_loop().time()
        self._send(data, (address, hop.port), failed)

    def probe(self, heard: Callable[[Seen | None], None]) -> None:
        self._end_probe()
        loop = asyncio.get_running_loop()
        transaction = secrets.token_bytes(TRANSACTION)
        self._probe = transaction, heard
        request = binding_request(transaction)
        self._probes = [loop.call_later(after, self.send, request, self.server, lambda: None) for after in PROBES_S]

    def _probed(self, data: bytes) -> None:
        transaction, heard = self._probe
        seen = seen_address(data, transaction)
        if seen is not None:
            self._end_probe()
            heard(seen)

    def _end_probe(self) -> None:
        self._probe = b"", _nobody
        for timer in self._probes:
            timer.cancel()
        self._probes.clear()

    async def close(self) -> None:
        self._end_probe()
        transport, self._transport = self._transport, None
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._large.close()
        if transport is not None:
            transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._datagrams.gone.wait()  # or a port of ours is still in use when it is opened again


class StreamFlow(Flow):
    """``tls``: None for TCP. ``listener``: calls come in by connections of others, too."""

    def __init__(
        self, server: Hop, tls: ssl.SSLContext | None, received: Received, on_broken: Callable[[], None],
        listener: Listener | None = None,
    ) -> None:
        super().__init__(server, received, on_broken)
        self._tls = tls
        self._listener = listener
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None
        self._heard: Callable[[Seen | None], None] = _nobody

    async def open(self) -> None:
        await self._hang_up()
        if self._listener is not None:
            await self._listener.open(await _own_address(self.server))
            self._address = self._listener.address
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    self.server.host, self.server.port, ssl=self._tls,
                    server_hostname=(self.server.name or self.server.host) if self._tls is not None else None)
        except TimeoutError as error:
            raise OSError(f"no connection within {CONNECT_S:.0f} s") from error
        own, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        if self._listener is None:
            self._address = str(own[0]).partition("%")[0], int(own[1])
        self._writer = writer
        hop = Hop(self.server.transport, str(peer[0]).partition("%")[0], int(peer[1]))
        self._reader = asyncio.create_task(self._read(reader, writer, hop), name="sip.connection")

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hop: Hop) -> None:
        await read_messages(reader, writer, lambda message: self._received(message, hop), lambda: self._heard(None))
        if self._writer is writer:
            self._writer = None
            self._on_broken()

    def send(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None:
        writer = self._way(hop)
        if writer is None or writer.is_closing() or writer.transport.get_write_buffer_size() > BACKLOG:
            asyncio.get_running_loop().call_soon(failed)
        else:
            writer.write(data)

    def probe(self, heard: Callable[[Seen | None], None]) -> None:
        self._heard = heard
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(PING)

    def _way(self, hop: Hop) -> asyncio.StreamWriter | None:
        to_server = (hop.host, hop.port) == (self.server.host, self.server.port) and self._writer is not None
        if self._listener is None or to_server:
            return self._writer
        return self._listener.writer_for(hop, any_port=True) or self._writer

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
        await self._hang_up()

    async def _hang_up(self) -> None:
        """What was written is still sent."""
        self._heard = _nobody
        writer, self._writer = self._writer, None
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()


class _Connections:
    """By TCP, each made for the first message to its hop and kept until the peer closes it, or newer ones are too
    many. What the peer says by one is received; an answer to it goes back by the same."""

    def __init__(self, received: Received) -> None:
        self._received = received
        self._ways: dict[Hop, tuple[StreamFlow, asyncio.Task[None]]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def send(self, data: bytes, hop: Hop, failed: Callable[[], None]) -> None:
        """In order; see ``Wire``."""
        flow, opened = self._ways.get(hop) or self._open(hop)

        def ready(_: asyncio.Task[None]) -> None:
            if opened.cancelled() or opened.exception() is not None:
                failed()
            else:
                flow.send(data, hop, failed)

        opened.add_done_callback(ready)

    def _open(self, hop: Hop) -> tuple[StreamFlow, asyncio.Task[None]]:
        while len(self._ways) >= LARGE_WAYS:
            self._end(next(iter(self._ways)))
        flow = StreamFlow(hop, None, self._received, lambda: self._end(hop))
        opened = asyncio.create_task(self._opened(flow, hop), name="sip.large")
        self._ways[hop] = flow, opened
        return flow, opened

    async def _opened(self, flow: StreamFlow, hop: Hop) -> None:
        try:
            address = await _resolve(hop.host)
            async with asyncio.timeout(LARGE_S):
                await flow.open()
        except OSError as error:
            log.debug("no connection for a large message: %s", error)
            self._forget(hop)
            raise
        self._ways.setdefault(Hop(hop.transport, address, hop.port), self._ways[hop])  # what comes by it is from there

    def _forget(self, hop: Hop) -> tuple[StreamFlow, asyncio.Task[None]] | None:
        way = self._ways.get(hop)
        for other in [one for one, same in self._ways.items() if same is way]:
            del self._ways[other]
        return way

    def _end(self, hop: Hop) -> None:
        way = self._forget(hop)
        if way is not None:
            way[1].cancel()
            task = asyncio.create_task(way[0].close(), name="sip.large.close")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """May be called twice."""
        opening = [opened for _, opened in self._ways.values()]
        for hop in tuple(self._ways):
            self._end(hop)
        await asyncio.gather(*opening, *self._closing, return_exceptions=True)


def _nobody(_: Seen | None) -> None:
    return None


async def _own_address(server: Hop) -> str:
    """Which of ours leads there. Raises OSError."""
    remote = await _resolve(server.host)
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        probe.connect((remote, server.port))  # nothing is sent: the kernel only looks for the way
        return str(probe.getsockname()[0])


async def _resolve(host: str) -> str:
    """The first address of a name. Raises OSError."""
    if is_address(host):
        return host
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except TimeoutError as error:
        raise OSError("the name server does not answer") from error
    return str(found[0][4][0])
