"""A telephone line that loses packets: everything between two SIP peers goes through it, and each nth packet of sound,
by a seeded dice, is lost in both directions. Signalling is not: it has tests of its own.

Where a description says ``m=audio PORT`` the line puts a port of its own; with as many digits, so that no length in the
message changes. RTCP does not pass.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["LossyLine", "lossy_line"]

HOST: Final = "127.0.0.1"
_PORT: Final = re.compile(rb"m=audio (\d{5}) ")

Address = tuple[str, int]


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received
        self.transport: asyncio.DatagramTransport | None = None

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._received(data, addr)

    def send(self, data: bytes, to: Address) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.sendto(data, to)


class LossyLine:
    """To the peer at ``phone``. ``carried`` and ``lost``: packets of sound."""

    def __init__(self, phone: int, loss: float, seed: int) -> None:
        self.port = 0
        self.carried = 0
        self.lost = 0
        self._phone: Address = (HOST, phone)
        self._loss = loss
        self._dice = random.Random(seed)
        self._signalling = _Socket(self._message)
        self._caller: Address | None = None
        self._sound = (_Socket(lambda data, _: self._packet(data, 0)), _Socket(lambda data, _: self._packet(data, 1)))
        """What stands for the phone at the caller, and the other way round."""
        self._ends: list[Address | None] = [None, None]  # where the phone takes sound, and where the caller does

    async def open(self) -> None:
        self.port = await self._bind(self._signalling)
        self._ports = [await self._bind(one) for one in self._sound]

    @staticmethod
    async def _bind(end: _Socket) -> int:
        loop = asyncio.get_running_loop()
        while True:
            plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            plain.bind((HOST, 0))
            if (port := int(plain.getsockname()[1])) >= 10_000:
                end.transport, _ = await loop.create_datagram_endpoint(lambda: end, sock=plain)
                return port
            plain.close()

    def close(self) -> None:
        for one in (self._signalling, *self._sound):
            if one.transport is not None:
                one.transport.close()

    def _message(self, data: bytes, addr: Address) -> None:
        from_phone = addr == self._phone
        if not from_phone:
            self._caller = addr
        to = self._caller if from_phone else self._phone
        side = 0 if from_phone else 1

        def ours(match: re.Match[bytes]) -> bytes:
            self._ends[side] = (HOST, int(match[1]))
            return b"m=audio %d " % self._ports[side]

        if to is not None:
            self._signalling.send(_PORT.sub(ours, data), to)

    def _packet(self, data: bytes, side: int) -> None:
        """Of the caller (0) to the phone, or of the phone (1) to the caller."""
        self.carried += 1
        end = self._ends[side]
        if self._dice.random() < self._loss:
            self.lost += 1
        elif end is not None:
            self._sound[1 - side].send(data, end)


@asynccontextmanager
async def lossy_line(phone: int, loss: float, seed: int = 1) -> AsyncIterator[LossyLine]:
    line = LossyLine(phone, loss, seed)
    await line.open()
    try:
        yield line
    finally:
        line.close()
