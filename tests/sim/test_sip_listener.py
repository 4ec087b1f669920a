"""A port that others connect to: what comes in by it, and what no flood may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from appliance.providers.sip.agent import Hop
from appliance.providers.sip.listener import CONNECTIONS, Listener
from tests.support.ports import free_port
from tests.support.waiting import until

HOST = "127.0.0.1"
MESSAGE = b"OPTIONS sip:door@127.0.0.1 SIP/2.0\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Listener, list[tuple[bytes, Hop]]]]:
    got: list[tuple[bytes, Hop]] = []
    made = Listener("tcp", free_port(), None, (), lambda data, hop: got.append((data, hop)))
    await made.open(HOST)
    await made.open(HOST)  # changes nothing
    try:
        yield made, got
    finally:
        await made.close()
        await made.close()


async def test_messages_come_with_who_sent_them_and_answers_go_back() -> None:
    async with listening() as (listener, got):
        reader, writer = await asyncio.open_connection(*listener.address)
        own = writer.get_extra_info("sockname")
        for part in (MESSAGE[:9], MESSAGE[9:] + MESSAGE, b"\r\n\r\n"):
            writer.write(part)
        await until(lambda: len(got) == 2, "two messages")
        assert got[0] == (MESSAGE, Hop("tcp", HOST, own[1]))
        assert await reader.readexactly(2) == b"\r\n", "a sign of life is answered"
        back = listener.writer_for(got[0][1])
        assert back is not None
        back.write(b"answer")
        assert await reader.readexactly(6) == b"answer"
        assert listener.writer_for(Hop("tcp", HOST, 5060)) is None
        assert listener.writer_for(Hop("tcp", HOST, 5060), any_port=True) is back, "what it is called at"
        assert listener.writer_for(Hop("tcp", "127.0.0.2", 5060), any_port=True) is None
        writer.close()
        await until(lambda: listener.writer_for(got[0][1]) is None, "gone")


async def test_who_sends_something_else_is_cut_off() -> None:
    async with listening() as (listener, got):
        reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.read() == b""
        assert not got
        writer.close()


async def test_a_flood_of_connections_drives_out_the_silent_ones() -> None:
    async with listening() as (listener, got):
        reader, speaking = await asyncio.open_connection(*listener.address)
        silent = [await asyncio.open_connection(*listener.address) for _ in range(CONNECTIONS - 1)]
        speaking.write(MESSAGE)
        await until(lambda: got, "heard")
        more = [await asyncio.open_connection(*listener.address) for _ in range(8)]
        for cut, _ in silent[:8]:
            assert await cut.read() == b""
        assert len(listener._writers) == CONNECTIONS
        assert listener.writer_for(got[0][1]) is not None, "who speaks stays"
        for _, writer in (*silent, *more, (reader, speaking)):
            writer.close()
        await until(lambda: not listener._writers, "all gone")
