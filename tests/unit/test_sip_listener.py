"""Connections of others: what they may cost."""

from __future__ import annotations

import asyncio
import socket

from appliance.providers.sip.listener import read_messages
from appliance.providers.sip.message import MAX_MESSAGE, PING
from tests.support.waiting import until


async def test_who_asks_for_signs_of_life_and_does_not_listen_costs_no_memory() -> None:
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)
    _, peer = await asyncio.open_connection(sock=there)
    task = asyncio.create_task(read_messages(reader, writer, lambda _: None))
    try:
        peer.transport.pause_reading()
        peer.write(PING * (8 * 1024 * 1024 // len(PING)))
        await until(lambda: writer.transport.get_write_buffer_size() > 0, "it listens to nothing")
        before = -1
        while before != (before := peer.transport.get_write_buffer_size()):  # noqa: ASYNC110 - nobody tells when it is full
            await asyncio.sleep(0.1)
        assert before > 4 * 1024 * 1024, "the rest waits with who wrote it"
        assert writer.transport.get_write_buffer_size() <= 2 * MAX_MESSAGE
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for one in (peer, writer):
            one.transport.abort()
        await asyncio.sleep(0)
