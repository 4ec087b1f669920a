"""A real Janus for tests: its rooms over WebSocket on loopback, media on the namespace's own interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.another_debian import command_in
from tests.support.ports import free_port

__all__ = ["ADMIN", "AUDIO", "TEXT", "Control", "JanusServer", "Rooms"]

START_S: Final = 15.0
ADMIN: Final = "admin-key"
VIDEO: Final = "janus.plugin.videoroom"
AUDIO: Final = "janus.plugin.audiobridge"
TEXT: Final = "janus.plugin.textroom"
Rooms = Mapping[int, Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]
USED: Final = ("plugins/libjanus_videoroom.so", "transports/libjanus_websockets.so")


ROOT: Final = Path(os.environ.get("EDGECALL_JANUS_ROOT") or "/")
"""Where the Debian is that has Janus: this one, or the one of ``tests/peers/suite``."""


def library(kind: str) -> Path:
    """The folder of Janus' plug-ins or transports."""
    return next((ROOT / "usr" / "lib").glob(f"*/janus/{kind}"))


def command() -> list[str]:
    """Janus, that of the host or that of another Debian's folder."""
    program = "usr/bin/janus"
    return [shutil.which("janus") or f"/{program}"] if Path("/") == ROOT else command_in(ROOT, program)


def without(kind: str, used: Collection[str]) -> str:
    """All of a kind but those that are used, as ``disable`` wants them."""
    names = sorted(one.name for one in library(kind).glob("*.so"))
    return ",".join(name for name in names if f"{kind}/{name}" not in used)


class Control:
    """Somebody who looks after the rooms, by requests of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, secret: str, plugin: str) -> None:
        self._socket = socket
        self._secret = secret
        self._plugin = plugin
        self._session = 0
        self._handle = 0

    async def open(self) -> None:
        self._session = (await self._ask({"janus": "create"}))["data"]["id"]
        attach = {"janus": "attach", "plugin": self._plugin, "session_id": self._session}
        self._handle = (await self._ask(attach))["data"]["id"]

    async def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One synchronous request to the plug-in, and what it says."""
        answer = await self._ask({"janus": "message", "session_id": self._session, "handle_id": self._handle,
                                  "body": dict(body)})
        data: dict[str, Any] = answer["plugindata"]["data"]
        return data

    async def say(self, body: Mapping[str, Any]) -> None:
        """One that the plug-in only acknowledges; what it says later is not read."""
        await self._ask({"janus": "message", "session_id": self._session, "handle_id": self._handle,
                         "body": dict(body)})

    async def participants(self, room: int | str) -> list[dict[str, Any]]:
        """The server's own list."""
        listed = await self.request({"request": "listparticipants", "room": room})
        return [dict(one) for one in listed["participants"]]

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        transaction = secrets.token_hex(6)
        secret = {"apisecret": self._secret} if self._secret else {}
        await self._socket.send_json({**message, **secret, "transaction": transaction})
        while True:
            answer: dict[str, Any] = await self._socket.receive_json(timeout=5)
            if answer.get("transaction") == transaction:
                return answer


class JanusServer:
    """Janus on a free port with these ``rooms`` (id -> settings of janus.plugin.videoroom.jcfg; where ids are text, all
    in it are), those of AudioBridge (``audio``) and TextRoom (``texts``), an API ``secret`` if there is to be one, and
    more of what stands under ``general`` of janus.jcfg. ``broker``: port of one at which it serves as ``rooms`` too, on
    topics below ``rooms/``; ``plugins``: more than those."""

    def __init__(self, folder: Path, rooms: Rooms, *, secret: str = "",
                 general: Mapping[str, Any] | None = None, broker: int = 0, plugins: Collection[str] = (),
                 audio: Rooms | None = None, texts: Rooms | None = None) -> None:
        self._folder = folder
        self._rooms = rooms
        self._secret = secret
        self._general = general or {}
        self._broker = broker
        self._audio = audio or {}
        self._texts = texts or {}
        self._used = {*USED, *(f"plugins/libjanus_{one}.so" for one in plugins),
                      *(["plugins/libjanus_audiobridge.so"] if audio else []),
                      *(["plugins/libjanus_textroom.so"] if texts else []),
                      *(["transports/libjanus_mqtt.so"] if broker else [])}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.port = free_port()
        self._admin_port = free_port()
        self.log: list[str] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Until it listens."""
        self._write()
        self._ready.clear()
        self._process = await asyncio.create_subprocess_exec(
            *command(), "-F", str(self._folder), "-o", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            cwd=self._folder, env={**os.environ, "HOME": str(self._folder)})
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            async with asyncio.timeout(START_S):
                await self._listening()
        except TimeoutError:
            raise AssertionError("Janus did not start:\n" + "".join(self.log[-20:])) from None

    async def _listening(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """As a crash would end it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader
        self._process = None

    def pause(self) -> None:
        """As a machine that has no time for it; ``go_on`` ends that."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Raises when it has died of itself meanwhile: what we send must never do that to it."""
        status = None if self._process is None else self._process.returncode
        await self.kill()
        assert status is None, f"Janus ended by itself (status {status}):\n" + "".join(self.log[-20:])

    async def pictures_sent(self) -> Mapping[str, int]:
        """Bytes of pictures that the server has sent on each line to all who are there, by its own counters."""
        sent: dict[str, int] = {}
        for session in (await self.admin("list_sessions"))["sessions"]:
            for handle in (await self.admin("list_handles", session_id=session)).get("handles", []):
                told = await self.admin("handle_info", session_id=session, handle_id=handle)
                for number, count in enumerate(_bytes_out(told.get("info", {}), "video")):
                    sent[f"{handle} {number}"] = count
        return sent

    @asynccontextmanager
    async def control(self, plugin: str = VIDEO) -> AsyncIterator[Control]:
        async with aiohttp.ClientSession() as http, http.ws_connect(self.url, protocols=("janus-protocol",)) as socket:
            control = Control(socket, self._secret, plugin)
            await control.open()
            yield control

    async def admin(self, what: str, **more: Any) -> dict[str, Any]:
        """One request of the Admin API, and its answer."""
        url = f"ws://127.0.0.1:{self._admin_port}"
        async with aiohttp.ClientSession() as http, http.ws_connect(url, protocols=("janus-admin-protocol",)) as socket:
            await socket.send_json({"janus": what, "transaction": "t", "admin_secret": ADMIN, **more})
            answer: dict[str, Any] = await socket.receive_json(timeout=5)
            return answer

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.log.append(line.decode(errors="replace"))
            del self.log[:-500]

    def _write(self) -> None:
        general = {"admin_secret": ADMIN, **({"api_secret": self._secret} if self._secret else {}), **self._general}
        more = " ".join(_setting(*one) for one in general.items())
        self._put("janus.jcfg", f"""
general: {{
  configs_folder = "{self._folder}"
  plugins_folder = "{library("plugins")}"
  transports_folder = "{library("transports")}"
  events_folder = "{self._folder}"
  loggers_folder = "{self._folder}"
  debug_level = 4
  debug_colors = false
  {more}
}}
media: {{ rtp_port_range = "20000-29999" }}
nat: {{ ice_ignore_list = "vmnet" }}
plugins: {{ disable = "{without("plugins", self._used)}" }}
transports: {{ disable = "{without("transports", self._used)}" }}
""")
        self._put("janus.transport.websockets.jcfg", f"""
general: {{ ws = true ws_port = {self.port} ws_ip = "127.0.0.1" ws_logging = "err,warn" }}
admin: {{ admin_ws = true admin_ws_port = {self._admin_port} admin_ws_ip = "127.0.0.1" }}
""")
        if self._broker:
            self._put("janus.transport.mqtt.jcfg", f"""
general: {{
  enabled = true json = "compact" mqtt_version = "5" url = "tcp://127.0.0.1:{self._broker}"
  client_id = "rooms" username = "rooms" password = "rooms" cleansession = 1
  subscribe_topic = "rooms/to-janus" publish_topic = "rooms/from-janus"
}}
status: {{
  enabled = true topic = "rooms/status" retain = true
  connect_message = "{{\\"online\\": true}}" disconnect_message = "{{\\"online\\": false}}"
}}
""")
        for plugin, rooms in ((VIDEO, self._rooms), (AUDIO, self._audio), (TEXT, self._texts)):
            groups: dict[str, Mapping[str, Any]] = {
                "general": {"admin_key": ADMIN, "string_ids": any(isinstance(name, str) for name in rooms)},
                **{f"room-{name}": room for name, room in rooms.items()}}
            self._put(f"{plugin}.jcfg", "".join(
                f"{group}: {{ {' '.join(_setting(*one) for one in settings.items())} }}\n"
                for group, settings in groups.items()))

    def _put(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)


def _bytes_out(info: Any, kind: str) -> list[int]:
    """Of each media line of this kind, somewhere in what the server tells of a handle."""
    if isinstance(info, dict) and info.get("type") == kind and "stats" in info:
        return [int(info["stats"].get("out", {}).get("bytes", 0))]
    parts = info if isinstance(info, list) else info.values() if isinstance(info, dict) else ()
    return [count for one in parts for count in _bytes_out(one, kind)]


def _setting(name: str, value: Any) -> str:
    return f"{name} = " + (str(value).lower() if isinstance(value, bool | int) else f'"{value}"')
