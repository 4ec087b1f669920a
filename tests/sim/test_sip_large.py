"""Connections beside a UDP socket, on real sockets: made, kept, made anew, refused, and gone with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from appliance.providers.sip import transport
from appliance.providers.sip.agent import Hop
from appliance.providers.sip.message import Framer
from appliance.providers.sip.transport import UdpFlow
from tests.support.waiting import until

MESSAGE = b"OPTIONS sip:a@127.0.0.1 SIP/2.0\r\nContent-Length: 4\r\n\r\nbody"


@dataclass
class Server:
    """``got``: the messages of each connection."""

    port: int = 0
    got: list[list[bytes]] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    closed: int = 0

    @property
    def hop(self) -> Hop:
        return Hop("tcp", "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[bytes] = []
        framer = Framer()
        self.got.append(mine)
        self.writers.append(writer)
        while data := await reader.read(65536):
            mine.extend(framer.feed(data))
        self.closed += 1
        writer.close()


class Failures:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@asynccontextmanager
async def flow() -> AsyncIterator[tuple[Server, UdpFlow, list[tuple[bytes, Hop]]]]:
    server, received = Server(), list[tuple[bytes, Hop]]()
    listening = await asyncio.start_server(server.serve, "0.0.0.0", 0)
    server.port = listening.sockets[0].getsockname()[1]
    made = UdpFlow(Hop("udp", "127.0.0.1", server.port), 0, lambda *one: received.append(one), lambda: None)
    await made.open()
    try:
        yield server, made, received
    finally:
        await made.close()
        await until(lambda: server.closed == len(server.writers), "closed")
        listening.close()


async def test_messages_go_by_one_connection_in_order_and_answers_come_by_it() -> None:
    async with flow() as (server, made, received):
        refused = Failures()
        for number in range(3):
            made.send(MESSAGE.replace(b"body", b"bod%d" % number), server.hop, refused)
        await until(lambda: server.got and len(server.got[0]) == 3, "messages")
        assert [one[-1:] for one in server.got[0]] == [b"0", b"1", b"2"]
        assert len(server.got) == 1
        server.writers[0].write(MESSAGE)
        await until(lambda: received, "an answer")
        assert received == [(MESSAGE, server.hop)]
        assert refused.count == 0


async def test_of_a_name_the_same_connection_is_used_both_ways() -> None:
    async with flow() as (server, made, received):
        refused = Failures()
        made.send(MESSAGE, Hop("tcp", "localhost", server.port), refused)
        await until(lambda: server.got and server.got[0], "a message")
        server.writers[0].write(MESSAGE)
        await until(lambda: received, "theirs")
        made.send(MESSAGE, received[0][1], refused)
        await until(lambda: len(server.got[0]) == 2, "our answer")
        assert len(server.got) == 1


async def test_one_that_was_closed_is_made_anew() -> None:
    async with flow() as (server, made, _):
        refused = Failures()
        made.send(MESSAGE, server.hop, refused)
        await until(lambda: server.got and server.got[0], "a message")
        server.writers[0].close()
        await until(lambda: server.closed == 1, "its end")

        def second() -> bool:
            made.send(MESSAGE, server.hop, refused)
            return len(server.got) > 1 and bool(server.got[1])

        await until(second, "a second connection")


async def test_refused_and_unanswered_ones_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LARGE_S", 0.2)
    async with flow() as (server, made, _):
        refused = Failures()
        nobody = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = nobody.sockets[0].getsockname()[1]
        nobody.close()
        await nobody.wait_closed()
        for _ in range(2):
            made.send(MESSAGE, Hop("tcp", "127.0.0.1", port), refused)
        await until(lambda: refused.count == 2, "both")
        made.send(MESSAGE, Hop("tcp", "198.51.100.1", 9), refused)  # of RFC 5737: nobody answers, or there is no way
        await until(lambda: refused.count == 3, "no answer")
        assert server.got == []


async def test_when_there_are_too_many_the_oldest_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LARGE_WAYS", 2)
    async with flow() as (server, made, _):
        refused = Failures()
        for number in (1, 2, 3):
            made.send(MESSAGE, Hop("tcp", f"127.0.0.{number}", server.port), refused)
            await until(lambda number=number: len(server.got) == number and bool(server.got[-1]), "a message")  # type: ignore[misc]
        await until(lambda: server.closed == 1, "the end of the first")
        assert refused.count == 0


async def test_closing_in_the_midst_of_it_leaves_nothing() -> None:
    async with flow() as (server, made, _):
        before = {task for task in asyncio.all_tasks() if "sip" in task.get_name()}
        made.send(MESSAGE, server.hop, Failures())
        await made.close()
        await made.close()
        assert {task for task in asyncio.all_tasks() if "sip" in task.get_name()} <= before
