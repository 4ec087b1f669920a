"""A real mosquitto for tests, a TCP relay that can stall and cut, and a watcher that collects messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from appliance.faces.acl import User, access_list
from appliance.link.local import find_mosquitto, password_line
from tests.support.ports import free_port

__all__ = ["Broker", "Client", "Relay", "Seen"]

START_S: Final = 10.0
STOP_S: Final = 10.0
SESSION_S: Final = 3600


class Broker:
    """Mosquitto on a free loopback port, in a folder of its own, with the product's own access list.

    Everybody's password is his name. ``async with Broker(folder)`` runs it (``absent``: only once ``start`` is called)
    and leaves nothing, whatever happens inside. ``kill`` is SIGKILL; ``start`` again has the same port and persistence.
    """

    def __init__(self, folder: Path, *, users: Sequence[User] = (), devices: Sequence[str] = (),
                 extra: str = "", as_clientid: bool = False, absent: bool = False) -> None:
        self.folder = folder
        self._absent = absent
        self.port = free_port()
        self.log: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        names = [*devices, *(user.name for user in users)]
        (folder / "passwords").write_text("".join(password_line(name, name) + "\n" for name in names))
        (folder / "acl").write_text(access_list(users, devices))
        for secret in ("passwords", "acl"):
            (folder / secret).chmod(0o600)
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nuser {pwd.getpwuid(os.geteuid()).pw_name}\nallow_anonymous false\n"
            f"password_file {folder}/passwords\nacl_file {folder}/acl\n"
            f"use_username_as_clientid {str(as_clientid).lower()}\n"
            f"persistence true\npersistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
            f"log_dest stderr\nlog_type all\n{extra}")

    async def __aenter__(self) -> Broker:
        if not self._absent:
            await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when it takes connections."""
        program = await asyncio.to_thread(find_mosquitto)
        self._process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", program, "-c", str(self.folder / "mosquitto.conf"),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
        running = asyncio.Event()
        self._reader = asyncio.create_task(self._read(self._process, running), name="broker log")
        try:
            async with asyncio.timeout(START_S):
                await running.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"mosquitto did not start: {self.log[-20:]}") from None
        except BaseException:
            await self.kill()
            raise

    async def kill(self) -> None:
        await self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        await self._signal(signal.SIGTERM)

    async def _signal(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        reader, self._reader = self._reader, None
        if process is None or reader is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            async with asyncio.timeout(STOP_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await reader

    async def _read(self, process: asyncio.subprocess.Process, running: asyncio.Event) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = line.decode(errors="replace").strip()
            self.log.append(text)
            del self.log[:-500]
            if text.endswith(" running"):
                running.set()


@dataclass(frozen=True)
class Seen:
    topic: str
    payload: bytes
    retained: bool
    qos: int


@dataclass
class Client:
    """A plain client of somebody else's make: auto-ack, its own reconnecting. Collects what it is sent.

    Its session outlives its connection and the broker: what is published before it is back waits for it there.
    """

    port: int
    name: str
    client_id: str = ""
    password: str = ""  # empty: the name, as Broker has it
    seen: list[Seen] = field(default_factory=list)
    _client: paho.Client = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Client:
        loop = asyncio.get_running_loop()
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self.client_id or f"{self.name}-test", protocol=paho.MQTTv5)
        client.username_pw_set(self.name, self.password or self.name)
        client.reconnect_delay_set(1, 1)
        connected, self._filters = asyncio.Event(), []

        def on_connect(_c, _u, _f, code, _p):
            if code.is_failure:
                return
            for topic_filter in self._filters:
                client.subscribe(topic_filter, qos=1)
            loop.call_soon_threadsafe(connected.set)

        client.on_connect = on_connect
        client.on_message = lambda _c, _u, m: loop.call_soon_threadsafe(
            self._take, Seen(m.topic, bytes(m.payload), m.retain, m.qos))
        self._subscribed: dict[int, asyncio.Event] = {}
        client.on_subscribe = lambda _c, _u, mid, _codes, _p: loop.call_soon_threadsafe(
            lambda: self._subscribed.setdefault(mid, asyncio.Event()).set())
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = SESSION_S
        client.connect_async("127.0.0.1", self.port, 10, clean_start=False, properties=kept)
        client.loop_start()
        try:
            async with asyncio.timeout(10):
                await connected.wait()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._client.disconnect()
        client = self._client
        await asyncio.to_thread(client.loop_stop)
        client.on_connect = client.on_message = client.on_subscribe = None  # paho closes its sockets when it is freed
        del self._client

    def _take(self, message: Seen) -> None:
        self.seen.append(message)
        self._changed.set()

    async def subscribe(self, *filters: str) -> None:
        """Returns after SUBACK (which proves nothing about rights: see the access list)."""
        for topic_filter in filters:
            self._filters.append(topic_filter)
            _, mid = self._client.subscribe(topic_filter, qos=1)
            async with asyncio.timeout(5):
                await self._subscribed.setdefault(mid, asyncio.Event()).wait()

    async def publish(self, topic: str, payload: bytes | str, *, expiry_s: int | None = None, retain: bool = False,
                      qos: int = 1, correlation: bytes | None = None, response_topic: str | None = None) -> None:
        """Returns after the broker's PUBACK."""
        properties = Properties(PacketTypes.PUBLISH)
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        if correlation is not None:
            properties.CorrelationData = correlation
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        await asyncio.to_thread(info.wait_for_publish, 10)
        assert info.is_published(), f"{self.name}: no PUBACK for {topic} within 10 s"

    async def until(self, found: Callable[[Seen], bool], within_s: float = 10) -> Seen:
        """The first message, past or to come, that fits."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    for message in self.seen:
                        if found(message):
                            return message
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            last = "\n".join(f"{message.topic} {message.payload[:200]!r}" for message in self.seen[-12:])
            raise AssertionError(f"{self.name} was not told within {within_s} s; the last of all:\n{last}") from None

    def of(self, topic: str) -> list[Seen]:
        return [message for message in self.seen if message.topic == topic]


class Relay:
    """TCP between a client and the broker. ``stall``: nothing passes, nothing is lost. ``cut``: connections end."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Relay]:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            self.cut()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the broker is not there: as little is heard of it through a relay
            self._writers.discard(writer)
            writer.transport.abort()
            return
        if writer.transport.is_closing():  # cut meanwhile
            there[1].transport.abort()
            return
        for source, sink in ((reader, there[1]), (there[0], writer)):
            self._writers.add(sink)
            task = asyncio.create_task(self._pipe(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(sink)
            sink.transport.abort()


def environment() -> Mapping[str, str]:
    """What a child needs to import the product from this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


