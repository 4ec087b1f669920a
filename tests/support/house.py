"""The whole appliance in this process, on the simulated board: opened, served, and looked into over its own socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from appliance.house import House, Start
from appliance.settings import Loaded, load_or_last_good
from appliance.vocabulary import Event, Json
from hw.api import Board, BoardOptions
from hw.boards import open_board
from tests.support.appliance import envelope, toml

__all__ = ["Manager", "Running", "house", "start_of"]


class Manager:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def told(self) -> list[str]:
        """What came since the last time."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


class Running:
    """One appliance that serves, and what it tells."""

    def __init__(self, house: House, config: Path) -> None:
        self.house = house
        self.config = config
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def document(self, name: str) -> Json:
        return self.house.bulletin.document(name)

    def raised(self, name: str) -> bool:
        return self.house.diagnostics.raised(name)

    async def until(self, condition: Callable[[], Any], within_s: float = 15.0) -> None:
        """Looked at whenever a document or an event has come."""
        with self.house.bulletin.subscribed(on_document=lambda *_: self._changed.set()):
            async with asyncio.timeout(within_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()

    async def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Any]:
        """Over the command line's socket: status, and the JSON or text."""
        connector = aiohttp.UnixConnector(str(self.house.http.socket_path))
        async with (aiohttp.ClientSession(connector=connector) as http,
                    http.request(method, f"http://edgecall{path}", json=body) as reply):
            return reply.status, await (reply.json() if reply.content_type == "application/json" else reply.text())

    async def give(self, verb: str, **args: Any) -> Json:
        _, answer = await self.ask("POST", f"/v1/cmd/{verb}?wait=10", envelope(verb, args))
        return dict(answer)


async def start_of(folder: Path, settings: Mapping[str, Any] | None = None, *,
             board: Callable[[str, BoardOptions], Board] = open_board, tables: str = "", **more: Any) -> Start:
    """How ``edgecall run`` would start with these settings (``{"call.ring_s": 5}``). ``tables``: TOML behind them."""
    config = folder / "edgecall.toml"
    write(config, {"device.id": "door-1", "http.port": 0, "board.microphone": "tone:440", **(settings or {})}, tables)

    def load() -> Loaded:
        return load_or_last_good(config, folder / "data", environ={})

    (folder / "data").mkdir(mode=0o700, exist_ok=True)
    return Start(await asyncio.to_thread(load), load, config, board, announce=lambda _: None, **more)


def write(config: Path, settings: Mapping[str, Any], tables: str = "") -> None:
    sections: dict[str, list[str]] = {}
    for name, value in settings.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, []).append(f"{key} = {toml(value)}")
    config.write_text("\n".join(f"[{name}]\n" + "\n".join(rows) for name, rows in sections.items()) + f"\n{tables}\n")


@asynccontextmanager
async def house(start: Start) -> AsyncIterator[Running]:
    """Opened and serving; stopped as SIGTERM stops it."""
    assert start.path is not None
    async with House(start) as opened:
        running = Running(opened, start.path)
        with opened.bulletin.subscribed(on_event=running.tell):
            serving = asyncio.create_task(opened.serve(), name="serve")
            try:
                yield running
            finally:
                opened.stopping.set()
                await asyncio.wait({serving}, timeout=15)
                serving.result()
