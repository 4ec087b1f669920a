"""What STUN and TURN servers are asked, by aioice's transactions: what address a socket has outside (RFC 8445 5.1.1.2),
and whether a server would be of use to a call. What they say no with is told as an OSError for people.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from aioice import stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import StunProtocol
from aioice.turn import create_turn_endpoint

from appliance.media.servers import Server, ServerPool

__all__ = ["in_words", "is_of_use", "seen_by"]


async def seen_by(server: Server, protocol: StunProtocol) -> Candidate:
    """The server-reflexive candidate of one socket (RFC 8445 5.1.1.2). Raises OSError."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    with in_words():
        response, _ = await protocol.request(request, await _address(server))
    own, (host, port) = protocol.local_candidate, response.attributes["XOR-MAPPED-ADDRESS"]
    return Candidate(
        foundation=candidate_foundation("srflx", "udp", own.host), component=own.component, transport=own.transport,
        priority=candidate_priority(own.component, "srflx"), host=host, port=port, type="srflx",
        related_address=own.host, related_port=own.port,
    )


async def _address(server: Server) -> tuple[str, int]:
    family = socket.AF_INET6 if server.is_ipv6 else socket.AF_INET
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(server.host, server.port, family=family, type=socket.SOCK_DGRAM)
    return str(found[0][4][0]), server.port


@contextmanager
def in_words() -> Iterator[None]:
    """What a STUN or TURN server says no with, as an OSError for people."""
    try:
        yield
    except stun.TransactionTimeout as error:
        raise TimeoutError from error
    except stun.TransactionFailed as error:
        if error.response.error_code == 401:
            raise ConnectionError("it refuses the login; check turn_username and turn_password_file, or "
                                  "turn_secret_file") from error
        code, reason = error.response.attributes.get("ERROR-CODE", (0, "no reason"))
        raise ConnectionError(f"it answers {code} {reason.strip()}") from error


class _Question(asyncio.DatagramProtocol):
    """One STUN transaction of its own socket."""

    def __init__(self, request: stun.Message) -> None:
        self._request = request
        self._transport: asyncio.DatagramTransport | None = None
        self.transaction: stun.Transaction | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        with suppress(ValueError):
            message = stun.parse_message(data)
            if message.transaction_id == self._request.transaction_id and self.transaction is not None:
                self.transaction.response_received(message, addr[:2])

    def send_stun(self, message: stun.Message, _addr: tuple[str, int]) -> None:
        """For aioice's transaction: send, or send again."""
        if self._transport is not None:
            self._transport.sendto(bytes(message))


async def is_of_use(pool: ServerPool, server: Server) -> None:
    """Ask a server as a call would, and let go of what it gave. Raises OSError or ValueError when it is of no use."""
    with in_words():
        if server.scheme == "stun":
            await _asks_stun(server)
            return
        closed = asyncio.Event()
        username, password = server.login()
        transport, _ = await create_turn_endpoint(
            lambda: _Closing(closed), (server.host, server.port), username or None, password or None,
            ssl=await pool.tls() if server.transport == "tls" else None,
            transport="udp" if server.transport == "udp" else "tcp",
        )
    transport.close()
    await closed.wait()


class _Closing(asyncio.DatagramProtocol):
    def __init__(self, closed: asyncio.Event) -> None:
        self._closed = closed

    def connection_lost(self, _: Exception | None) -> None:
        self._closed.set()


async def _asks_stun(server: Server) -> None:
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    address = await _address(server)
    transport, question = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Question(request), remote_addr=address)
    question.transaction = stun.Transaction(request, address, question)
    try:
        await question.transaction.run()
    finally:
        transport.close()
