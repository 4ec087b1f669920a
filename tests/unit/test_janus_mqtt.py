"""A room server through a broker that does as it likes: what it sends is bounded, and what is not ours is left out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from appliance.providers.janus.mqtt import WAITING, Broker, Topics
from appliance.providers.janus.transport import MAX_MESSAGE
from appliance.vocabulary import Json

TOPICS = Topics("to-janus", "from-janus", "status")
CONNECT, PUBLISH, SUBSCRIBE = 1, 3, 8

Act = Callable[[asyncio.StreamWriter, Json], Awaitable[None]]


def number(value: int) -> bytes:
    """A variable byte integer (MQTT 5, 1.5.5)."""
    coded = b""
    while True:
        value, low = divmod(value, 128)
        coded += bytes([low | (128 if value else 0)])
        if not value:
            return coded


def packet(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + number(len(body)) + body


def publish(payload: bytes, topic: bytes = b"from-janus") -> bytes:
    return packet(0x30, len(topic).to_bytes(2, "big") + topic + b"\0" + payload)


def told(message: Json) -> bytes:
    return publish(json.dumps(message).encode())


@asynccontextmanager
async def broker(act: Act, *, largest: int = 0) -> AsyncIterator[str]:
    """The URL of one that grants everything; ``act`` is called with each request to the room server;
    ``largest``: bytes of a packet that it takes."""
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(task := asyncio.current_task())  # type: ignore[arg-type]
        try:
            while kind := await reader.read(1):
                length = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length, shift = length | (byte & 127) << shift, shift + 7
                    if byte < 128:
                        break
                await obey(kind[0] >> 4, await reader.readexactly(length), writer)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            served.discard(task)

    async def obey(kind: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        if kind == CONNECT:
            limit = b"\x27" + largest.to_bytes(4, "big") if largest else b""
            writer.write(packet(0x20, b"\0\0" + number(len(limit)) + limit))
        elif kind == SUBSCRIBE:
            writer.write(packet(0x90, body[:2] + b"\0\1\1"))
        elif kind == PUBLISH:
            after = 2 + int.from_bytes(body[:2], "big")
            writer.write(packet(0x40, body[after:after + 2]))
            await act(writer, json.loads(body[after + 3 + body[after + 2]:]))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if served:
        await asyncio.wait(served, timeout=5)


async def pong(writer: asyncio.StreamWriter, request: Json) -> None:
    writer.write(told({"janus": "pong", "transaction": request["transaction"]}))


async def test_a_packet_larger_than_any_is_not_read() -> None:
    """MQTT lets one announce 256 MB."""
    sent = 0

    async def flood(writer: asyncio.StreamWriter, _: Json) -> None:
        nonlocal sent
        writer.write(b"\x30" + number(200_000_000))
        while not writer.is_closing():
            writer.write(bytes(1 << 16))
            sent += 1 << 16
            await writer.drain()

    async with broker(flood) as url, asyncio.timeout(10):
        with pytest.raises(ConnectionError, match="lost"):
            await Broker(TOPICS).connect(url)
    assert sent < 16 * MAX_MESSAGE  # what the kernel holds on the way


async def test_what_is_not_taken_ends_the_connection() -> None:
    async def act(writer: asyncio.StreamWriter, request: Json) -> None:
        await pong(writer, request)
        if request["janus"] == "create":
            for count in range(WAITING + 1):
                writer.write(told({"janus": "event", "transaction": request["transaction"], "count": count}))

    async with broker(act) as url, asyncio.timeout(10):
        channel = await Broker(TOPICS).connect(url)
        with pytest.raises(ConnectionError, match="more than is taken"):
            while True:
                await channel.send({"janus": "create", "transaction": "t1"})
        await channel.close()
        await channel.close()


async def test_only_what_is_ours_is_heard() -> None:
    async def act(writer: asyncio.StreamWriter, request: Json) -> None:
        await pong(writer, request)
        if request["janus"] == "ping":
            return
        for message in (
            {"janus": "event", "transaction": "another", "session_id": 5}, {"janus": "event", "session_id": 6},
            {"janus": "error", "error": {"code": 458}}, {"janus": "event", "transaction": 7, "session_id": [5]},
        ):
            writer.write(told(message))
        writer.write(publish(b"[" * 1000) + publish(b"\xff\xfe") + publish(b"{}"))
        writer.write(publish(b"[" * 1000, b"status") + publish(b'{"online": 1}', b"status"))
        writer.write(told({"janus": "event", "session_id": 5, "last": True}))

    async with broker(act) as url, asyncio.timeout(10):
        channel = await Broker(TOPICS).connect(url)
        await channel.send({"janus": "keepalive", "transaction": "t1", "session_id": 5})
        assert (await channel.receive())["janus"] == "pong"
        assert await channel.receive() == {"janus": "event", "session_id": 5, "last": True}
        await channel.close()


async def test_a_request_that_the_broker_does_not_take_says_so() -> None:
    async with broker(pong, largest=1000) as url, asyncio.timeout(10):
        channel = await Broker(TOPICS).connect(url)
        with pytest.raises(ConnectionError, match="more than the broker takes"):
            await channel.send({"janus": "message", "transaction": "t1", "body": "x" * 1000})
        await channel.close()


async def test_a_server_that_says_good_bye_is_gone() -> None:
    async def act(writer: asyncio.StreamWriter, request: Json) -> None:
        await pong(writer, request)
        if request["janus"] == "create":
            writer.write(publish(b'{"online": false}', b"status"))

    async with broker(act) as url, asyncio.timeout(10):
        channel = await Broker(TOPICS).connect(url)
        with pytest.raises(ConnectionError, match="not at the broker"):
            await channel.send({"janus": "create", "transaction": "t1"})
            while True:
                await channel.receive()
        await channel.close()


def test_topics_are_below_the_path_of_the_address() -> None:
    assert TOPICS.below("/a/b/") == Topics("a/b/to-janus", "a/b/from-janus", "a/b/status")
    assert TOPICS.below("") == TOPICS.below("/") == TOPICS
